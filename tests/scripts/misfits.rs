//! Calls that do not fit their declaration in `protocol.json`: too few, too many, of another type.

use _core::lua::protocol::{Argument, Function, Kind, Protocol};
use _core::wire::packed::{pack, unpack};
use redis::Value;

use crate::fixture;
use crate::server::{BASE, Refusal, Server};

const NO_BASES: [&[&str]; 6] = [&[], &[BASE, BASE], &["ardiq:test:"], &["ardiq:{}:"], &["{test}:"], &["ardiq:{test}"]];
const NO_INTEGERS: [&str; 6] = ["", "x", "1.5", "1e3", " 1", "9007199254740993"];
// Fields of a record are read in a hurry.
const NO_NUMBERS: [&str; 3] = ["", "x", "1.5"];
const NO_JSON: [&str; 5] = ["", "x", "5", "null", "\"a\""];
// JSON whose fields are the caller's, or that has none, and texts whose fields are ours.
const FREE: [&str; 3] = ["info", "positions", "signals"];
const OBJECTS: [&str; 3] = ["options", "details", "definition"];

/// Calls that were answered otherwise than with a refusal, in sentences.
pub fn accepted(server: &mut Server) -> Vec<String> {
    let mut found = Vec::new();
    for function in Protocol::get().functions() {
        let mut good: Vec<String> =
            function.args.iter().chain(record(function)).map(|arg| fitting(&arg.name)).collect();
        if function.name == "workflow_create" {
            good[1] = r#"{"result_ttl_ms":1}"#.to_owned();
        }
        if is_misfit(server, function, &[BASE], &good) {
            found.push(format!("{} {good:?} is refused, though it fits", function.name));
        }
        server.command(&["FLUSHALL"]);
        found.extend(packed(server, function, &good));
        server.command(&["FLUSHALL"]);
        for (keys, args) in misfits(function, &good) {
            if !is_misfit(server, function, &keys, &args) || server.size() > 0 {
                found.push(format!("{} {keys:?} {} arguments {:?}", function.name, args.len(), args.last()));
            }
        }
        for args in unknown_fields(function, &good) {
            let refusal = call(server, function, &[BASE], &args).err();
            if !refusal.is_some_and(|refusal| refusal.text.ends_with("unknown field misspelt")) || server.size() > 0 {
                found.push(format!("{} {args:?}", function.name));
            }
        }
    }
    found
}

fn misfits(function: &Function, good: &[String]) -> Vec<(Vec<&'static str>, Vec<String>)> {
    let mut misfits = Vec::new();
    for keys in NO_BASES {
        misfits.push((keys.to_vec(), good.to_vec()));
    }
    let mut with = |args: Vec<String>| misfits.push((vec![BASE], args));
    let width = record(function).count();
    if !good.is_empty() && width != 1 {
        with(good[..good.len() - 1].to_vec());
    }
    if width != 1 {
        with([good, &["x".to_owned()]].concat());
    }
    if let Some(tail) = &function.tail {
        let (fixed, record) = good.split_at(good.len() - width);
        let records = record.iter().cloned().cycle().take(width * (tail.max + 1));
        with(fixed.iter().cloned().chain(records).collect());
    }
    for (index, argument) in function.args.iter().chain(record(function)).enumerate() {
        let wrong: &[&str] = match argument.kind {
            Kind::String => &[],
            Kind::Int if index >= function.args.len() => &NO_NUMBERS,
            Kind::Int => &NO_INTEGERS,
            Kind::Json => &NO_JSON,
        };
        let outside = [argument.min.map(|min| min - 1), argument.max.map(|max| max + 1)].into_iter().flatten();
        for value in wrong.iter().map(|text| (*text).to_owned()).chain(outside.map(|number| number.to_string())) {
            let mut args = good.to_vec();
            args[index] = value;
            with(args);
        }
    }
    misfits
}

/// Calls that fit but for a field that nobody knows.
fn unknown_fields(function: &Function, good: &[String]) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for (index, argument) in function.args.iter().chain(record(function)).enumerate() {
        let name = argument.name.as_str();
        if argument.kind == Kind::Json && !FREE.contains(&name) || OBJECTS.contains(&name) {
            let mut args = good.to_vec();
            args[index] = match name {
                "lanes" => r#"[{"lane":"x","misspelt":1}]"#,
                _ => r#"{"misspelt":1}"#,
            }
            .to_owned();
            calls.push(args);
        }
    }
    calls
}

/// Records as one argument: answered as the same records by themselves; refused where they are anything but texts.
fn packed(server: &mut Server, function: &Function, good: &[String]) -> Vec<String> {
    let width = record(function).count();
    if width < 2 {
        return Vec::new();
    }
    let (fixed, record) = good.split_at(good.len() - width);
    let fixed: Vec<Vec<u8>> = fixed.iter().map(|arg| arg.clone().into_bytes()).collect();
    let mut ask = |records: &[u8]| {
        let reply = server.call_by_hand(function, &[BASE], &[&fixed[..], &[records.to_vec()]].concat());
        let plain: Vec<Vec<u8>> = record.iter().map(|field| field.clone().into_bytes()).collect();
        server.command(&["FLUSHALL"]);
        let expected = server.call_by_hand(function, &[BASE], &[&fixed[..], &plain].concat());
        server.command(&["FLUSHALL"]);
        (reply, expected)
    };
    let mut found = Vec::new();
    let (reply, expected) = ask(&pack(record.iter().map(String::as_bytes), 0));
    let reply = reply.map(|value| match value {
        Value::BulkString(packed) if matches!(expected, Ok(Value::Array(_))) => unpack(&packed).unwrap_or(Value::Nil),
        value => value,
    });
    if timeless(&format!("{reply:?}")) != timeless(&format!("{expected:?}")) {
        found.push(format!("{} answers packed records with {reply:?}, by themselves with {expected:?}", function.name));
    }
    let one_more = pack(record.iter().map(String::as_bytes).chain([&b"x"[..]]).collect::<Vec<_>>().into_iter(), 0);
    let mut nested = pack(record.iter().skip(1).map(String::as_bytes), 0);
    // The count of texts, and then an array among them.
    nested[0] += 1;
    nested.push(0x90);
    for wrong in [&b""[..], b"x", b"\xc0", b"\xa1x", &one_more, &one_more[..one_more.len() - 1], &nested] {
        let refused = ask(wrong).0.is_err_and(|refusal| refusal.code == "ARDIQ_BAD_ARGUMENT");
        if !refused {
            found.push(format!("{} takes {wrong:?} for records", function.name));
        }
    }
    found
}

fn call(server: &mut Server, function: &Function, keys: &[&str], args: &[String]) -> Result<Value, Refusal> {
    let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.clone().into_bytes()).collect();
    server.call_by_hand(function, keys, &args)
}

/// Without times in ms: a reply may tell what it is now, and that passes.
fn timeless(reply: &str) -> String {
    let parts = reply.split_inclusive(|letter: char| !letter.is_ascii_digit());
    parts.filter(|part| part.chars().take_while(char::is_ascii_digit).count() < 13).collect()
}

fn is_misfit(server: &mut Server, function: &Function, keys: &[&str], args: &[String]) -> bool {
    let prefix = format!("{}: ", function.name);
    let refusal = call(server, function, keys, args).err();
    refusal.is_some_and(|refusal| refusal.code == "ARDIQ_BAD_ARGUMENT" && refusal.text.starts_with(&prefix))
}

fn record(function: &Function) -> impl Iterator<Item = &Argument> {
    function.tail.iter().flat_map(|tail| &tail.fields)
}

fn fitting(argument: &str) -> String {
    match argument {
        "want" | "seq" => "1".to_owned(),
        "task" => "x".to_owned(),
        _ => fixture::default(argument).map_or_else(|_| "x".to_owned(), |value| fixture::plain(&value)),
    }
}
