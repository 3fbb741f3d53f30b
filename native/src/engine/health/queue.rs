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
    /// Names, of which some have a part after a colon, and numbers.
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
                let state = in_time(dispatcher).await;
                *last = Some((Instant::now(), state.clone()));
                state
            }
        }
    }
}

struct Layout {
    now: Places<1>,
    gauge: Places<2>,
}

static LAYOUT: LazyLock<Layout> =
    LazyLock::new(|| Layout::of(Protocol::get()).unwrap_or_else(|missing| panic!("{missing}")));

impl Layout {
    fn of(protocol: &Protocol) -> Result<Self, String> {
        let reply = &protocol.function("overview").map_err(|error| error.to_string())?.reply;
        Ok(Self { now: reply.header.find(["now"])?, gauge: reply.record.find(["name", "number"])? })
    }
}

/// The state of the queue now; nothing when the server does not tell in time.
pub async fn in_time(dispatcher: &Dispatcher) -> Option<State> {
    timeout(PATIENCE, ask(dispatcher)).await.ok().and_then(Result::ok)
}

async fn ask(dispatcher: &Dispatcher) -> Result<State, Error> {
    let no_minutes: [&[u8]; 1] = [b"0"];
    Ok(read(&dispatcher.call("overview", &no_minutes).await?))
}

/// What the names of an answer say, as far as they make sense.
fn read(reply: &Value) -> State {
    let Value::Array(values) = reply else { return State::default() };
    let Some((header, gauges)) = values.split_at_checked(LAYOUT.now.width) else { return State::default() };
    let [now] = LAYOUT.now.at.map(|at| integer(&header[at]).unwrap_or(0));
    let [name, number] = LAYOUT.gauge.at;
    let mut state = State::default();
    for gauge in gauges.chunks_exact(LAYOUT.gauge.width) {
        let (Some(name), Some(number)) = (text(&gauge[name]), integer(&gauge[number])) else { continue };
        match name.strip_prefix("since:") {
            Some(lane) => state.ages.push((lane.to_owned(), Duration::from_millis((now - number).max(0) as u64))),
            None => state.counts.push((name, number)),
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn replies_are_read_as_far_as_they_make_sense() {
        let header = [Value::Int(5000), Value::Int(0), Value::Int(0)];
        let gauges =
            [bulk("queued"), Value::Int(3), Value::Nil, Value::Int(1), bulk("x"), bulk("4"), bulk("since:default")];
        let reply = Value::Array([&header[..], &gauges, &[Value::Int(3500)]].concat());
        let counts = vec![("queued".to_owned(), 3), ("x".to_owned(), 4)];
        let ages = vec![("default".to_owned(), Duration::from_millis(1500))];
        assert_eq!(read(&reply), State { counts, ages });
        assert_eq!(read(&Value::Nil), State::default());
        assert_eq!(read(&Value::Array(Vec::new())), State::default());
    }
}
