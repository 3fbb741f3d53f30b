//! One identity of a worker, from joining to leaving or to a lost lease.
//!
//! Owns: how the session starts, what runs side by side in it, how it ends. Must not know: what a step
//! settles or claims.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::{Duration, Instant};

use redis::Value;
use tokio::sync::{Mutex, Notify};

use super::lanes::Lanes;
use super::slots::Parting;
use super::{Phase, Shared, lock};
use crate::call::dispatch::Request;
use crate::engine::events::{Event, Level};
use crate::wire::connection::Backoff;
use crate::wire::error::Error;

/// Who leaves a server that is away, or one that it has not entered, waits no longer for it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often a worker that is to stop looks whether the server is away.
const LOOK: Duration = Duration::from_millis(50);

/// How a session ends.
pub enum End {
    /// Everything is settled: it leaves, or has left.
    Left,
    /// The lease is lost, for this reason.
    Lost(Error),
    /// There is no use in trying again.
    Failed(Error),
}

pub struct Session {
    pub shared: Arc<Shared>,
    pub identity: String,
    /// The lanes as the JSON array that functions take.
    pub lanes: String,
    pub mailbox_key: String,
    /// In the order of the lanes.
    pub wake_keys: Vec<String>,
    /// Counts the connections that read the mailbox.
    pub generation: AtomicI64,
    /// One heartbeat at a time: an older generation must not arrive after a newer one.
    pub beating: Mutex<()>,
    /// Asks for blocking on the wake lists; `blocked` is set from then until it ends.
    pub block: Notify,
    pub blocked: AtomicBool,
    /// The connection that blocks, as the server calls it; 0: none does.
    pub blocking_client: AtomicI64,
    /// Whether more was to be claimed of each lane when the block began; empty where no lane has a limit.
    pub blocked_on: std::sync::Mutex<Vec<bool>>,
    /// Whether the server lets a block be ended, as far as is known.
    pub can_unblock: AtomicBool,
}

impl Session {
    /// Enters the queue, however long the server is away. `first`: what is wrong now was wrong from the
    /// start, so it is reported rather than waited out.
    pub async fn join(shared: &Arc<Shared>, first: bool) -> Result<Self, End> {
        let identity = lock(&shared.identity).clone();
        let lanes = Lanes::new(shared.config.lanes.clone()).to_json();
        let mut request = shared.dispatcher.request("join").map_err(End::Failed)?;
        let args = [
            ("worker", identity.as_str().into()),
            ("lease_ms", (shared.config.lease.as_millis() as i64).into()),
            ("info", shared.config.info.as_str().into()),
            ("lanes", lanes.as_str().into()),
            ("generation", 1.into()),
        ];
        request.named(&args).map_err(End::Failed)?;
        let mut keys = tokio::select! {
            keys = shared.enter(&request, first) => keys?,
            () = shared.stopped() => {
                // It may have entered all the same: the reply was not waited for.
                if shared.dispatcher.link().is_connected() {
                    shared.farewell(&identity).await;
                }
                return Err(End::Left);
            }
        };
        shared.inbox.push(Event::Joined(identity.clone()));
        let mailbox_key = keys.remove(0);
        Ok(Self {
            shared: shared.clone(),
            identity,
            lanes,
            mailbox_key,
            wake_keys: keys,
            generation: AtomicI64::new(1),
            beating: Mutex::new(()),
            block: Notify::new(),
            blocked: AtomicBool::new(false),
            blocking_client: AtomicI64::new(0),
            blocked_on: std::sync::Mutex::default(),
            can_unblock: AtomicBool::new(true),
        })
    }

    /// Steps, heartbeats, the mailbox and the wake lists side by side until one of them ends the session.
    pub async fn run(&self) -> End {
        tokio::select! {
            end = self.steps() => {
                // By itself: a heartbeat behind it would be told that the lease is lost.
                if matches!(end, End::Left) {
                    self.leave().await;
                }
                end
            }
            end = self.heartbeats() => end,
            end = self.mailbox() => end,
            end = self.wakes() => end,
            () = self.unheard() => {
                self.shared.farewell(&self.identity).await;
                End::Left
            }
        }
    }

    async fn leave(&self) {
        tokio::select! {
            () = self.shared.leave(&self.identity) => (),
            () = self.unheard() => self.shared.farewell(&self.identity).await,
        }
    }

    /// Resolves when a worker that is to stop waits no longer for a server that is away.
    async fn unheard(&self) {
        let shared = &self.shared;
        while shared.slots().phase == Phase::Working {
            shared.stopping.notified().await;
        }
        let mut said = false;
        loop {
            if shared.is_in_trouble() {
                let now = Instant::now();
                let parting = shared.slots().parting(now);
                match parting {
                    Parting::Now => return,
                    Parting::Late(count) => {
                        let what = "the server was away until the lease was over, so the end of tasks";
                        let line = format!("{what} could not be reported ({count}): they run again");
                        return shared.inbox.log(Level::Error, line);
                    }
                    Parting::By(end, count) if !said => {
                        said = true;
                        let left = end.saturating_duration_since(now).as_secs_f64();
                        let what = "the server is away: waiting to report the end of tasks";
                        let line = format!("{what} ({count}), until the lease is over in {left:.0} s");
                        shared.inbox.log(Level::Warning, line);
                    }
                    Parting::By(..) | Parting::Busy => {}
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Shared {
    /// Sends `join` until it is answered; the keys it is answered with.
    async fn enter(&self, join: &Request, first: bool) -> Result<Vec<String>, End> {
        let mut backoff = Backoff::default();
        loop {
            let sent = Instant::now();
            match self.dispatcher.send(join).await.and_then(key_names) {
                Ok(keys) => {
                    self.renewed(sent);
                    return Ok(keys);
                }
                // A join whose reply was lost long ago: what it made is being reaped.
                Err(error) if error.is("LEASE_LOST") => return Err(End::Lost(error)),
                Err(error) if is_hopeless(&error) => return Err(End::Failed(error)),
                // A right that is missing, too; one that is taken away later is waited for, with what runs.
                Err(error) if first && !matches!(error, Error::Broker { .. }) => return Err(End::Failed(error)),
                Err(error) => self.trouble(&error),
            }
            self.dispatcher.link().pause(&mut backoff).await;
        }
    }

    /// Leaves, unless that takes long.
    async fn farewell(&self, identity: &str) {
        let _ = tokio::time::timeout(FAREWELL, self.leave(identity)).await;
    }

    /// Resolves when the worker is to stop and nothing is started.
    async fn stopped(&self) {
        loop {
            let stopping = {
                let mut slots = self.slots();
                slots.listen();
                slots.phase != Phase::Working
            };
            if stopping {
                return self.settled().await;
            }
            self.wake.notified().await;
        }
    }
}

/// Whether trying again cannot help: this build and the server do not go together.
pub fn is_hopeless(error: &Error) -> bool {
    matches!(error, Error::Library(_) | Error::Argument(_)) || error.is("BAD_ARGUMENT")
}

fn key_names(reply: Value) -> Result<Vec<String>, Error> {
    let malformed = || Error::Script("join: the reply does not match the protocol".to_owned());
    let Value::Array(values) = reply else { return Err(malformed()) };
    let keys: Option<Vec<String>> = values
        .into_iter()
        .map(|value| match value {
            Value::BulkString(key) => String::from_utf8(key).ok(),
            _ => None,
        })
        .collect();
    keys.filter(|keys| keys.len() > 1).ok_or_else(malformed)
}
