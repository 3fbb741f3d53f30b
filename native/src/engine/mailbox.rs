//! Reading a mailbox: a list of messages for one blocked process.
//!
//! Owns: how messages are taken off the list and split into fields; below, in `reader`, the mailboxes of clients. Must not
//! know: what a message says.

mod reader;

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::oneshot;

use crate::wire::clock::timeout;
use crate::wire::connection::Connection;
use crate::wire::error::Error;
use crate::wire::reactor::Reactor;

pub use reader::{Reader, listen};

/// Messages taken at once.
const BATCH: usize = 256;
/// How much later than asked for an answer to a blocking command may come: beyond it the connection is dead.
pub const GRACE: Duration = Duration::from_secs(5);
/// Mailboxes that are looked into at once.
const SWEPT: usize = 1000;

/// Blocks until one of the lists in `keys` has something, for up to `block`.
///
/// # Errors
/// As [`Connection::query`]; also when there is no answer at all.
pub async fn block_on(connection: &Connection, keys: &[String], block: Duration) -> Result<Value, Error> {
    let mut command = Cmd::new();
    command.arg("BLPOP").arg(keys).arg(format!("{:.3}", block.as_secs_f64().max(0.001)));
    match timeout(block + GRACE, connection.query(&command)).await {
        Ok(answer) => answer,
        Err(_) => Err(dead()),
    }
}

fn dead() -> Error {
    Error::broker("no answer to a blocking command: the connection is dead", true)
}

/// Hands each message of the mailbox at `key` to `deliver` until the connection fails.
pub async fn read(connection: &Connection, key: &str, block: Duration, deliver: impl Fn(&[u8])) -> Error {
    let keys = [key.to_owned()];
    loop {
        if let Err(error) = take(connection, Some(key), &keys, block, |_, message| deliver(message)).await {
            return error;
        }
    }
}

/// Hands what has gathered in the mailbox at `first` to `deliver`, then the next message of those at `keys`, with its key;
/// waits for that for up to `block`, and gives the key.
async fn take(
    connection: &Connection,
    first: Option<&str>,
    keys: &[String],
    block: Duration,
    deliver: impl Fn(&str, &[u8]),
) -> Result<Option<String>, Error> {
    // Both are sent at once: what has gathered comes without a round trip of its own. It is delivered first.
    let (delivered, is_delivered) = oneshot::channel();
    let gathered = async {
        if let Some(key) = first
            && let Value::Array(messages) = connection.query(redis::cmd("LPOP").arg(key).arg(BATCH)).await?
        {
            messages.iter().filter_map(bytes).for_each(|message| deliver(key, message));
        }
        let _ = delivered.send(());
        Ok(())
    };
    let next = async {
        let answer = block_on(connection, keys, block).await?;
        let _ = is_delivered.await;
        let Value::Array(answer) = answer else { return Ok(None) };
        let [key, message] = answer.as_slice() else { return Ok(None) };
        let key = bytes(key).map(|key| String::from_utf8_lossy(key).into_owned());
        if let (Some(key), Some(message)) = (&key, bytes(message)) {
            deliver(key, message);
        }
        if let Some(reactor) = Reactor::current() {
            // First the loop does what the message is about: asking for the next one is not what anybody waits for.
            reactor.next_turn().await;
        }
        Ok(key)
    };
    tokio::try_join!(gathered, next).map(|((), from)| from)
}

/// Hands what has gathered in each mailbox to `deliver`.
async fn sweep<'a>(
    connection: &Connection,
    keys: impl Iterator<Item = &'a String>,
    deliver: impl Fn(&str, &[u8]),
) -> Result<(), Error> {
    let keys: Vec<&String> = keys.collect();
    for keys in keys.chunks(SWEPT) {
        let mut take = redis::Pipeline::with_capacity(keys.len());
        for key in keys {
            take.cmd("LPOP").arg(key).arg(BATCH);
        }
        let Ok(taken) = timeout(GRACE, connection.exchange_all(&take)).await else { return Err(dead()) };
        for (key, messages) in keys.iter().zip(taken?) {
            let Value::Array(messages) = messages else { continue };
            messages.iter().filter_map(bytes).for_each(|message| deliver(key, message));
        }
    }
    Ok(())
}

/// The fields of a message: netstrings, `<length>:<bytes>,` each.
pub fn split(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let colon = rest.iter().take(10).position(|&byte| byte == b':')?;
        let length: usize = std::str::from_utf8(&rest[..colon]).ok()?.parse().ok()?;
        rest = &rest[colon + 1..];
        if rest.get(length) != Some(&b',') {
            return None;
        }
        fields.push(rest[..length].to_vec());
        rest = &rest[length + 1..];
    }
    Some(fields)
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netstrings_split_into_fields() {
        let fields = split(b"8:finished,2:t1,0:,3:a,b,").unwrap();
        assert_eq!(fields, [&b"finished"[..], b"t1", b"", b"a,b"]);
        assert_eq!(split(b"").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn what_is_no_netstring_is_refused() {
        for message in ["x", "5:abc,", "3:abcd", "3abc,", ":,", "-1:,", "99999999999999999999:a,"] {
            assert!(split(message.as_bytes()).is_none(), "{message}");
        }
    }
}
