//! The Lua around each function, generated from its declaration: checks the call, converts the
//! arguments, names them. It is all that ever sees `KEYS` and `ARGV`.

use std::fmt::Write;

use crate::lua::protocol::{Argument, Function, Kind};
use crate::wire::error::Error;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Registered in the library.
    Function,
    /// A script of its own, for servers without functions.
    Script,
}

pub const KEYWORDS: [&str; 21] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not", "or",
    "repeat", "return", "then", "true", "until", "while",
];

/// The server's globals as locals of the library: there, a global is looked up in two tables. They exist only when a
/// function is called, hence the first call fetches them.
pub fn globals() -> String {
    let names = GLOBALS.join(", ");
    format!(
        "local function globals() return redis, {names} end\nlocal redis, {names} = redis\n\
         local function fetch_globals() redis, {names} = globals() end"
    )
}

const GLOBALS: [&str; 15] = [
    "cjson", "cmsgpack", "error", "ipairs", "math", "next", "pairs", "pcall", "select", "string", "table", "tonumber",
    "tostring", "type", "unpack",
];

/// What all callbacks share. No standard library exists while a library loads, so nothing but
/// functions stands here.
pub const HELPERS: &str = r#"local function refuse(name, what)
  return redis.error_reply('ARDIQ_BAD_ARGUMENT ' .. name .. ': ' .. what)
end
-- Whether a key is the base of a queue. Mostly the one of the last call is asked for again.
local known_base
local function is_base(key)
  if key == known_base then return true end
  if not string.find(key, '^.+:{.+}:$') then return false end
  known_base = key
  return true
end
local function bad_call(name, KEYS, ARGV, expected)
  if #KEYS ~= 1 or not is_base(KEYS[1]) then
    return refuse(name, 'expected one key, the base of a queue, as ardiq:{default}:')
  end
  return refuse(name, 'takes ' .. expected .. ' arguments, got ' .. #ARGV)
end
local function integer(text)
  local number = string.find(text, '^%-?%d+$') and tonumber(text)
  -- Beyond 2^53 a Lua number is no longer the integer that was sent.
  return number and number < 9007199254740992 and number > -9007199254740992 and number
end
local function json(text)
  local ok, value = pcall(cjson.decode, text)
  return ok and type(value) == 'table' and value
end
-- Fails unless all are texts: nothing else can be compared with one.
local function compare(list)
  for i = 1, #list do
    if list[i] < '' then return end
  end
end
-- The fields of records that came as one argument, a msgpack array of texts.
local function unpacked(text)
  local ok, list = pcall(cmsgpack.unpack, text)
  return ok and type(list) == 'table' and pcall(compare, list) and list
end
-- The fields of records that came as arguments of their own, behind the function's own.
local function behind(ARGV, own)
  local list = {}
  for i = own + 1, #ARGV do list[i - own] = ARGV[i] end
  return list
end
-- What a call that failed answers. Refusals and errors of commands begin with their code; anything else is a mistake
-- in the Lua. A `pcall` inside the server turns an error raised as a table into its text, save before 7.0, when in
-- turn the text of a command's error begins with a place.
local function failed(err)
  local text = type(err) == 'table' and err.err or tostring(err)
  text = string.match(text, '^@user_script: ?%d+: %-?(%u[%u_]+ .*)$') or text
  if not string.find(text, '^%u[%u_]+ ') then text = 'ERR ' .. text end
  return { err = text }
end"#;

/// The flags a function is registered with, as a Lua table.
pub fn flags(function: &Function) -> String {
    let quoted: Vec<String> = function.flags.iter().map(|flag| format!("'{flag}'")).collect();
    format!("{{{}}}", quoted.join(", "))
}

/// `return function(KEYS, ARGV) … end`, which calls `run(base, args)`.
///
/// # Errors
/// [`Error::Argument`] when a declared name cannot stand in Lua.
pub fn callback(function: &Function, form: Form) -> Result<String, Error> {
    let name = &function.name;
    let fixed = function.args.len();
    let mut lua = String::new();
    let mut fields = Vec::new();
    let width = function.tail.as_ref().map_or(0, |tail| tail.fields.len());
    // One argument alone is no record where those have several fields.
    let may_be_packed = width > 1;
    let (misfit, expected) = match &function.tail {
        None => (format!("#ARGV ~= {fixed}"), fixed.to_string()),
        Some(tail) => {
            let multiple = if width > 1 { format!(" or #records % {width} ~= 0") } else { String::new() };
            let absent = if may_be_packed { " or not records" } else { "" };
            (
                format!("#ARGV < {fixed}{absent} or #records > {}{multiple}", width * tail.max),
                format!("{fixed} and {width} for each of up to {} {}", tail.max, tail.name),
            )
        }
    };
    let mut line = |text: String| {
        let _ = writeln!(lua, "  {text}");
    };
    if form == Form::Function {
        line("if not type then fetch_globals() end".to_owned());
    }
    if width > 0 {
        let apart = if fixed > 0 { format!("behind(ARGV, {fixed})") } else { "ARGV".to_owned() };
        line(if may_be_packed {
            let first = fixed + 1;
            format!(
                "local is_packed = #ARGV == {first}\n  \
                 local records\n  \
                 if is_packed then records = unpacked(ARGV[{first}]) else records = {apart} end"
            )
        } else {
            format!("local records = {apart}")
        });
    }
    line(format!(
        "if #KEYS ~= 1 or not is_base(KEYS[1]) or {misfit} then return \
         bad_call('{name}', KEYS, ARGV, '{expected}') end"
    ));
    for (index, arg) in function.args.iter().enumerate() {
        let field = checked(name, &arg.name)?;
        let position = index + 1;
        let (convert, misfit, what) = match arg.kind {
            Kind::String => {
                fields.push(format!("{field} = ARGV[{position}]"));
                continue;
            }
            Kind::Int => {
                let (misfit, range) = range(arg, &format!("arg{position}"));
                ("integer", misfit, format!("an integer{range}"))
            }
            Kind::Json => ("json", String::new(), "a JSON array or object".to_owned()),
        };
        line(format!(
            "local arg{position} = {convert}(ARGV[{position}])\n  \
             if not arg{position}{misfit} then return refuse('{name}', '{field} is not {what}') end"
        ));
        fields.push(format!("{field} = arg{position}"));
    }
    if let Some(tail) = &function.tail {
        // The records stay one flat list: a table for each would cost about as much as a command.
        let mut numbers = String::new();
        for (index, field) in tail.fields.iter().enumerate().filter(|(_, field)| field.kind == Kind::Int) {
            // Not `integer`: this runs once a record, and its pattern costs more than the rest.
            let field = checked(name, &field.name)?;
            let _ = write!(
                numbers,
                "    local {field} = tonumber(records[i + {index}])\n    if not {field} or {field} % 1 ~= 0 \
                 then return refuse('{name}', '{field} is not an integer') end\n    records[i + {index}] = {field}\n"
            );
        }
        if !numbers.is_empty() {
            line(format!("for i = 1, #records, {width} do\n{numbers}  end"));
        }
        fields.push(format!("{} = records", checked(name, &tail.name)?));
    }
    if form == Form::Script && !function.query {
        // Without function flags, a script is held to `maxmemory` by each command until its first write.
        line(if function.has_flag("allow-oom") {
            // This write, of a command that memory never refuses, is that first one.
            "redis.call('DEL', KEYS[1] .. 'oom')".to_owned()
        } else {
            // This one is refused at `maxmemory`, before anything else is written, and writes nothing.
            "local full = redis.pcall('SETRANGE', KEYS[1] .. 'oom', 0, '')\n  \
             if type(full) == 'table' then return failed(full) end"
                .to_owned()
        });
    }
    line(format!("local ok, reply = pcall(run, KEYS[1], {{ {} }})", fields.join(", ")));
    if may_be_packed {
        line(
            "if is_packed and ok and type(reply) == 'table' and not reply.err then return cmsgpack.pack(reply) end"
                .to_owned(),
        );
    }
    line("if ok then return reply end".to_owned());
    line("return failed(reply)".to_owned());
    Ok(format!("return function(KEYS, ARGV)\n{lua}end"))
}

/// What in Lua is true of a number outside the bounds of an argument, and the bounds in words.
fn range(arg: &Argument, number: &str) -> (String, String) {
    let (mut misfit, mut words) = (String::new(), String::new());
    if let Some(min) = arg.min {
        let _ = write!(misfit, " or {number} < {min}");
        let _ = write!(words, " from {min}");
    }
    if let Some(max) = arg.max {
        let _ = write!(misfit, " or {number} > {max}");
        let _ = write!(words, " to {max}");
    }
    (misfit, words)
}

fn checked<'a>(function: &str, name: &'a str) -> Result<&'a str, Error> {
    if super::is_name(name) {
        return Ok(name);
    }
    Err(Error::Argument(format!("{function}: {name:?} is no Lua name")))
}
