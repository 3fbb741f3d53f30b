//! The tries of one call, and the pauses between tries of anything. Must not know: what is called.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::oneshot;

use super::cluster::Moved;
use super::{Connection, Link};
use crate::wire::clock::Instant;
use crate::wire::error::{Error, code};

/// What a server needs for an answer, on a busy day.
const TIME_TO_ANSWER: Duration = Duration::from_millis(50);

/// One call's tries; see [`Link::attempts`].
pub struct Attempts<'a> {
    link: &'a Link,
    /// When the call's time is over, whatever it waits for.
    pub deadline: Instant,
    /// Whether its command may have been carried out.
    pub maybe_sent: bool,
    backoff: Backoff,
    /// The connection it was given last, and when.
    last: Option<(Connection, Instant)>,
    /// The first try, where it was made by hand.
    begun: Option<Begun>,
}

/// A try that was made by hand.
pub struct Begun {
    pub connection: Connection,
    pub sent_at: Instant,
    pub tried: Tried,
}

/// What it came to.
pub enum Tried {
    Answered(Result<Value, Error>),
    /// The connection's driver reads the answer.
    Coming(oneshot::Receiver<Value>),
}

impl<'a> Attempts<'a> {
    pub(super) fn new(link: &'a Link, deadline: Instant) -> Self {
        Self { link, deadline, backoff: Backoff::default(), last: None, maybe_sent: false, begun: None }
    }

    /// The same, after a first try.
    pub fn begun(mut self, begun: Option<Begun>) -> Self {
        if let Some(begun) = &begun {
            self.maybe_sent = matches!(begun.tried, Tried::Coming(_));
            self.last = Some((begun.connection.clone(), begun.sent_at));
        }
        self.begun = begun;
        self
    }

    /// # Errors
    /// As [`Link::connection`].
    pub async fn connection(&mut self) -> Result<Connection, Error> {
        if let Some(begun) = &self.begun {
            return Ok(begun.connection.clone());
        }
        self.last = None;
        let connection = match self.link.live() {
            Some(connection) => connection,
            None => self.link.connect(self.deadline).await?,
        };
        self.last = Some((connection.clone(), Instant::now()));
        Ok(connection)
    }

    /// Sends the call's command; as [`Connection::exchange`].
    ///
    /// # Errors
    /// As that.
    pub async fn exchange(&mut self, connection: &Connection, cmd: &Cmd) -> Result<Value, Error> {
        let begun = self.begun.take();
        let before = std::mem::replace(&mut self.maybe_sent, true) && begun.is_none();
        let answer = match begun {
            Some(Begun { tried: Tried::Answered(answer), .. }) => answer,
            Some(Begun { tried: Tried::Coming(coming), sent_at, .. }) => {
                connection.inner.wire.answer(coming, sent_at).await
            }
            None => connection.exchange(cmd).await,
        };
        // Answered, it was either carried out, which the answer tells, or not.
        self.maybe_sent = before || answer.as_ref().is_err_and(Error::maybe_sent);
        answer
    }

    /// The error of a call whose time is over while it waits.
    pub fn late(&mut self) -> Error {
        let Some((connection, since)) = self.last.take() else {
            return self.link.late().with_maybe_sent(self.maybe_sent);
        };
        connection.doubt(since);
        self.link.connector().no_answer().with_maybe_sent(self.maybe_sent)
    }

    /// Whether the command should be sent again: the answer shows that it was not carried out, for
    /// a reason that passes, and there is time left. Pauses as long as the reason suggests.
    pub async fn again(&mut self, connection: &Connection, answer: &Result<Value, Error>) -> bool {
        match answer {
            Err(Error::Broker { maybe_sent: false, .. }) => Instant::now() < self.deadline,
            Ok(Value::ServerError(reply)) => {
                match code(reply) {
                    // A failover: others know the new primary, or the name leads there by now.
                    "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" => self.link.connector.doubt(connection),
                    "MOVED" => {
                        if let Some(moved) =
                            Moved::read(reply).filter(|moved| self.link.connector.slot == Some(moved.slot))
                            && let Ok(place) = moved.from(connection)
                        {
                            self.link.connector.moved(connection, place);
                        }
                    }
                    // While a slot is on the move its keys are on two nodes, and what is not whole must not be worked
                    // with: `ASK` is waited out, not followed.
                    "ASK" | "LOADING" | "BUSY" | "TRYAGAIN" => {}
                    _ => return false,
                }
                self.pause().await
            }
            _ => false,
        }
    }

    /// Pauses before another try, no longer than it takes anybody to reach the server; false where there is no time for
    /// both and an answer: a try without it would make "refused, and why" into "no answer, and maybe carried out".
    pub async fn pause(&mut self) -> bool {
        let pause = self.backoff.pause();
        let in_time = Instant::now() + pause + TIME_TO_ANSWER < self.deadline;
        if in_time {
            self.link.wait(pause).await;
        }
        in_time
    }
}

/// Growing pauses between attempts: 50 ms to 1 s, with jitter, so that a fleet does not come back
/// in step.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let full = 50_u64.saturating_mul(1 << self.failures.min(16)).min(1000);
        self.failures = self.failures.saturating_add(1);
        // Each `RandomState` is seeded anew: randomness enough for this, without another crate.
        let jitter = RandomState::new().hash_one(self.failures) % (full / 2 + 1);
        Duration::from_millis(full / 2 + jitter)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second() {
        let mut backoff = Backoff::default();
        let first = backoff.pause();
        assert!((25..=50).contains(&(first.as_millis() as u64)), "{first:?}");
        for _ in 0..40 {
            let pause = backoff.pause();
            assert!(pause <= Duration::from_secs(1), "{pause:?}");
        }
        assert!(backoff.pause() >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(50));
    }
}
