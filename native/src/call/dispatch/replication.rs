//! What is durable counts as done when a replica has it: one `WAIT` behind a call.

use std::time::Duration;

use redis::Value;

use super::{Dispatcher, Request, Shared};
use crate::lua::protocol::Protocol;
use crate::wire::clock::Instant;
use crate::wire::connection::{Attempts, Connection};
use crate::wire::error::Error;

/// How long the key lives that there is a write to wait for.
const WRITE_TTL_MS: u64 = 1000;
/// How late a server with nothing else to do notices that a `WAIT` is over, and some.
const LATE: Duration = Duration::from_millis(150);

impl Dispatcher {
    /// The same, but what is durable waits for a replica.
    #[must_use]
    pub fn replicated(self) -> Self {
        // `WAIT` holds up what follows on its connection, hence one of its own.
        let Shared { link, base, common, .. } = &*self.inner;
        let confirming = Self::of(link.another(), base, common.clone(), None);
        Self::of(link.clone(), base, common.clone(), Some(confirming))
    }

    /// Sends a call and waits until a replica has what it wrote.
    ///
    /// # Errors
    /// As [`deliver`](Self::deliver); `maybe_sent` where it was carried out and no replica confirmed in time.
    pub(super) async fn send_confirmed(
        &self,
        request: &Request,
        repeat: bool,
        attempts: &mut Attempts<'_>,
    ) -> Result<Value, Error> {
        loop {
            let (value, connection) = self.send_until_answered(request, repeat, attempts).await?;
            // It is, and not known to be where it has to.
            attempts.maybe_sent = true;
            let within = self.within(attempts.deadline);
            match self.replicas(&connection, within).await {
                Ok(0) => {
                    return Err(Error::broker(
                        format!(
                            "carried out, but no replica confirmed it within {} ms: if the primary fails now, it may \
                             be lost; see `INFO replication` on the server",
                            within.as_millis()
                        ),
                        true,
                    ));
                }
                Ok(_) => return Ok(value),
                // Whether another primary has it, it says when it is asked again.
                Err(_) if repeat && attempts.pause().await => {}
                Err(error) => {
                    let what = format!("carried out, but whether a replica has it is not known: {error}");
                    return Err(Error::broker(what, true));
                }
            }
        }
    }

    /// How many replicas have all that was written before on this connection, and all that it has seen.
    async fn replicas(&self, connection: &Connection, within: Duration) -> Result<i64, Error> {
        // `WAIT` waits for the connection's own last write, and a call that finds its work done writes nothing.
        let key = Protocol::get().key("replicated", &self.inner.base, "");
        let (mut write, mut wait) = (redis::cmd("SET"), redis::cmd("WAIT"));
        write.arg(key).arg("").arg("PX").arg(WRITE_TTL_MS);
        wait.arg(1).arg(within.as_millis() as u64);
        // Sent at once, carried out in this order.
        let (written, replicas) = tokio::join!(connection.query(&write), connection.query(&wait));
        written?;
        match replicas? {
            Value::Int(replicas) => Ok(replicas),
            _ => Err(Error::Script("WAIT: the reply is not a number".to_owned())),
        }
    }

    /// Some time is left for the answer: else a lack of replicas would be taken for a server that does not answer.
    fn within(&self, deadline: Instant) -> Duration {
        let left = deadline.saturating_duration_since(Instant::now());
        let within = left - LATE.min(left / 2);
        within.min(self.inner.link.connector().options().response_timeout / 2).max(Duration::from_millis(1))
    }
}
