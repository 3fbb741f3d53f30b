//! The first exchange on a connection: who we are, which database, what the server is.

use redis::{Cmd, RedisConnectionInfo, Value};

use super::{Refusal, Wire};
use crate::error::Error;

/// What a server said of itself when the connection was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `redis` or `valkey`.
    pub name: String,
    pub version: (u32, u32, u32),
    pub cluster: bool,
    /// Whether it takes writes, or did then.
    pub primary: bool,
    /// What it calls this connection.
    pub client_id: i64,
}

impl Server {
    /// Whether it has functions (Redis 7.0 and later, every Valkey).
    pub fn has_functions(&self) -> bool {
        self.version >= (7, 0, 0)
    }

    /// # Errors
    /// [`Error::Library`] for a server too old for the Lua.
    pub fn require(&self) -> Result<(), Error> {
        if self.version >= (6, 2, 0) {
            return Ok(());
        }
        Err(Error::Library(format!(
            "the server is {self}; Ardiq needs Redis 6.2 or later, or Valkey: upgrade the server"
        )))
    }

    /// From the answer to `HELLO`: names and values in turn.
    fn read(answer: &Value) -> Option<Self> {
        let Value::Array(items) = answer else { return None };
        let value = |name: &str| items.chunks_exact(2).find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1]);
        let field = |name: &str| value(name).and_then(text);
        let Some(Value::Int(client_id)) = value("id") else { return None };
        Some(Self {
            name: field("server")?.to_owned(),
            version: version(field("version")?)?,
            cluster: field("mode") == Some("cluster"),
            primary: field("role") != Some("replica"),
            client_id: *client_id,
        })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name == "valkey" { "Valkey" } else { "Redis" };
        let (major, minor, patch) = self.version;
        write!(f, "{name} {major}.{minor}.{patch}")
    }
}

pub(super) async fn greet(wire: &Wire, login: &RedisConnectionInfo) -> Result<Server, Refusal> {
    let mut hello = redis::cmd("HELLO");
    if let Some(password) = login.password() {
        hello.arg(2).arg("AUTH").arg(login.username().unwrap_or("default")).arg(password);
    }
    let name = set_info("LIB-NAME", login.lib_name());
    let version = set_info("LIB-VER", login.lib_ver());
    // All sent at once, answered in order. What a server before 7.2 says to SETINFO is of no interest.
    let (hello, select, _, _) =
        tokio::join!(wire.exchange(&hello), select(wire, login.db()), wire.exchange(&name), wire.exchange(&version),);
    let hello = accept(hello)?;
    accept(select)?;
    Server::read(&hello).ok_or_else(|| Refusal {
        error: Error::broker("it answers HELLO in a way no Redis or Valkey does", false),
        temporary: false,
    })
}

async fn select(wire: &Wire, db: i64) -> Result<Value, Error> {
    match db {
        0 => Ok(Value::Okay),
        db => wire.exchange(redis::cmd("SELECT").arg(db)).await,
    }
}

fn set_info(what: &str, value: Option<&str>) -> Cmd {
    let mut cmd = redis::cmd("CLIENT");
    cmd.arg("SETINFO").arg(what).arg(value.unwrap_or_default());
    cmd
}

fn accept(answer: Result<Value, Error>) -> Result<Value, Refusal> {
    match answer {
        Ok(Value::ServerError(reply)) => {
            let too_old = reply.details().is_some_and(|text| text.starts_with("unknown command"));
            let error = if too_old {
                Error::Library("the server is older than Redis 6.2; upgrade it, or use Valkey".to_owned())
            } else {
                Error::from(&reply)
            };
            // A wrong password stays wrong; a server that is still loading or full does not stay so.
            let temporary = matches!(reply.code(), "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN")
                || reply.details().is_some_and(|text| text.contains("max number of clients"));
            Err(Refusal { error: unsent(error), temporary })
        }
        Ok(value) => Ok(value),
        Err(error) => Err(Refusal { error: unsent(error), temporary: true }),
    }
}

/// Nothing of the caller's has been sent while the handshake is not through.
fn unsent(error: Error) -> Error {
    match error {
        Error::Broker { message, .. } => Error::broker(message, false),
        Error::Script(message) => Error::broker(message, false),
        other => other,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(server: &str, version: &str, mode: &str) -> Value {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Value::Array(vec![
            bulk("server"),
            bulk(server),
            bulk("version"),
            bulk(version),
            bulk("id"),
            Value::Int(3),
            bulk("mode"),
            bulk(mode),
        ])
    }

    #[test]
    fn servers_are_told_apart() {
        let old = Server::read(&hello("redis", "6.2.5", "standalone")).unwrap();
        assert_eq!(old.to_string(), "Redis 6.2.5");
        assert!(old.require().is_ok() && !old.has_functions() && !old.cluster);
        let new = Server::read(&hello("valkey", "9.1.2", "cluster")).unwrap();
        assert!(new.has_functions() && new.cluster);
        let refused = Server::read(&hello("redis", "6.0.16", "standalone")).unwrap().require().unwrap_err();
        assert!(refused.to_string().starts_with("the server is Redis 6.0.16; Ardiq needs Redis 6.2"), "{refused}");
        assert_eq!(Server::read(&hello("redis", "8.0-rc1", "standalone")).map(|s| s.version), None);
    }

    #[test]
    fn versions_with_a_suffix() {
        assert_eq!(version("7.4"), Some((7, 4, 0)));
        assert_eq!(version("8.0.0-rc1"), Some((8, 0, 0)));
        assert_eq!(version("what"), None);
    }
}
