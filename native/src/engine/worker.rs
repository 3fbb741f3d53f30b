//! The I/O loop of one worker process, off the GIL: enters, steps, keeps its lease, leaves.
//!
//! Owns: what Python's threads ask of it, and its life from one identity to the next. Must not know: Python; any function
//! but `join`, `step`, `heartbeat` and `leave`; any state of a task.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | what it is told to be |
//! | `shared` | what the I/O loop shares with Python's threads |
//! | [`lanes`] | the lanes, and what their limits leave |
//! | [`pool`] | the slots that the queues of one process share |
//! | [`slots`] | what is held and started; what to do next |
//! | [`prefetch`] | how much to hold ahead |
//! | [`session`] | one identity: join, then everything at once until it ends |
//! | `steps` | one step after the other |
//! | [`figures`] | what it is doing, for those who watch it |
//! | `heartbeat` | the lease, and the mailbox |
//! | `wakes` | blocking on the wake lists |

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::call::dispatch::Dispatcher;
use crate::engine::claims::Claim;
use crate::engine::events::{Event, Inbox};
use crate::engine::observer::Observer;
use crate::engine::outcomes::Outcomes;
use crate::engine::turns::Loop;
use crate::wire::error::Error;

pub mod config;
pub mod figures;
mod heartbeat;
pub mod lanes;
pub mod pool;
pub mod prefetch;
mod session;
mod shared;
pub mod slots;
mod steps;
mod wakes;

pub use config::Config;
use pool::PoolListener;
use session::{End, Session};
use shared::Shared;
use slots::Phase;

/// One worker. Cheap to clone; all clones are the same worker.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
}

impl Worker {
    /// `of_loop`: the event loop that starts its tasks, where that does I/O.
    pub fn new(dispatcher: Dispatcher, inbox: Arc<Inbox>, of_loop: Option<Loop>, config: Config) -> Self {
        let shared = Arc::new(Shared::new(dispatcher, inbox, of_loop, config));
        if let Some(pool_share) = &shared.config.pool_share {
            let listener: Arc<dyn PoolListener> = shared.clone();
            pool_share.join(Arc::downgrade(&listener));
        }
        Self { shared }
    }

    /// `<label>:<random>`.
    pub fn identity(&self) -> String {
        lock(&self.shared.identity).clone()
    }

    /// Under which identity and lease token the server knows the attempt of that token; under none after a lost lease.
    pub fn holder(&self, token: i64) -> (String, i64) {
        // In this order: a lost lease changes the tokens before the identity.
        let identity = self.identity();
        (identity, self.shared.slots().lease_token(token))
    }

    /// Up to `limit` tasks to start now, never more than there are free slots.
    pub fn take(&self, limit: usize) -> Vec<Claim> {
        let (claims, wake) = self.shared.slots().take(limit, Instant::now());
        self.shared.wake_if(wake);
        self.shared.observe(|observer| observer.started(&claims));
        claims
    }

    /// One of the threads' tasks, if there is one to start now.
    pub fn try_take_for_thread(&self) -> Option<Claim> {
        let (claim, wake) = self.shared.slots().take_for_thread(Instant::now());
        self.shared.wake_if(wake);
        self.shared.observe(|observer| observer.started(claim.as_slice()));
        claim
    }

    /// Blocks for one of the threads' tasks; nothing when the time is over or the worker has ended.
    pub fn take_for_thread(&self, timeout: Duration) -> Option<Claim> {
        let deadline = Instant::now() + timeout;
        let mut slots = self.shared.slots();
        loop {
            let now = Instant::now();
            let (claim, wake) = slots.take_for_thread(now);
            self.shared.wake_if(wake);
            if claim.is_some() || now >= deadline || slots.phase == Phase::Ended {
                self.shared.observe(|observer| observer.started(claim.as_slice()));
                return claim;
            }
            slots.waiting_threads += 1;
            let waited = self.shared.for_threads.wait_timeout(slots, deadline - now);
            slots = waited.unwrap_or_else(PoisonError::into_inner).0;
            slots.waiting_threads -= 1;
        }
    }

    /// Hand in outcomes of tasks that ran for so long together; every task that was taken needs one, also after the lease
    /// was lost.
    pub fn settle(&self, outcomes: Outcomes, run_ms: i64) {
        self.shared.observe(|observer| observer.settled(&outcomes));
        let (wake, threads) = {
            let mut slots = self.shared.slots();
            (slots.settle(outcomes, run_ms), slots.threads_to_wake())
        };
        self.shared.wake_if(wake);
        self.shared.wake_threads(threads);
    }

    /// A thread runs on although its task is settled, and keeps its slot until it is said to have ended.
    pub fn thread_runs_on(&self, token: i64, runs_on: bool) {
        let (wake, has_tasks, threads) = {
            let mut slots = self.shared.slots();
            let wake = slots.thread_runs_on(token, runs_on);
            slots.tell();
            (wake, slots.has_tasks(), slots.threads_to_wake())
        };
        self.shared.wake_if(wake);
        self.shared.wake_threads(threads);
        if has_tasks && !runs_on {
            self.shared.inbox.push(Event::Tasks);
        }
    }

    /// A task that is settled keeps its slot while somebody is told of it, so that no more fail than can be told of.
    pub fn occupy(&self, takes: bool) {
        let (wake, has_tasks, threads) = {
            let mut slots = self.shared.slots();
            (slots.occupy(takes), slots.has_tasks(), slots.threads_to_wake())
        };
        self.shared.wake_if(wake);
        self.shared.wake_threads(threads);
        if has_tasks && !takes {
            self.shared.inbox.push(Event::Tasks);
        }
    }

    /// Claim no more, hand back what was not started, leave when all is settled.
    pub fn stop(&self) {
        let wake = self.shared.slots().drain();
        self.shared.wake_if(wake);
        self.shared.stopping.notify_one();
    }

    /// No more tasks, no more waiting. Whoever runs [`run`](Self::run) drops it.
    pub fn end(&self) {
        {
            let mut slots = self.shared.slots();
            slots.phase = Phase::Ended;
            slots.tell();
        }
        self.shared.for_threads.notify_all();
    }

    pub fn has_ended(&self) -> bool {
        self.shared.slots().phase == Phase::Ended
    }

    /// The whole life of the worker, until it is stopped. A mistake in it ends it with a message.
    pub async fn run(self) {
        let mut life = JoinSet::new();
        life.spawn(self.clone().live());
        if let Some(Err(panic)) = life.join_next().await {
            self.end();
            let what = format!("the worker's I/O loop ended because of a bug in Ardiq: {panic}");
            self.shared.inbox.push(Event::Failed(Error::Script(what)));
        }
    }

    /// One session after the other.
    async fn live(self) {
        let shared = &self.shared;
        let mut sessions = 0;
        loop {
            let end = match Session::join(shared, sessions == 0).await {
                Ok(session) => session.run().await,
                Err(end) => end,
            };
            sessions += 1;
            match end {
                End::Left => {
                    self.end();
                    return shared.inbox.push(Event::Stopped);
                }
                End::Failed(error) => {
                    self.end();
                    return shared.inbox.push(Event::Failed(error));
                }
                End::Lost(why) => {
                    let up_to = shared.slots().lose();
                    shared.observe(Observer::lease_lost);
                    let next = new_identity(&shared.config.label);
                    let identity = std::mem::replace(&mut *lock(&shared.identity), next);
                    let message = lost(&why, &identity, shared.config.lease);
                    shared.inbox.push(Event::Lost { message, up_to });
                    // A server that lost steps may still count it as a member that holds tasks.
                    shared.leave(&identity).await;
                }
            }
            if shared.slots().phase != Phase::Working {
                shared.settled().await;
                self.end();
                return shared.inbox.push(Event::Stopped);
            }
        }
    }
}

/// What becomes of a worker whose identity is void, for people.
fn lost(why: &Error, identity: &str, lease: Duration) -> String {
    let why = if why.is("LEASE_LOST") {
        format!("it was silent for longer than {} ms, or the server lost data", lease.as_millis())
    } else {
        why.to_string()
    };
    format!("worker {identity} lost its lease: {why}. Its tasks are given to others; it joins again")
}

/// New for each process and after each lost lease, so that nobody renews a dead worker's lease.
fn new_identity(label: &str) -> String {
    let mut random = [0u8; 6];
    // A process that may not read it would share no identity either: the time differs.
    if File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        random.copy_from_slice(&now.as_nanos().to_le_bytes()[..6]);
    }
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{label}:{hex}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_a_label_and_something_new() {
        let (one, other) = (new_identity("web-1"), new_identity("web-1"));
        assert!(one.starts_with("web-1:") && one.len() == "web-1:".len() + 12);
        assert_ne!(one, other);
    }
}
