//! Connections, dispatch, migration, the producer and the worker against a real server.

mod connecting;
mod dispatching;
mod migrating;
mod producing;
mod server;
mod tls;
mod working;

use _core::wire::connection::Link;
use redis::Value;

const BASE: &str = "ardiq:{test}:";

async fn command(link: &Link, words: &[&str]) -> Value {
    try_command(link, words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

async fn try_command(link: &Link, words: &[&str]) -> Result<Value, _core::wire::error::Error> {
    link.query(redis::cmd(words[0]).arg(&words[1..])).await
}

/// A user who may do what `rules` say.
async fn user(link: &Link, rules: &[&str]) {
    command(link, &[&["ACL", "SETUSER", "me", "reset", "on", ">secret", "~*"], rules].concat()).await;
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}
