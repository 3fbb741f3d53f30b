//! `lua/protocol.json` as values: which functions exist, what they take, how keys and errors are
//! named. Owns the embedded text; knows nothing of connections, nor what any function does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::Value as Json;

use super::layout::{Fields, Reply};
use crate::wire::error::Error;

/// The text of `lua/protocol.json` this build was made from.
pub const TEXT: &str = include_str!("../../../lua/protocol.json");

pub struct Protocol {
    pub version: u32,
    /// Name of the library on the server, `ardiq_v1`.
    pub library: String,
    /// What keys begin with unless configured otherwise.
    pub prefix: String,
    functions: BTreeMap<String, Function>,
    keys: BTreeMap<String, String>,
    shared_keys: BTreeMap<String, String>,
    exceptions: BTreeMap<String, String>,
    states: BTreeSet<String>,
}

pub struct Function {
    /// The verb or noun, as the file is named: `complete`.
    pub name: String,
    /// What the server knows it as: `ardiq_v1_complete`.
    pub server_name: String,
    /// Changes nothing.
    pub query: bool,
    /// Sent twice it does what it would have done once, and its answer is still true: so it may be sent again when a reply
    /// was lost.
    pub idempotent: bool,
    /// Adds what must not be lost: a replica has to have it where that is asked for.
    pub durable: bool,
    pub args: Vec<Argument>,
    pub tail: Option<Tail>,
    pub reply: Reply,
    /// Flags it is registered with.
    pub flags: Vec<String>,
}

pub struct Argument {
    pub name: String,
    pub kind: Kind,
    /// Of an integer: the least and the most that it may be.
    pub min: Option<i64>,
    pub max: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    String,
    Int,
    Json,
}

/// A record repeated after the arguments.
pub struct Tail {
    pub name: String,
    pub max: usize,
    pub fields: Vec<Argument>,
}

impl Protocol {
    pub fn get() -> &'static Self {
        static PROTOCOL: OnceLock<Protocol> = OnceLock::new();
        PROTOCOL.get_or_init(|| Self::parse(TEXT).expect("lua/protocol.json fits its own schema"))
    }

    /// # Errors
    /// Says which entry of `text` is missing or of the wrong kind.
    pub fn parse(text: &str) -> Result<Self, String> {
        let root: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let library = string(&root, "library")?;
        let mut functions = BTreeMap::new();
        for (name, entry) in object(&root, "functions")? {
            let function =
                Function::parse(&library, name, entry).map_err(|what| format!("functions.{name}: {what}"))?;
            functions.insert(name.clone(), function);
        }
        let mut keys = BTreeMap::new();
        for (kind, entry) in object(&root, "keys")? {
            keys.insert(kind.clone(), string(entry, "pattern")?);
        }
        let mut shared_keys = BTreeMap::new();
        for (kind, entry) in object(&root, "shared_keys")? {
            shared_keys.insert(kind.clone(), string(entry, "pattern")?);
        }
        let mut exceptions = BTreeMap::new();
        for (code, entry) in object(&root, "errors")? {
            exceptions.insert(code.clone(), string(entry, "exception")?);
        }
        Ok(Self {
            version: root["version"].as_u64().and_then(|v| v.try_into().ok()).ok_or("version: not a number")?,
            library,
            prefix: string(&root, "prefix")?,
            functions,
            keys,
            shared_keys,
            exceptions,
            states: object(&root, "states")?.keys().cloned().collect(),
        })
    }

    /// # Errors
    /// [`Error::Argument`] when the protocol has no such function.
    pub fn function(&self, name: &str) -> Result<&Function, Error> {
        self.functions
            .get(name)
            .ok_or_else(|| Error::Argument(format!("the protocol (version {}) has no function {name:?}", self.version)))
    }

    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values()
    }

    /// Whether a task can be in a state of that name.
    pub fn is_state(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.states.contains(name))
    }

    /// The base key of a queue: `ardiq:{emails}:`.
    pub fn base(prefix: &str, queue: &str) -> String {
        format!("{prefix}:{{{queue}}}:")
    }

    /// The key of one `kind` under a queue's base: `key("task", "ardiq:{q}:", "7")` is
    /// `ardiq:{q}:task:7`. `name` is ignored where the kind has one key only.
    ///
    /// # Panics
    /// When the protocol has no such kind of key: a mistake in this crate.
    pub fn key(&self, kind: &str, base: &str, name: &str) -> String {
        let pattern = self.keys.get(kind).unwrap_or_else(|| panic!("protocol.json has no key {kind:?}"));
        let mut key = String::with_capacity(base.len() + pattern.len() + name.len());
        key.push_str(base);
        match pattern.split_once('<') {
            Some((head, _)) => {
                key.push_str(head);
                key.push_str(name);
            }
            None => key.push_str(pattern),
        }
        key
    }

    /// A key that all queues of a prefix share.
    ///
    /// # Panics
    /// When the protocol has no such kind of key: a mistake in this crate.
    pub fn shared_key(&self, kind: &str, prefix: &str) -> String {
        let pattern = self.shared_keys.get(kind).unwrap_or_else(|| panic!("protocol.json has no shared key {kind:?}"));
        pattern.replace("<prefix>", prefix)
    }

    /// The prefix and the name of the queue that a base key is of.
    pub fn of_base(base: &str) -> (&str, &str) {
        let (prefix, queue) = base.split_once(":{").unwrap_or((base, ""));
        (prefix, queue.strip_suffix("}:").unwrap_or(queue))
    }

    /// The Python exception for an error code without its `ARDIQ_`.
    pub fn exception(&self, code: &str) -> Option<&str> {
        self.exceptions.get(code).map(String::as_str)
    }
}

impl Function {
    fn parse(library: &str, name: &str, entry: &Json) -> Result<Self, String> {
        let args = array(entry, "args")?.iter().map(Argument::parse).collect::<Result<_, _>>()?;
        let tail = match entry.get("tail") {
            None | Some(Json::Null) => None,
            Some(tail) => Some(Tail::parse(tail)?),
        };
        let flags = array(entry, "flags")?
            .iter()
            .map(|flag| flag.as_str().map(str::to_owned).ok_or_else(|| "flags: not strings".to_owned()))
            .collect::<Result<_, _>>()?;
        let query = match string(entry, "kind")?.as_str() {
            "transition" => false,
            "query" => true,
            other => return Err(format!("unknown kind {other:?}")),
        };
        let idempotent = query || entry["idempotent"].as_bool().ok_or("idempotent: neither true nor false")?;
        let durable = entry["durable"].as_bool().unwrap_or(false);
        let server_name = format!("{library}_{name}");
        let reply = Reply {
            header: named(name, entry, "header")?,
            refusal: named(name, entry, "refusal")?,
            record: named(name, entry, "record")?,
        };
        Ok(Self { name: name.to_owned(), server_name, query, idempotent, durable, args, tail, reply, flags })
    }

    /// The folder of `lua/` its file lies in.
    pub fn folder(&self) -> &'static str {
        if self.query { "queries" } else { "transitions" }
    }

    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Whether a call with `count` arguments fits the declaration.
    ///
    /// # Errors
    /// [`Error::Argument`] that says what was expected.
    pub fn check(&self, count: usize) -> Result<(), Error> {
        let fixed = self.args.len();
        let rest = count.checked_sub(fixed);
        let fits = match (&self.tail, rest) {
            (_, None) => false,
            (None, Some(rest)) => rest == 0,
            (Some(tail), Some(rest)) => rest % tail.fields.len() == 0 && rest / tail.fields.len() <= tail.max,
        };
        if fits {
            return Ok(());
        }
        let expected = match &self.tail {
            None => fixed.to_string(),
            Some(tail) => {
                format!("{fixed} and up to {} records of {} {}", tail.max, tail.fields.len(), tail.name)
            }
        };
        Err(Error::Argument(format!("{} takes {expected} arguments, got {count}", self.name)))
    }
}

impl Argument {
    fn parse(entry: &Json) -> Result<Self, String> {
        let kind = Kind::parse(&string(entry, "type")?)?;
        let [min, max] = ["min", "max"].map(|bound| entry[bound].as_i64());
        if kind != Kind::Int && (min.is_some() || max.is_some()) {
            return Err("min and max are of integers".to_owned());
        }
        Ok(Self { name: string(entry, "name")?, kind, min, max })
    }
}

impl Kind {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "string" => Ok(Self::String),
            "int" => Ok(Self::Int),
            "json" => Ok(Self::Json),
            other => Err(format!("unknown type {other:?}")),
        }
    }
}

impl Tail {
    fn parse(entry: &Json) -> Result<Self, String> {
        let fields = array(entry, "record")?.iter().map(Argument::parse).collect::<Result<Vec<_>, _>>()?;
        if fields.iter().any(|field| field.kind == Kind::Json || field.min.is_some() || field.max.is_some()) {
            return Err("tail: its fields are strings and integers of any size".to_owned());
        }
        let max = entry["max"].as_u64().ok_or("tail.max: not a number")?;
        if fields.is_empty() {
            return Err("tail.record: empty".to_owned());
        }
        Ok(Self { name: string(entry, "name")?, max: max as usize, fields })
    }

    /// Its fields by name.
    pub fn names(&self) -> Fields {
        Fields::new(format!("the records {}", self.name), self.fields.iter().map(|field| field.name.clone()).collect())
    }
}

/// One part of a reply; of no fields where it is not declared.
fn named(function: &str, entry: &Json, part: &str) -> Result<Fields, String> {
    let names = match &entry["reply"][part] {
        Json::Null => Vec::new(),
        names => serde_json::from_value(names.clone()).map_err(|_| format!("reply.{part}: not strings"))?,
    };
    Ok(Fields::new(format!("the {part} of the reply of {function}"), names))
}

fn string(entry: &Json, field: &str) -> Result<String, String> {
    entry[field].as_str().map(str::to_owned).ok_or_else(|| format!("{field}: not a string"))
}

fn array<'a>(entry: &'a Json, field: &str) -> Result<&'a Vec<Json>, String> {
    entry[field].as_array().ok_or_else(|| format!("{field}: not an array"))
}

fn object<'a>(entry: &'a Json, field: &str) -> Result<&'a serde_json::Map<String, Json>, String> {
    entry[field].as_object().ok_or_else(|| format!("{field}: not an object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_the_name_of_its_library() {
        let protocol = Protocol::get();
        assert!(protocol.functions().count() > 0);
        for function in protocol.functions() {
            assert_eq!(function.server_name, format!("{}_{}", protocol.library, function.name));
        }
    }

    #[test]
    fn a_wrong_name_or_count_is_refused() {
        let protocol = Protocol::get();
        assert!(protocol.function("no_such").is_err());
        let enqueue = protocol.function("enqueue").unwrap();
        assert!(enqueue.check(6).is_ok());
        assert!(enqueue.check(12).is_ok());
        assert!(enqueue.check(7).is_err());
        assert!(enqueue.check(6 * 1001).is_err());
        let error = protocol.function("task").unwrap().check(0).unwrap_err();
        assert_eq!(error.to_string(), "task takes 1 arguments, got 0");
    }

    #[test]
    fn keys_are_rendered_from_their_pattern() {
        let protocol = Protocol::get();
        assert_eq!(Protocol::base("own", "q"), "own:{q}:");
        assert_eq!(Protocol::of_base("own:{q}:"), ("own", "q"));
        assert_eq!(protocol.shared_key("lock", "own"), "own:lock:{own:schema}");
        assert_eq!(protocol.key("task", "ardiq:{q}:", "7"), "ardiq:{q}:task:7");
        assert_eq!(protocol.key("scheduled", "ardiq:{q}:", ""), "ardiq:{q}:scheduled");
    }
}
