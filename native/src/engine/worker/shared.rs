//! What the I/O loop shares with the threads that take and settle tasks.
//!
//! Owns: who is woken when, and whether the server is away. Must not know: what is sent.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::lanes::Lanes;
use super::pool::PoolListener;
use super::slots::{News, Slots};
use super::{Config, lock, new_identity};
use crate::call::dispatch::Dispatcher;
use crate::engine::events::{Event, Inbox, Level};
use crate::engine::observer::Observer;
use crate::engine::turns::Loop;
use crate::wire::error::Error;

/// What the I/O loop shares with the threads that take and settle tasks.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) dispatcher: Dispatcher,
    pub(super) inbox: Arc<Inbox>,
    /// Who reads the mailbox; none: the I/O thread.
    pub(super) mail_reader: Option<Loop>,
    pub(super) slots: Mutex<Slots>,
    pub(super) identity: Mutex<String>,
    /// Wakes the I/O loop.
    pub(super) wake: Notify,
    /// The worker is to stop.
    pub(super) stopping: Notify,
    /// Wakes threads that wait for tasks.
    pub(super) for_threads: Condvar,
    pub(super) outage: Mutex<Outage>,
}

/// Whether the server is away, so that it is said once and not by everything that notices.
#[derive(Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    said_at: Option<Instant>,
}

/// Pause between two lines about the same outage.
const SAY_AGAIN: Duration = Duration::from_secs(2);

impl PoolListener for Shared {
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
    pub(super) fn new(dispatcher: Dispatcher, inbox: Arc<Inbox>, of_loop: Option<Loop>, config: Config) -> Self {
        // Where threads take tasks without the loop, it must not keep one from them while it is busy; and what other queues have
        // taken the slots of is given back at once.
        let mail_reader = of_loop.filter(|_| config.thread_tasks.is_empty() && config.pool_share.is_none());
        let lanes = Lanes::new(config.lanes.clone());
        let (names, pool_share) = (config.thread_tasks.clone(), config.pool_share.clone());
        let mut slots = Slots::new(config.concurrency, config.prefetch, names, lanes, pool_share, Instant::now());
        slots.batch_tasks.clone_from(&config.batch_tasks);
        Self {
            identity: Mutex::new(new_identity(&config.label)),
            config,
            dispatcher,
            inbox,
            mail_reader,
            slots: Mutex::new(slots),
            wake: Notify::new(),
            stopping: Notify::new(),
            for_threads: Condvar::new(),
            outage: Mutex::default(),
        }
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, Slots> {
        lock(&self.slots)
    }

    pub(super) fn observe(&self, tell: impl FnOnce(&Observer)) {
        if let Some(observer) = &self.config.observer {
            tell(observer);
        }
    }

    pub(super) fn wake_if(&self, wake: bool) {
        if wake {
            self.wake.notify_one();
        }
    }

    pub(super) fn wake_threads(&self, count: usize) {
        match count {
            0 => {}
            1 => self.for_threads.notify_one(),
            _ => self.for_threads.notify_all(),
        }
    }

    /// There are tasks to start.
    pub(super) fn pass_on(&self, news: &News) {
        if news.tasks {
            self.inbox.push(Event::Tasks);
        }
        self.wake_threads(news.threads);
    }

    /// What could not be started, because threads or other queues had the slots, may be by now. An event loop that has
    /// all slots to itself knows.
    pub(super) fn offer(&self) {
        if self.config.pool_share.is_some() || !self.config.thread_tasks.is_empty() {
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
    pub(super) async fn settled(&self) {
        while !self.slots().is_quiet() {
            self.wake.notified().await;
        }
    }

    /// The server renewed the lease at some time after `sent`.
    pub(super) fn renewed(&self, sent: Instant) {
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

    /// Whether something failed since the lease was renewed.
    pub(super) fn is_in_trouble(&self) -> bool {
        lock(&self.outage).said_at.is_some()
    }

    /// Something failed that will be tried again.
    pub(super) fn trouble(&self, error: &Error) {
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
