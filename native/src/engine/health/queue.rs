//! What the server says of a queue as a whole, asked when somebody wants to know and no more than once a second.
//!
//! Owns: the questions and how long an answer is good. Must not know: what the names in an answer mean.

use std::sync::LazyLock;
use std::time::Duration;

use redis::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::call::dispatch::Dispatcher;
use crate::lua::layout::Places;
use crate::lua::protocol::Protocol;
use crate::wire::error::Error;
use crate::wire::values::{integer, text};

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

struct Layout {
    count: Places<2>,
    ages: Places<1>,
    age: Places<2>,
}

static LAYOUT: LazyLock<Layout> =
    LazyLock::new(|| Layout::of(Protocol::get()).unwrap_or_else(|missing| panic!("{missing}")));

impl Layout {
    fn of(protocol: &Protocol) -> Result<Self, String> {
        let reply = |function| Ok::<_, String>(&protocol.function(function).map_err(|error| error.to_string())?.reply);
        Ok(Self {
            count: reply("counts")?.record.find(["name", "number"])?,
            ages: reply("oldest_ready")?.header.find(["now"])?,
            age: reply("oldest_ready")?.record.find(["lane", "since"])?,
        })
    }
}

async fn ask(dispatcher: &Dispatcher) -> Result<State, Error> {
    let nothing: [&[u8]; 0] = [];
    let (counts, ages) = tokio::join!(dispatcher.call("counts", &nothing), dispatcher.call("oldest_ready", &nothing));
    Ok(State { counts: read_counts(&counts?), ages: read_ages(&ages?) })
}

fn items(reply: &Value) -> &[Value] {
    if let Value::Array(values) = reply { values } else { &[] }
}

/// A name and a number of each record. What is not of that kind is left out.
fn pairs(records: &[Value], places: &Places<2>) -> impl Iterator<Item = (String, i64)> {
    let [name, number] = places.at;
    records.chunks_exact(places.width).filter_map(move |record| Some((text(&record[name])?, integer(&record[number])?)))
}

fn read_counts(reply: &Value) -> Vec<(String, i64)> {
    pairs(items(reply), &LAYOUT.count).collect()
}

fn read_ages(reply: &Value) -> Vec<(String, Duration)> {
    let Some((header, lanes)) = items(reply).split_at_checked(LAYOUT.ages.width) else { return Vec::new() };
    let [now] = LAYOUT.ages.at.map(|at| integer(&header[at]).unwrap_or(0));
    let age = |since: i64| Duration::from_millis((now - since).max(0) as u64);
    pairs(lanes, &LAYOUT.age).map(|(lane, since)| (lane, age(since))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn replies_are_read_as_far_as_they_make_sense() {
        let reply = Value::Array(vec![bulk("queued"), Value::Int(3), Value::Nil, Value::Int(1), bulk("x"), bulk("4")]);
        assert_eq!(read_counts(&reply), [("queued".to_owned(), 3), ("x".to_owned(), 4)]);
        assert_eq!(read_counts(&Value::Nil), []);
        let reply = Value::Array(vec![Value::Int(5000), bulk("default"), Value::Int(3500)]);
        assert_eq!(read_ages(&reply), [("default".to_owned(), Duration::from_millis(1500))]);
        assert_eq!(read_ages(&Value::Array(Vec::new())), []);
    }
}
