//! Composes `lua/` into the library payload and into the single scripts for servers without
//! functions; its checksum; where a line of it came from. Owns the embedded files; knows no server.

mod wrapper;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::OnceLock;

use include_dir::{Dir, include_dir};

use crate::lua::protocol::{Function, Protocol};
use crate::wire::error::Error;

static LUA: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../lua");

/// The library of one set of sources: what the server is given, and how to read its complaints.
pub struct Library {
    protocol: &'static Protocol,
    libs: Vec<Source>,
    functions: Vec<(&'static Function, Source)>,
    sha1: String,
    released: Option<&'static str>,
}

/// One Lua file: its path below `lua/` and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: String,
    pub text: String,
}

/// One function as a script of its own.
pub struct Script {
    pub source: String,
    pub sha1: String,
    map: LineMap,
}

impl Library {
    /// The library of this build.
    pub fn get() -> &'static Self {
        static LIBRARY: OnceLock<Library> = OnceLock::new();
        LIBRARY.get_or_init(|| {
            let library = Self::compose(Protocol::get(), embedded()).unwrap_or_else(|error| panic!("lua/: {error}"));
            let released = release(library.protocol.version);
            library.released_as(released)
        })
    }

    /// Where this version was released, what was released is what counts, not what the sources make today.
    fn released_as(mut self, released: Option<&'static str>) -> Self {
        if let Some(text) = released {
            self.sha1 = sha1(text);
        }
        self.released = released;
        self
    }

    /// # Errors
    /// Names the file that is not what its folder says, or the libraries that need each other.
    pub fn compose(protocol: &'static Protocol, mut sources: Vec<Source>) -> Result<Self, String> {
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        let (mut libs, mut functions) = (Vec::new(), Vec::new());
        for source in sources {
            if source.text.contains("[[") {
                return Err(format!(
                    "{}: has [[, and in a long string a line may only seem to be a comment",
                    source.path
                ));
            }
            let folder = source.path.split('/').next().unwrap_or_default();
            match folder {
                "lib" => libs.push(source),
                "transitions" | "queries" => {
                    let function = protocol
                        .function(source.stem())
                        .map_err(|_| format!("{}: protocol.json declares no such function", source.path))?;
                    if function.folder() != folder {
                        return Err(format!("{}: belongs in {}/", source.path, function.folder()));
                    }
                    functions.push((function, source));
                }
                _ => return Err(format!("{}: no folder of the library", source.path)),
            }
        }
        for name in libs.iter().map(Source::stem) {
            if !is_name(name) {
                return Err(format!("lib/{name}.lua: its name is no Lua name"));
            }
        }
        functions.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let mut library =
            Self { protocol, libs: by_dependency(&libs)?, functions, sha1: String::new(), released: None };
        let payload = library.payload();
        library.sha1 = sha1(&payload);
        Ok(library)
    }

    /// The whole library for `FUNCTION LOAD`: as released, or as the sources make it. That is rendered anew each time:
    /// it is needed rarely, and an idle worker need not hold it.
    pub fn payload(&self) -> String {
        self.released.map_or_else(|| self.composed(), str::to_owned)
    }

    /// What the sources make, whatever was released.
    pub fn composed(&self) -> String {
        self.render().0
    }

    pub fn protocol(&self) -> &'static Protocol {
        self.protocol
    }

    /// SHA1 of the payload, in hex.
    pub fn sha1(&self) -> &str {
        &self.sha1
    }

    /// The functions it has, sorted by name.
    pub fn functions(&self) -> impl Iterator<Item = &'static Function> {
        self.functions.iter().map(|(function, _)| *function)
    }

    /// Commands of the server that a function may call.
    ///
    /// # Errors
    /// As [`script`](Self::script).
    pub fn commands(&self, name: &str) -> Result<Vec<String>, Error> {
        let script = self.script(name)?.source;
        let is_command = |word: &&str| {
            word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase()) && !NO_COMMANDS.contains(word)
        };
        let mut commands: Vec<String> = script.split('\'').filter(is_command).map(str::to_owned).collect();
        commands.sort();
        commands.dedup();
        Ok(commands)
    }

    /// One function alone, with the libraries it reaches: a script as large as the whole library
    /// costs several times as much on every call.
    ///
    /// # Errors
    /// [`Error::Argument`] when the library has no such function.
    pub fn script(&self, name: &str) -> Result<Script, Error> {
        let (function, body) = self
            .functions
            .iter()
            .find(|(function, _)| function.name == name)
            .ok_or_else(|| Error::Argument(format!("the library has no function {name:?}")))?;
        let mut text = Text::default();
        text.line(&format!(
            "-- {}, as a script of its own for servers without functions. {}",
            function.server_name, GENERATED
        ));
        text.line(REPLICATE_EFFECTS);
        text.libs(&self.reachable(body));
        text.line(wrapper::HELPERS);
        text.line("local callback = (function()");
        text.function(function, body, wrapper::Form::Script)?;
        text.line("end)()");
        text.line("return callback(KEYS, ARGV)");
        let sha1 = sha1(&text.text);
        Ok(Script { source: text.text, sha1, map: text.map })
    }

    /// A data step, `lua/migrations/<name>.lua`, as a script that is called with the base of a queue as its key.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is none of that name.
    pub fn migration(&self, name: &str) -> Result<String, Error> {
        let path = format!("migrations/{name}.lua");
        let text = LUA.get_file(&path).and_then(include_dir::File::contents_utf8);
        let body =
            Source { text: text.ok_or_else(|| Error::Argument(format!("there is no lua/{path}")))?.to_owned(), path };
        let mut text = Text::default();
        text.line(&format!("-- A data step as a script. {GENERATED}"));
        text.line(REPLICATE_EFFECTS);
        text.libs(&self.reachable(&body));
        text.line(wrapper::HELPERS);
        text.line("local run = (function()");
        text.source(&body);
        text.line("end)()");
        text.line("local ok, reply = pcall(run, KEYS[1], ARGV)\nif ok then return reply end\nreturn failed(reply)");
        Ok(text.text)
    }

    /// An error message of the server, with the source's file and line in place of the payload's.
    pub fn locate(&self, message: &str) -> String {
        if message.contains("user_") { self.render().1.locate(message) } else { message.to_owned() }
    }

    fn render(&self) -> (String, LineMap) {
        let mut text = Text::default();
        text.line(&format!("#!lua name={}", self.protocol.library));
        text.line(&format!("-- Ardiq's library, version {}. {GENERATED}", self.protocol.version));
        text.line(&wrapper::globals());
        text.libs(&self.libs.iter().collect::<Vec<_>>());
        text.line(wrapper::HELPERS);
        for (function, body) in &self.functions {
            text.line(&format!(
                "redis.register_function{{function_name='{}', flags={}, callback=(function()",
                function.server_name,
                wrapper::flags(function)
            ));
            text.function(function, body, wrapper::Form::Function).expect("checked by the protocol");
            text.line("end)()}");
        }
        (text.text, text.map)
    }

    /// The libraries whose names occur in `body`, and in them in turn.
    fn reachable(&self, body: &Source) -> Vec<&Source> {
        let mut found = vec![false; self.libs.len()];
        let mut open = vec![body];
        while let Some(source) = open.pop() {
            let names = source.names();
            for (index, lib) in self.libs.iter().enumerate() {
                if !found[index] && names.contains(lib.stem()) {
                    found[index] = true;
                    open.push(lib);
                }
            }
        }
        self.libs.iter().zip(found).filter_map(|(lib, found)| found.then_some(lib)).collect()
    }
}

impl Script {
    /// As [`Library::locate`].
    pub fn locate(&self, message: &str) -> String {
        self.map.locate(message)
    }
}

impl Source {
    /// The file's name without folder and ending.
    fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(".lua").unwrap_or(name)
    }

    /// The lines, with their numbers, that are not comments alone.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_code = |line: &str| !(line.trim_start().is_empty() || line.trim_start().starts_with("--"));
        (1..).zip(self.text.lines()).filter(move |(_, line)| is_code(line))
    }

    /// What stands before a dot in the code: the libraries that it uses are among them. A false alarm costs a few
    /// bytes, a miss would break the script.
    fn names(&self) -> BTreeSet<&str> {
        let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
        self.code()
            .flat_map(|(_, line)| line.match_indices('.').map(move |(at, _)| &line[..at]))
            .filter_map(|before| {
                let rest = before.trim_end_matches(is_word);
                (!rest.ends_with([':', '.']) || rest.ends_with("..")).then(|| &before[rest.len()..])
            })
            .collect()
    }
}

// Before 7.0 a script may write after TIME only when its effects are replicated.
const REPLICATE_EFFECTS: &str = "if redis.replicate_commands then redis.replicate_commands() end";
/// Words in capitals in `lua/` that are options of commands, or codes of errors.
const NO_COMMANDS: [&str; 14] = [
    "CH",
    "COUNT",
    "DUPLICATE",
    "LIMIT",
    "LT",
    "MATCH",
    "MAXLEN",
    "NX",
    "PX",
    "RANK",
    "WITHSCORES",
    "WITHVALUES",
    "WRONGTYPE",
    "XX",
];

const GENERATED: &str = "Generated from lua/ in Ardiq's sources: edit those.";

/// Text that remembers which source each of its lines came from.
#[derive(Default)]
struct Text {
    text: String,
    lines: usize,
    map: LineMap,
}

impl Text {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        if !line.ends_with('\n') {
            self.text.push('\n');
        }
        self.lines += line.trim_end_matches('\n').matches('\n').count() + 1;
    }

    /// Without comments: the server keeps what it is given, and a comment that is mended makes no other version.
    fn source(&mut self, source: &Source) {
        for (number, line) in source.code() {
            self.line(line);
            self.map.add(self.lines, &source.path, number);
        }
    }

    /// Each library in a function of its own: a chunk has room for 200 locals.
    fn libs(&mut self, libs: &[&Source]) {
        for lib in libs {
            self.line(&format!("local {} = (function()", lib.stem()));
            self.source(lib);
            self.line("end)()");
        }
    }

    /// The body of a function that returns the callback.
    fn function(&mut self, function: &Function, body: &Source, form: wrapper::Form) -> Result<(), Error> {
        self.line("local run = (function()");
        self.source(body);
        self.line("end)()");
        self.line(&wrapper::callback(function, form)?);
        Ok(())
    }
}

/// From lines of generated text to lines of the files in it.
#[derive(Default)]
struct LineMap {
    sections: Vec<Section>,
}

/// Lines of one file that follow each other there and in the text.
struct Section {
    first: usize,
    last: usize,
    path: String,
    /// The number of the first in the file.
    from: usize,
}

impl LineMap {
    fn add(&mut self, line: usize, path: &str, number: usize) {
        match self.sections.last_mut() {
            Some(last) if last.path == path && last.last + 1 == line && last.from + (line - last.first) == number => {
                last.last = line;
            }
            _ => self.sections.push(Section { first: line, last: line, path: path.to_owned(), from: number }),
        }
    }

    fn locate(&self, message: &str) -> String {
        let mut located = String::with_capacity(message.len());
        let mut rest = message;
        while let Some((at, line, end)) = next_position(rest) {
            let section = self.sections.iter().find(|s| (s.first..=s.last).contains(&line));
            match section {
                Some(section) => {
                    located.push_str(rest[..at].strip_suffix('@').unwrap_or(&rest[..at]));
                    let _ = write!(located, "{}:{}", section.path, line - section.first + section.from);
                }
                None => located.push_str(&rest[..end]),
            }
            rest = &rest[end..];
        }
        located + rest
    }
}

/// The next `user_function:12` or `user_script:12`: where it starts, its line, where it ends.
fn next_position(text: &str) -> Option<(usize, usize, usize)> {
    let mut from = 0;
    while let Some(at) = text[from..].find("user_").map(|at| at + from) {
        let rest = &text[at..];
        for chunk in ["user_function:", "user_script:"] {
            if let Some(tail) = rest.strip_prefix(chunk) {
                let number = tail.trim_start();
                let digits = number.bytes().take_while(u8::is_ascii_digit).count();
                if let Ok(line) = number[..digits].parse() {
                    return Some((at, line, text.len() - number.len() + digits));
                }
            }
        }
        from = at + "user_".len();
    }
    None
}

/// The libraries, each after those that it names.
fn by_dependency(libs: &[Source]) -> Result<Vec<Source>, String> {
    fn visit<'a>(
        libs: &'a [Source],
        lib: &'a Source,
        path: &mut Vec<&'a str>,
        order: &mut Vec<Source>,
    ) -> Result<(), String> {
        if let Some(first) = path.iter().position(|name| *name == lib.stem()) {
            return Err(format!("lib/: a circle: {} -> {}", path[first..].join(" -> "), lib.stem()));
        }
        if order.contains(lib) {
            return Ok(());
        }
        path.push(lib.stem());
        let names = lib.names();
        for named in libs.iter().filter(|named| names.contains(named.stem())) {
            visit(libs, named, path, order)?;
        }
        path.pop();
        order.push(lib.clone());
        Ok(())
    }
    let mut order = Vec::new();
    for lib in libs {
        visit(libs, lib, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic())
        && bytes.all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && !wrapper::KEYWORDS.contains(&text)
}

fn embedded() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in ["lib", "transitions", "queries"] {
        for file in LUA.get_dir(folder).map(Dir::files).into_iter().flatten() {
            let path = file.path().to_string_lossy().into_owned();
            if path.ends_with(".lua") {
                let text = file.contents_utf8().expect("Lua sources are UTF-8").to_owned();
                sources.push(Source { path, text });
            }
        }
    }
    sources
}

/// The exact payload of a version: as released, `lua/releases/ardiq_v<version>.lua`, or, while it is being worked on, of
/// the sources. `None` where this build does not carry it.
pub fn payload(version: u32) -> Option<String> {
    let current = Library::get();
    if version == current.protocol.version { Some(current.payload()) } else { release(version).map(str::to_owned) }
}

/// The exact payload of a version, if it was released.
pub fn release(version: u32) -> Option<&'static str> {
    LUA.get_file(format!("releases/ardiq_v{version}.lua"))?.contents_utf8()
}

/// SHA1 in hex, as the server computes it for scripts.
pub fn sha1(text: &str) -> String {
    sha1_smol::Sha1::from(text).digest().to_string()
}

#[cfg(test)]
mod tests;
