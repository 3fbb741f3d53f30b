//! What the server says of a queue as a whole, asked when somebody wants to know and no more than once a second.
//!
//! Owns: the questions and how long an answer is good. Must not know: what the names in an answer mean.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::call::dispatch::Dispatcher;
use crate::wire::error::Error;

/// How long an answer is good.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// Who scrapes is not kept waiting longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A queue as the server sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// `counts`: names, of which some have a part after a colon, and numbers.
    pub counts: Vec<(String, i64)>,
    /// For how long the next task of each lane has been ready.
    pub ages: Vec<(String, Duration)>,
}

/// The last answer; nothing in it when there was none in time.
#[derive(Default)]
pub struct Cache {
    last: Mutex<Option<(Instant, Option<State>)>>,
}

impl Cache {
    /// The state of the queue, no older than a second; nothing when the server does not tell. Who comes while it is
    /// asked waits for the same answer.
    pub async fn state(&self, dispatcher: &Dispatcher) -> Option<State> {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, state)) if at.elapsed() < GOOD_FOR => state.clone(),
            _ => {
                let state = timeout(PATIENCE, ask(dispatcher)).await.ok().and_then(Result::ok);
                *last = Some((Instant::now(), state.clone()));
                state
            }
        }
    }
}

async fn ask(dispatcher: &Dispatcher) -> Result<State, Error> {
    let nothing: [&[u8]; 0] = [];
    let (counts, ages) = tokio::join!(dispatcher.call("counts", &nothing), dispatcher.call("ages", &nothing));
    Ok(State { counts: pairs(counts?).collect(), ages: read_ages(ages?) })
}

/// Names and numbers in turn. What is not of that kind is left out.
fn pairs(reply: Value) -> impl Iterator<Item = (String, i64)> {
    let values = if let Value::Array(values) = reply { values } else { Vec::new() };
    let mut values = values.into_iter();
    std::iter::from_fn(move || Some((values.next()?, values.next()?))).filter_map(|(name, number)| {
        let Value::BulkString(name) = name else { return None };
        Some((String::from_utf8_lossy(&name).into_owned(), integer(&number)?))
    })
}

/// The server's time, then lanes and times.
fn read_ages(reply: Value) -> Vec<(String, Duration)> {
    let Value::Array(mut values) = reply else { return Vec::new() };
    if values.is_empty() {
        return Vec::new();
    }
    let now = integer(&values.remove(0)).unwrap_or(0);
    let since: HashMap<String, i64> = pairs(Value::Array(values)).collect();
    let age = |since: i64| Duration::from_millis((now - since).max(0) as u64);
    since.into_iter().map(|(lane, since)| (lane, age(since))).collect()
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn replies_are_read_as_far_as_they_make_sense() {
        let reply = Value::Array(vec![text("queued"), Value::Int(3), Value::Nil, Value::Int(1), text("x"), text("4")]);
        assert_eq!(pairs(reply).collect::<Vec<_>>(), [("queued".to_owned(), 3), ("x".to_owned(), 4)]);
        assert_eq!(pairs(Value::Nil).count(), 0);
        let reply = Value::Array(vec![Value::Int(5000), text("default"), Value::Int(3500)]);
        assert_eq!(read_ages(reply), [("default".to_owned(), Duration::from_millis(1500))]);
        assert_eq!(read_ages(Value::Array(Vec::new())), []);
    }
}
