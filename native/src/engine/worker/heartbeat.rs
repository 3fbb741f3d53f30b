//! Signs of life, and the mailbox that other processes reach this worker through.
//!
//! Owns: when to beat, the generations of the mailbox, passing on wishes to abort. Must not know: why
//! somebody wants a task aborted, or what becomes of it.

use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::Value;

use super::Shared;
use super::session::{End, Session, is_hopeless};
use crate::engine::claims::{self, Claim};
use crate::engine::events::{Event, Level};
use crate::engine::mailbox;
use crate::lua::layout::Places;
use crate::lua::protocol::Protocol;
use crate::wire::connection::Backoff;
use crate::wire::error::Error;
use crate::wire::values::{integer, number, text};

/// The longest time between two heartbeats.
const SLOWEST: Duration = Duration::from_secs(1);
/// An event loop that does not turn for that long, when it is called, leaves its mail.
const TOO_BUSY: Duration = Duration::from_millis(100);
/// A connection that lived shorter did not end the trouble before it.
const STABLE: Duration = Duration::from_secs(2);

/// What a heartbeat is answered.
struct Pulse {
    mailbox_key: String,
    /// There is more to promote or to reap.
    more: bool,
}

struct Layout {
    header: Places<2>,
    task: Places<1>,
}

static LAYOUT: LazyLock<Layout> =
    LazyLock::new(|| Layout::of(Protocol::get()).unwrap_or_else(|missing| panic!("{missing}")));

impl Layout {
    fn of(protocol: &Protocol) -> Result<Self, String> {
        let reply = &protocol.function("heartbeat").map_err(|error| error.to_string())?.reply;
        Ok(Self { header: reply.header.find(["mailbox", "more"])?, task: reply.record.find(["token"])? })
    }
}

impl Session {
    pub async fn heartbeats(&self) -> End {
        let pause = (self.shared.config.lease / 4).min(SLOWEST);
        loop {
            self.look_after(pause).await;
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
        let link = shared.dispatcher.link();
        let mut backoff = Backoff::default();
        let mut key = self.mailbox_key.clone();
        loop {
            let since = Instant::now();
            let error = tokio::select! {
                error = self.read(key) => Some(error),
                // What broke the shared connection may have left this one half-open: what is handed over would not come.
                () = link.made() => None,
            };
            let mut failed = error.is_some();
            error.iter().for_each(|error| shared.trouble(error));
            if since.elapsed() > STABLE {
                backoff.reset();
            }
            self.generation.fetch_add(1, Ordering::Relaxed);
            key = loop {
                if failed {
                    link.pause(&mut backoff).await;
                }
                match self.beat().await {
                    Ok(pulse) => {
                        // What was handed over may have gone with the connection: a step is told of it again.
                        let wake = shared.slots().poke();
                        shared.wake_if(wake);
                        break pulse.mailbox_key;
                    }
                    Err(error) if error.is("LEASE_LOST") => return End::Lost(error),
                    Err(error) => {
                        shared.trouble(&error);
                        failed = true;
                    }
                }
            };
        }
    }

    /// Reads the mailbox at `key` until the connection fails: where it can, on the event loop's own thread, which then starts
    /// what it is handed without another thread between.
    async fn read(&self, key: String) -> Error {
        let (shared, session) = (self.shared.clone(), self.shared.slots().session());
        let by_loop = shared.mail_reader.is_some();
        let reading = async move {
            match shared.dispatcher.link().connector().dedicated().await {
                Ok(connection) => {
                    let deliver = |message: &[u8]| shared.deliver(message, session, by_loop);
                    mailbox::read(&connection, &key, shared.config.poll_block, deliver).await
                }
                Err(error) => error,
            }
        };
        match &self.shared.mail_reader {
            Some(of_loop) => of_loop.run(reading).await,
            None => reading.await,
        }
    }

    /// Pauses, and looks meanwhile what a busy event loop leaves undone.
    async fn look_after(&self, pause: Duration) {
        let shared = &self.shared;
        let wake = shared.slots().look_after();
        shared.wake_if(wake);
        let turns = shared.inbox.turns();
        let patience = shared.mail_reader.as_ref().map_or(Duration::ZERO, |_| TOO_BUSY.min(pause));
        if !patience.is_zero() {
            // Whether mail lies unread cannot be seen: a loop that is busy with the last message has not asked for more.
            shared.inbox.wake();
            tokio::time::sleep(patience).await;
            if shared.inbox.turns() == turns {
                let wake = shared.slots().leaves_mail();
                shared.wake_if(wake);
                // It comes for its tasks when it comes back.
                shared.inbox.push(Event::Tasks);
            }
        }
        tokio::time::sleep(pause - patience).await;
    }

    async fn beat(&self) -> Result<Pulse, Error> {
        let shared = &self.shared;
        let config = &shared.config;
        let _alone = self.beating.lock().await;
        let mut request = shared.dispatcher.request("heartbeat")?;
        let stalled_ms = config.stall.as_ref().map_or(0, |stall| stall.stalled().as_millis() as i64);
        request.named(&[
            ("worker", self.identity.as_str().into()),
            ("lease_ms", (config.lease.as_millis() as i64).into()),
            ("result_ttl_ms", config.result_ttl_ms.into()),
            ("generation", self.generation.load(Ordering::Relaxed).into()),
            ("max_lost", config.max_lost.into()),
            ("abandoned_threads", (shared.slots().abandoned_threads() as i64).into()),
            ("stalled_ms", stalled_ms.into()),
        ])?;
        let (sent, session) = (Instant::now(), shared.slots().session());
        let answer = shared.dispatcher.send(&request).await?;
        shared.renewed(sent);
        let malformed = || Error::Script("heartbeat: the reply does not match the protocol".to_owned());
        let Value::Array(values) = answer else { return Err(malformed()) };
        let (header, tasks) = values.split_at_checked(LAYOUT.header.width).ok_or_else(malformed)?;
        let [mailbox, more] = LAYOUT.header.at;
        let mailbox_key = text(&header[mailbox]).ok_or_else(malformed)?;
        let more = integer(&header[more]).ok_or_else(malformed)? != 0;
        let [token] = LAYOUT.task.at;
        tasks
            .chunks_exact(LAYOUT.task.width)
            .filter_map(|task| integer(&task[token]))
            .for_each(|token| shared.abort(token, session));
        Ok(Pulse { mailbox_key, more })
    }
}

impl Shared {
    fn deliver(&self, message: &[u8], session: u64, by_loop: bool) {
        let mut fields = mailbox::split(message).unwrap_or_default();
        match fields.as_slice() {
            [kind, _, token, ..] if kind == b"abort" => {
                number(token).into_iter().for_each(|token| self.abort(token, session))
            }
            [kind] if kind == b"outbox" => self.inbox.push(Event::Outbox),
            [kind, ..] if kind == b"claimed" => {
                let claims = claims::handed_over(fields.split_off(1), Instant::now());
                claims.map_or_else(|| self.dropped(), |claims| self.take_over(claims, session, by_loop));
            }
            _ => self.dropped(),
        }
    }

    fn dropped(&self) {
        self.inbox.log(Level::Warning, "a message in the mailbox is invalid and was dropped");
    }

    fn take_over(&self, claims: Vec<Claim>, session: u64, by_loop: bool) {
        let (news, wake) = self.slots().take_over(claims, session, by_loop);
        self.pass_on(&news);
        self.wake_if(wake);
    }

    fn abort(&self, lease_token: i64, session: u64) {
        let (started, wake) = self.slots().abort(lease_token, session);
        self.wake_if(wake);
        if let Some(token) = started {
            self.inbox.push(Event::Abort(token));
        }
    }
}
