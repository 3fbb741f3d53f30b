//! The first exchange on a connection: who we are, which database, what the server is.

use redis::{Cmd, RedisConnectionInfo, Value};

use super::{Refusal, Wire};
use crate::wire::error::{Error, lacks};

/// What a server said of itself when the connection was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `redis` or `valkey`.
    pub name: String,
    /// Where it says so.
    pub version: Option<(u32, u32, u32)>,
    pub cluster: bool,
    /// Whether it takes writes, or did then.
    pub primary: bool,
    /// What it calls this connection; 0: it does not say.
    pub client_id: i64,
}

impl Server {
    /// # Errors
    /// [`Error::Library`] for a server too old for the Lua.
    pub fn require(&self) -> Result<(), Error> {
        if self.version.is_none_or(|version| version >= (6, 2, 0)) {
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
        Some(Self {
            name: field("server")?.to_owned(),
            version: field("version").and_then(version),
            cluster: field("mode") == Some("cluster"),
            primary: field("role") != Some("replica"),
            client_id: if let Some(Value::Int(id)) = value("id") { *id } else { 0 },
        })
    }

    /// From the answer to `INFO`, where there is no `HELLO`.
    fn from_info(info: &str) -> Self {
        let field = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        let name = field("server_name").unwrap_or("redis").to_owned();
        let said = field(&format!("{name}_version")).or_else(|| field("redis_version"));
        Self {
            version: said.and_then(version),
            cluster: field("redis_mode") == Some("cluster") || field("cluster_enabled") == Some("1"),
            primary: field("role") != Some("slave"),
            client_id: 0,
            name,
        }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name == "valkey" { "Valkey" } else { "Redis" };
        match self.version {
            Some((major, minor, patch)) => write!(f, "{name} {major}.{minor}.{patch}"),
            None => write!(f, "{name} of an unknown version"),
        }
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
    let (hello, selected, _, _) =
        tokio::join!(wire.exchange(&hello), select(wire, login.db()), wire.exchange(&name), wire.exchange(&version),);
    if let Ok(Value::ServerError(reply)) = &hello
        && lacks(reply, "hello")
    {
        return greet_without_hello(wire, login).await;
    }
    let hello = accept(hello)?;
    accept(selected)?;
    Server::read(&hello).ok_or_else(|| Refusal {
        error: Error::broker("it answers HELLO in a way no Redis or Valkey does", false),
        temporary: false,
    })
}

/// The same with a server, or what stands before it, that knows no `HELLO`: the rest is asked for as far as it answers.
async fn greet_without_hello(wire: &Wire, login: &RedisConnectionInfo) -> Result<Server, Refusal> {
    if let Some(password) = login.password() {
        let mut auth = redis::cmd("AUTH");
        login.username().map(|user| auth.arg(user));
        accept(wire.exchange(auth.arg(password)).await)?;
    }
    accept(select(wire, login.db()).await)?;
    let (info, id) = (redis::cmd("INFO"), redis::cmd("CLIENT").arg("ID").clone());
    let (info, id) = tokio::join!(wire.exchange(&info), wire.exchange(&id));
    let mut server = match &info {
        Ok(Value::ServerError(_)) => {
            let node = wire.exchange(redis::cmd("CLUSTER").arg("MYID")).await;
            Server { cluster: matches!(node, Ok(Value::BulkString(_))), ..Server::from_info("") }
        }
        Ok(info) => Server::from_info(text(info).unwrap_or_default()),
        Err(_) => return accept(info).map(|_| unreachable!("it is an error")),
    };
    if let Ok(Value::Int(id)) = id {
        server.client_id = id;
    }
    Ok(server)
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
            // A wrong password stays wrong; a server that is still loading or full does not stay so.
            let temporary = matches!(reply.code(), "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN")
                || reply.details().is_some_and(|text| text.contains("max number of clients"));
            Err(Refusal { error: unsent(Error::from(&reply)), temporary })
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
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// Its numbers, whatever stands behind them: `8.0-rc1` is 8.0.0.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let digits = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let mut parts = text.split('.').map(digits);
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
        assert!(old.require().is_ok() && !old.cluster);
        let new = Server::read(&hello("valkey", "9.1.2", "cluster")).unwrap();
        assert!(new.require().is_ok() && new.cluster);
        let refused = Server::read(&hello("redis", "6.0.16", "standalone")).unwrap().require().unwrap_err();
        assert!(refused.to_string().starts_with("the server is Redis 6.0.16; Ardiq needs Redis 6.2"), "{refused}");
        let silent = Server::read(&hello("redis", "unstable", "standalone")).unwrap();
        assert_eq!((silent.version, silent.require()), (None, Ok(())));
    }

    #[test]
    fn info_tells_what_hello_would() {
        let valkey =
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nredis_mode:cluster\r\n";
        let server = Server::from_info(&format!("{valkey}# Replication\r\nrole:slave\r\n"));
        assert_eq!((server.to_string().as_str(), server.cluster, server.primary), ("Valkey 9.1.2", true, false));
        let redis = Server::from_info("redis_version:6.2.5\r\nredis_mode:standalone\r\nrole:master\r\n");
        assert_eq!((redis.to_string().as_str(), redis.cluster, redis.primary), ("Redis 6.2.5", false, true));
        assert_eq!(Server::from_info("").version, None);
    }

    #[test]
    fn versions_with_a_suffix() {
        assert_eq!(version("7.4"), Some((7, 4, 0)));
        assert_eq!(version("8.0.3-rc1"), Some((8, 0, 3)));
        assert_eq!(version("8.2-rc1"), Some((8, 2, 0)));
        assert_eq!(version("what"), None);
    }
}
