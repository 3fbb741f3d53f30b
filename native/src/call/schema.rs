//! Which libraries a server has, and the record of them in the hash `<prefix>:schema`: version → who
//! loaded which checksum when. Knows neither functions nor queues.

use redis::{Cmd, Value};
use serde_json::{Value as Json, json};

use crate::lua::library::sha1;
use crate::lua::protocol::Protocol;
use crate::wire::connection::{Connection, refuse_error};
use crate::wire::error::{Error, lacks};
use crate::wire::values::text;

/// This build's version, as the record says who loaded what.
pub const PACKAGE: &str = env!("CARGO_PKG_VERSION");

/// A library on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub version: u32,
    pub sha1: String,
}

/// The commands that ask for the libraries named `pattern`, with their code.
pub fn list_command(pattern: &str) -> Cmd {
    let mut cmd = redis::cmd("FUNCTION");
    cmd.arg("LIST").arg("LIBRARYNAME").arg(pattern).arg("WITHCODE");
    cmd
}

/// The libraries in the answer to [`list_command`], by version; those of other names are left out.
pub fn read_list(answer: &Value) -> Vec<Installed> {
    let Value::Array(libraries) = answer else { return Vec::new() };
    let mut installed: Vec<Installed> = libraries
        .iter()
        .filter_map(|library| {
            let name = field(library, "library_name")?;
            let code = field(library, "library_code")?;
            Some(Installed { version: version_of(&name)?, sha1: sha1(&code) })
        })
        .collect();
    installed.sort_by_key(|library| library.version);
    installed
}

/// What a server has of Ardiq's libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Libraries {
    Are(Vec<Installed>),
    /// It has no functions, or not for this user: what it said.
    None(String),
}

impl Libraries {
    /// # Errors
    /// As [`Connection::query`].
    pub async fn ask(connection: &Connection) -> Result<Self, Error> {
        match connection.exchange(&list_command("ardiq_v*")).await? {
            Value::ServerError(reply) if lacks(&reply, "function") => {
                Ok(Self::None(format!("{} {}", reply.code(), reply.details().unwrap_or_default())))
            }
            answer => Ok(Self::Are(read_list(&refuse_error(answer)?))),
        }
    }

    pub fn installed(&self) -> &[Installed] {
        match self {
            Self::Are(installed) => installed,
            Self::None(_) => &[],
        }
    }

    /// Of this version and checksum.
    pub fn have(&self, version: u32, sha1: &str) -> bool {
        self.installed().iter().any(|library| library.version == version && library.sha1 == sha1)
    }
}

/// The version before, if there is one.
pub fn before(version: u32) -> u32 {
    (version - 1).max(1)
}

/// Name of the library of a version, as [`Protocol::library`] names its own.
pub fn library_name(version: u32) -> String {
    format!("ardiq_v{version}")
}

fn version_of(name: &str) -> Option<u32> {
    name.strip_prefix("ardiq_v")?.parse().ok()
}

/// The command that loads a library; with `replace`, over one of the same name.
pub fn load_command(payload: &str, replace: bool) -> Cmd {
    let mut cmd = redis::cmd("FUNCTION");
    cmd.arg("LOAD");
    if replace {
        cmd.arg("REPLACE");
    }
    cmd.arg(payload);
    cmd
}

/// Loads a library, as [`load_command`] says.
///
/// # Errors
/// [`Error::Library`] when the server does not take it.
pub async fn load(connection: &Connection, payload: &str, replace: bool) -> Result<(), Error> {
    match connection.query(&load_command(payload, replace)).await {
        Ok(_) => Ok(()),
        Err(Error::Script(message)) => Err(not_taken(&message)),
        Err(error) => Err(error),
    }
}

/// The error of a library that cannot be loaded, whoever tries.
pub fn not_taken(message: &str) -> Error {
    Error::Library(format!("the server rejects the library: {message}"))
}

/// Notes under `key` which checksum of a version was loaded, when and by whom.
///
/// # Errors
/// As [`Connection::query`].
pub async fn record(connection: &Connection, key: &str, version: u32, sha1: &str) -> Result<(), Error> {
    let loaded_at = now_ms(connection).await?;
    let entry = json!({"sha1": sha1, "loaded_at": loaded_at, "package": PACKAGE}).to_string();
    connection.query(redis::cmd("HSET").arg(key).arg(format!("v{version}")).arg(entry)).await?;
    record_data(connection, key, version).await
}

/// Notes which version the data is of, where nothing says so yet, until `migrate --prune` moves it on: the one before
/// `version`, which reads what this one writes. On a server that lost all it had, a fleet may be of both.
///
/// # Errors
/// As [`Connection::query`].
pub async fn record_data(connection: &Connection, key: &str, version: u32) -> Result<(), Error> {
    connection.query(redis::cmd("HSETNX").arg(key).arg(DATA_VERSION).arg(before(version))).await.map(drop)
}

/// The server's clock.
///
/// # Errors
/// As [`Connection::query`].
pub async fn now_ms(connection: &Connection) -> Result<i64, Error> {
    let answer = connection.query(&redis::cmd("TIME")).await?;
    let Value::Array(parts) = &answer else { return Ok(0) };
    let part = |index: usize| parts.get(index).and_then(text).and_then(|t| t.parse::<i64>().ok()).unwrap_or(0);
    Ok(part(0) * 1000 + part(1) / 1000)
}

/// What `<prefix>:schema` says; all empty on a fresh server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Version of the data: a build older than this does not understand it.
    pub data: Option<u32>,
    /// A step of a migration that was begun and not finished.
    pub dirty: Option<String>,
    /// Version → what was loaded.
    pub versions: Vec<(u32, Json)>,
}

pub const DATA_VERSION: &str = "data";
pub const DIRTY: &str = "dirty";

/// Where the record of a prefix is.
pub fn key(prefix: &str) -> String {
    Protocol::get().shared_key("schema", prefix)
}

pub fn read_command(key: &str) -> Cmd {
    let mut cmd = redis::cmd("HGETALL");
    cmd.arg(key);
    cmd
}

impl Record {
    /// From the answer to [`read_command`].
    pub fn read(answer: &Value) -> Self {
        let mut record = Self::default();
        let Value::Array(items) = answer else { return record };
        for pair in items.chunks_exact(2) {
            let (Some(name), Some(value)) = (text(&pair[0]), text(&pair[1])) else { continue };
            match name.as_str() {
                DATA_VERSION => record.data = value.parse().ok(),
                DIRTY => record.dirty = Some(value),
                name => {
                    let version = name.strip_prefix('v').and_then(|v| v.parse().ok());
                    if let (Some(version), Ok(entry)) = (version, serde_json::from_str(&value)) {
                        record.versions.push((version, entry));
                    }
                }
            }
        }
        record
    }

    /// # Errors
    /// As [`Connection::query`].
    pub async fn fetch(connection: &Connection, key: &str) -> Result<Self, Error> {
        Ok(Self::read(&connection.query(&read_command(key)).await?))
    }

    /// # Errors
    /// [`Error::Library`] when the data is newer than `version` of the library understands.
    pub fn check(&self, version: u32) -> Result<(), Error> {
        match self.data {
            Some(data) if data > version => Err(Error::Library(format!(
                "the server's data is of version {data}: `ardiq migrate --prune` removed what came before, and this is \
                 version {version} (Ardiq {PACKAGE}); install a newer Ardiq"
            ))),
            _ => Ok(()),
        }
    }

    /// What was recorded of a version: the value of one of its fields.
    pub fn of(&self, version: u32, field: &str) -> Option<&str> {
        self.versions.iter().find(|(v, _)| *v == version)?.1.get(field)?.as_str()
    }
}

/// Refuses a server that may throw away tasks: an eviction policy that takes keys without TTL.
///
/// # Errors
/// [`Error::Library`] with the remedy; else as [`Connection::query`].
pub async fn check_eviction(connection: &Connection) -> Result<(), Error> {
    match eviction_policy(connection).await? {
        Some(policy) if policy.starts_with("allkeys") => Err(Error::Library(format!(
            "the server's maxmemory-policy is {policy}: at its memory limit it would evict tasks; set it to \
             noeviction (or a volatile- one)"
        ))),
        _ => Ok(()),
    }
}

/// The server's `maxmemory-policy`, where it may be seen.
///
/// # Errors
/// As [`Connection::query`].
pub async fn eviction_policy(connection: &Connection) -> Result<Option<String>, Error> {
    let answer = connection.exchange(redis::cmd("INFO").arg("memory")).await?;
    if matches!(&answer, Value::ServerError(reply) if lacks(reply, "info")) {
        return Ok(None);
    }
    let info = text(&refuse_error(answer)?).unwrap_or_default();
    Ok(info.lines().find_map(|line| line.trim_end().strip_prefix("maxmemory_policy:").map(str::to_owned)))
}

/// A value of a map that comes as names and values in turn.
fn field(map: &Value, name: &str) -> Option<String> {
    let Value::Array(items) = map else { return None };
    let pair = items.chunks_exact(2).find(|pair| text(&pair[0]).as_deref() == Some(name))?;
    text(&pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn libraries_are_read_by_version() {
        let library = |name: &str, code: &str| {
            Value::Array(vec![
                bulk("library_name"),
                bulk(name),
                bulk("engine"),
                bulk("LUA"),
                bulk("functions"),
                Value::Array(vec![]),
                bulk("library_code"),
                bulk(code),
            ])
        };
        let answer = Value::Array(vec![library("ardiq_v2", "b"), library("ardiq_v1", "a"), library("ardiq_vx", "c")]);
        let expected = vec![Installed { version: 1, sha1: sha1("a") }, Installed { version: 2, sha1: sha1("b") }];
        assert_eq!(read_list(&answer), expected);
        assert_eq!(read_list(&Value::Nil), vec![]);
    }

    #[test]
    fn the_record_refuses_data_of_a_newer_version() {
        let mut items =
            vec![bulk("v1"), bulk(r#"{"sha1": "abc"}"#), bulk("dirty"), bulk("load"), bulk("v9"), bulk("?")];
        let record = Record::read(&Value::Array(items.clone()));
        assert_eq!(record.of(1, "sha1"), Some("abc"));
        assert_eq!(record.of(9, "sha1"), None);
        assert_eq!(record.dirty.as_deref(), Some("load"));
        assert!(record.check(1).is_ok());
        items.extend([bulk("data"), bulk("999")]);
        let record = Record::read(&Value::Array(items));
        let refused = record.check(998).unwrap_err();
        assert!(matches!(&refused, Error::Library(message) if message.contains("999")), "{refused}");
        assert!(record.check(999).is_ok());
    }

    #[test]
    fn the_name_of_a_version_is_the_protocols() {
        assert_eq!(library_name(Protocol::get().version), Protocol::get().library);
    }
}
