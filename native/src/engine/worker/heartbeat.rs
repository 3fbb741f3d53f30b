//! Signs of life, and the mailbox that other processes reach this worker through.
//!
//! Owns: when to beat, the generations of the mailbox, passing on wishes to abort. Must not know: why
//! somebody wants a task aborted, or what becomes of it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::Value;

use super::session::{End, Session, is_hopeless};
use crate::engine::events::{Event, Level};
use crate::engine::mailbox;
use crate::wire::connection::Backoff;
use crate::wire::error::Error;

/// The longest time between two heartbeats.
const SLOWEST: Duration = Duration::from_secs(1);
/// A connection that lived shorter did not end the trouble before it.
const STABLE: Duration = Duration::from_secs(2);

/// What a heartbeat is answered.
struct Pulse {
    mailbox_key: String,
    /// There is more to promote or to reap.
    more: bool,
}

impl Session {
    pub async fn heartbeats(&self) -> End {
        let pause = (self.shared.config.lease / 4).min(SLOWEST);
        loop {
            tokio::time::sleep(pause).await;
            loop {
                match self.beat().await {
                    Ok(pulse) if pulse.more => {}
                    Ok(_) => break,
                    Err(error) if error.is("LEASE_LOST") => return End::Lost(error),
                    Err(error) if is_hopeless(&error) => return End::Failed(error),
                    Err(error) => {
                        self.shared.trouble(&error);
                        break;
                    }
                }
            }
        }
    }

    /// Reads the mailbox. Each connection has one of its own, made known by a heartbeat: a half-open
    /// connection before it may still swallow what is sent to the old one.
    pub async fn mailbox(&self) -> End {
        let shared = &self.shared;
        let connector = shared.dispatcher.link().connector();
        let mut backoff = Backoff::default();
        let mut key = self.mailbox_key.clone();
        loop {
            let since = Instant::now();
            let error = match connector.dedicated().await {
                Ok(connection) => {
                    let deliver = |message: &[u8]| self.deliver(message);
                    mailbox::read(&connection, &key, shared.config.poll_block, deliver).await
                }
                Err(error) => error,
            };
            shared.trouble(&error);
            if since.elapsed() > STABLE {
                backoff.reset();
            }
            self.generation.fetch_add(1, Ordering::Relaxed);
            key = loop {
                shared.dispatcher.link().pause(&mut backoff).await;
                match self.beat().await {
                    Ok(pulse) => break pulse.mailbox_key,
                    Err(error) if error.is("LEASE_LOST") => return End::Lost(error),
                    Err(error) => shared.trouble(&error),
                }
            };
        }
    }

    async fn beat(&self) -> Result<Pulse, Error> {
        let shared = &self.shared;
        let config = &shared.config;
        let _alone = self.beating.lock().await;
        let mut request = shared.dispatcher.request("heartbeat")?;
        request
            .arg(self.identity.as_bytes())
            .int(config.lease.as_millis() as i64)
            .int(config.result_ttl_ms)
            .int(self.generation.load(Ordering::Relaxed))
            .int(config.max_lost)
            .int(shared.slots().left_behind() as i64)
            .int(config.stall.as_ref().map_or(0, |stall| stall.stalled().as_millis() as i64));
        let sent = Instant::now();
        let answer = shared.dispatcher.send(&request).await?;
        shared.renewed(sent);
        let malformed = || Error::Script("heartbeat: the reply is not laid out as the protocol says".to_owned());
        let Value::Array(values) = answer else { return Err(malformed()) };
        let [Value::BulkString(mailbox_key), Value::Int(more), tasks @ ..] = values.as_slice() else {
            return Err(malformed());
        };
        for task in tasks.chunks_exact(2) {
            if let Value::BulkString(token) = &task[1] {
                self.abort(token);
            }
        }
        Ok(Pulse { mailbox_key: String::from_utf8_lossy(mailbox_key).into_owned(), more: *more != 0 })
    }

    fn deliver(&self, message: &[u8]) {
        match mailbox::split(message).as_deref() {
            Some([kind, _, token]) if kind == b"abort" => self.abort(token),
            _ => self.shared.inbox.log(Level::Warning, "a message in the mailbox makes no sense and was dropped"),
        }
    }

    fn abort(&self, token: &[u8]) {
        let Some(lease_token) = std::str::from_utf8(token).ok().and_then(|digits| digits.parse().ok()) else { return };
        let (started, wake) = self.shared.slots().abort(lease_token);
        self.shared.wake_if(wake);
        if let Some(token) = started {
            self.shared.inbox.push(Event::Abort(token));
        }
    }
}
