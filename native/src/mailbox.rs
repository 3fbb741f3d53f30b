//! Reading a mailbox: a list of messages for one blocked process.
//!
//! Owns: how messages are taken off the list and split into fields, and the name a client's mailbox has on
//! each connection. Must not know: what a message says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use tokio::sync::oneshot;

use crate::bridge::{Event, Inbox, Level};
use crate::connection::{Backoff, Connection};
use crate::dispatch::Dispatcher;
use crate::error::Error;
use crate::protocol::Protocol;

/// Messages taken at once.
const BATCH: usize = 256;
/// How long a client blocks before it asks again.
const CLIENT_BLOCK: Duration = Duration::from_secs(10);
/// How much later than asked for an answer to a blocking command may come: beyond it the connection is dead.
pub const GRACE: Duration = Duration::from_secs(5);
/// A connection that lived shorter did not end the trouble before it.
const STABLE: Duration = Duration::from_secs(2);
/// Pause between two lines about the same outage.
const SAY_AGAIN: Duration = Duration::from_secs(2);

/// Blocks until one of the lists in `keys` has something, for up to `block`.
///
/// # Errors
/// As [`Connection::query`]; also when there is no answer at all.
pub async fn block_on(connection: &Connection, keys: &[String], block: Duration) -> Result<Value, Error> {
    let mut command = Cmd::new();
    command.arg("BLPOP").arg(keys).arg(format!("{:.3}", block.as_secs_f64().max(0.001)));
    match tokio::time::timeout(block + GRACE, connection.query(&command)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::broker("no answer to a blocking command: the connection is dead", true)),
    }
}

/// Hands each message of the mailbox at `key` to `deliver` until the connection fails.
pub async fn read(connection: &Connection, key: &str, block: Duration, deliver: impl Fn(&[u8])) -> Error {
    let mut take_batch = Cmd::new();
    take_batch.arg("LPOP").arg(key).arg(BATCH);
    let keys = [key.to_owned()];
    loop {
        // Both are sent at once: what has gathered comes without a round trip of its own. It is delivered first.
        let (delivered, is_delivered) = oneshot::channel();
        let gathered = async {
            if let Value::Array(messages) = connection.query(&take_batch).await? {
                messages.iter().filter_map(bytes).for_each(&deliver);
            }
            let _ = delivered.send(());
            Ok(())
        };
        let next = async {
            let answer = block_on(connection, &keys, block).await?;
            let _ = is_delivered.await;
            if let Value::Array(answer) = answer {
                answer.get(1).and_then(bytes).into_iter().for_each(&deliver);
            }
            Ok(())
        };
        if let Err(error) = tokio::try_join!(gathered, next) {
            return error;
        }
    }
}

/// Reads a client's mailbox for ever. Each connection reads one of its own, `<name>:<generation>`: a
/// half-open connection before it may still swallow what is sent to the old one.
pub async fn listen(dispatcher: Dispatcher, inbox: Arc<Inbox>, name: String) {
    let mut backoff = Backoff::default();
    let mut generation = 0u64;
    let mut said_at: Option<Instant> = None;
    loop {
        let error = match dispatcher.link().connector().dedicated().await {
            Ok(connection) => {
                generation += 1;
                let mailbox = format!("{name}:{generation}");
                let key = Protocol::get().key("mailbox", dispatcher.base(), &mailbox);
                inbox.push(Event::Listening(mailbox));
                let since = Instant::now();
                let error = read(&connection, &key, CLIENT_BLOCK, |message| deliver(&inbox, message)).await;
                if since.elapsed() > STABLE {
                    backoff.reset();
                }
                error
            }
            Err(error) => error,
        };
        if said_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            said_at = Some(Instant::now());
            inbox.log(Level::Warning, format!("waiting for results was interrupted: {error}; trying again"));
        }
        dispatcher.link().pause(&mut backoff).await;
    }
}

fn deliver(inbox: &Inbox, message: &[u8]) {
    match split(message) {
        Some(fields) => inbox.push(Event::Message(fields)),
        None => inbox.log(Level::Warning, "a message in the mailbox is malformed and was dropped"),
    }
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
