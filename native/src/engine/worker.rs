//! The I/O loop of one worker process, off the GIL: enters, steps, keeps its lease, leaves.
//!
//! Owns: what a worker is told to be ([`Config`]), what it shares with Python's threads, and its life from
//! one identity to the next. Must not know: Python; any function but `join`, `step`, `heartbeat` and
//! `leave`; any state of a task.
//!
//! | module | owns |
//! |---|---|
//! | [`lanes`] | the lanes, and what their limits leave |
//! | [`pool`] | the slots that the queues of one process share |
//! | [`slots`] | what is held and started; what to do next |
//! | [`prefetch`] | how much to hold ahead |
//! | [`session`] | one identity: join, then everything at once until it ends |
//! | `steps` | one step after the other |
//! | [`figures`] | what it is doing, for those who watch it |
//! | `heartbeat` | the lease, and the mailbox |
//! | `wakes` | blocking on the wake lists |

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::call::dispatch::Dispatcher;
use crate::engine::claims::Claim;
use crate::engine::events::{Event, Inbox, Level};
use crate::engine::observer::Observer;
use crate::engine::outcomes::Outcomes;
use crate::engine::stalls::Stall;
use crate::wire::error::Error;

pub mod figures;
mod heartbeat;
pub mod lanes;
pub mod pool;
pub mod prefetch;
mod session;
pub mod slots;
mod steps;
mod wakes;

use lanes::{Lane, Lanes};
use pool::{Neighbour, Seat};
use session::{End, Session};
use slots::{Phase, Slots};

/// What a worker is told to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// For people; the identity is this and something random.
    pub label: String,
    /// JSON object about the process, for people.
    pub info: String,
    /// Highest priority first.
    pub lanes: Vec<Lane>,
    /// Tasks that run at once.
    pub concurrency: usize,
    /// Tasks held ahead at most; adaptive in any case.
    pub prefetch: Option<usize>,
    pub lease: Duration,
    /// How long to block for a wake-up token.
    pub poll_block: Duration,
    pub result_ttl_ms: i64,
    /// Workers a suspect may take down.
    pub max_lost: i64,
    /// Say when nothing is left to do.
    pub burst: bool,
    /// For how long the server may be away before the worker gives up, if ever.
    pub give_up_after: Option<Duration>,
    /// Names of the tasks that threads take.
    pub thread_tasks: HashSet<Vec<u8>>,
    /// Its place, where other queues of this process share the slots.
    pub seat: Option<Seat>,
    /// Who counts what it does, where somebody wants to know.
    pub observer: Option<Arc<Observer>>,
    /// The event loop that starts its tasks, where somebody watches it.
    pub stall: Option<Arc<Stall>>,
}

/// One worker. Cheap to clone; all clones are the same worker.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
}

/// What the I/O loop shares with the threads that take and settle tasks.
struct Shared {
    config: Config,
    dispatcher: Dispatcher,
    inbox: Arc<Inbox>,
    slots: Mutex<Slots>,
    identity: Mutex<String>,
    /// Wakes the I/O loop.
    wake: Notify,
    /// Wakes threads that wait for tasks.
    for_threads: Condvar,
    outage: Mutex<Outage>,
}

/// Whether the server is away, so that it is said once and not by everything that notices.
#[derive(Default)]
struct Outage {
    since: Option<Instant>,
    said_at: Option<Instant>,
}

/// Pause between two lines about the same outage.
const SAY_AGAIN: Duration = Duration::from_secs(2);

impl Worker {
    pub fn new(dispatcher: Dispatcher, inbox: Arc<Inbox>, config: Config) -> Self {
        let lanes = Lanes::new(config.lanes.clone());
        let (names, seat) = (config.thread_tasks.clone(), config.seat.clone());
        let slots = Slots::new(config.concurrency, config.prefetch, names, lanes, seat, Instant::now());
        let shared = Shared {
            identity: Mutex::new(new_identity(&config.label)),
            config,
            dispatcher,
            inbox,
            slots: Mutex::new(slots),
            wake: Notify::new(),
            for_threads: Condvar::new(),
            outage: Mutex::default(),
        };
        let shared = Arc::new(shared);
        if let Some(seat) = &shared.config.seat {
            let neighbour: Arc<dyn Neighbour> = shared.clone();
            seat.join(Arc::downgrade(&neighbour));
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
    pub fn overstay(&self, token: i64, runs_on: bool) {
        let (wake, has_tasks, threads) = {
            let mut slots = self.shared.slots();
            let wake = slots.overstay(token, runs_on);
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
            let what = format!("the worker's I/O loop ended by a mistake in Ardiq: {panic}");
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

impl Neighbour for Shared {
    fn room(&self) {
        self.wake.notify_one();
    }

    fn look(&self) {
        let wake = self.slots().poke();
        self.wake_if(wake);
    }

    fn idle(&self) {
        self.inbox.push(Event::Idle);
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        lock(&self.slots)
    }

    fn observe(&self, tell: impl FnOnce(&Observer)) {
        if let Some(observer) = &self.config.observer {
            tell(observer);
        }
    }

    fn wake_if(&self, wake: bool) {
        if wake {
            self.wake.notify_one();
        }
    }

    fn wake_threads(&self, count: usize) {
        match count {
            0 => {}
            1 => self.for_threads.notify_one(),
            _ => self.for_threads.notify_all(),
        }
    }

    /// What could not be started, because threads or other queues had the slots, may be by now. An event loop that has
    /// all slots to itself knows.
    fn offer(&self) {
        if self.config.seat.is_some() || !self.config.thread_tasks.is_empty() {
            let (tasks, threads) = {
                let mut slots = self.slots();
                (slots.calls_loop(), slots.threads_to_wake())
            };
            if tasks {
                self.inbox.push(Event::Tasks);
            }
            self.wake_threads(threads);
        }
    }

    /// Resolves when nothing is started any more.
    async fn settled(&self) {
        while !self.slots().is_quiet() {
            self.wake.notified().await;
        }
    }

    /// The server renewed the lease at some time after `sent`.
    fn renewed(&self, sent: Instant) {
        let tasks = self.slots().renewed(sent + self.config.lease);
        if tasks {
            self.inbox.push(Event::Tasks);
            self.for_threads.notify_all();
        }
        let was_away = std::mem::take(&mut *lock(&self.outage)).said_at.is_some();
        if was_away {
            self.inbox.log(Level::Info, "the server is back");
        }
    }

    /// Something failed that will be tried again.
    fn trouble(&self, error: &Error) {
        let mut outage = lock(&self.outage);
        let now = Instant::now();
        if matches!(error, Error::Broker { .. }) {
            // It was tried for that long already.
            let patience = self.dispatcher.link().connector().options().broker_timeout;
            let away = now - *outage.since.get_or_insert(now.checked_sub(patience).unwrap_or(now));
            if self.config.give_up_after.is_some_and(|most| away >= most) {
                let what = |message: &str| format!("{message}; gave up after {:.0} s", away.as_secs_f64());
                return self.inbox.push(Event::Failed(error.clone().map_message(what)));
            }
        }
        if outage.said_at.is_none_or(|at| now.duration_since(at) >= SAY_AGAIN) {
            outage.said_at = Some(now);
            let level = if matches!(error, Error::Broker { .. }) { Level::Warning } else { Level::Error };
            self.inbox.log(level, format!("{error}; trying again"));
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
    format!("worker {identity} lost its lease: {why}. What it held is given to others; it joins anew")
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
