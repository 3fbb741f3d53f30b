//! The boundary to an event loop: what happened in Rust, waiting for Python to take it.
//!
//! Owns: the inbox of events and the descriptor that tells a loop to look. The rule that keeps it from
//! losing a wake-up: the I/O thread appends, *then* signals; Python clears, *then* takes. Must not know:
//! what a task or a function is.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;

use crate::wire::error::Error;

/// Levels of a log line, as Python's `logging` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info = 20,
    Warning = 30,
    Error = 40,
}

/// What Python is told. Plain data: it becomes Python objects only when Python takes it.
#[derive(Debug)]
pub enum Event {
    /// A call was answered.
    Reply { ticket: u64, value: Value },
    /// A call was refused or failed.
    Failure { ticket: u64, error: Error },
    /// A call of many records was answered: one value a ticket.
    Replies { tickets: Vec<u64>, values: Vec<Value> },
    /// A call of many records failed for all of them.
    Failures { tickets: Vec<u64>, error: Error },
    /// Some calls of a large batch failed; `accepted` has what the others answered, and false for what was
    /// certainly not carried out.
    Partly { ticket: u64, error: Error, accepted: Vec<Option<Value>> },
    /// A message arrived in the mailbox.
    Message(Vec<Vec<u8>>),
    /// The mailbox is read (anew), under this name.
    Listening(String),
    /// The worker has entered the queue, under this identity.
    Joined(String),
    /// There are tasks to take.
    Tasks,
    /// The attempt of that token is asked to stop.
    Abort(i64),
    /// There is something to carry to other queues.
    Outbox,
    /// An outcome became `what`, or was refused for it.
    Settled { id: Vec<u8>, token: i64, what: Vec<u8>, refused: bool },
    /// A task, or a whole list where there is no id, could not be moved.
    Stuck { id: Vec<u8>, reason: Vec<u8> },
    /// The worker's lease is lost: nothing whose token is `up_to` or less can be committed any more.
    Lost { message: String, up_to: i64 },
    /// A line for the log.
    Log(Level, String),
    /// Burst mode: nothing is left to do.
    Idle,
    /// The worker cannot go on.
    Failed(Error),
    /// The worker has left.
    Stopped,
}

/// The events of one event loop, as one of those sees it who put them there.
pub struct Inbox {
    shared: Arc<Shared>,
    /// Who puts them there.
    number: u64,
}

struct Shared {
    events: Mutex<Events>,
    signal: Signal,
    /// How often somebody came for the events.
    turns: AtomicU64,
}

#[derive(Default)]
struct Events {
    waiting: Vec<(u64, Event)>,
    /// Whoever takes them is about to: no signal is needed.
    is_turning: bool,
}

impl Inbox {
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> std::io::Result<Self> {
        let shared = Shared { events: Mutex::default(), signal: Signal::new()?, turns: AtomicU64::new(0) };
        Ok(Self { shared: Arc::new(shared), number: 0 })
    }

    /// The same, for another who puts events there.
    #[must_use]
    pub fn of(&self, number: u64) -> Self {
        Self { shared: self.shared.clone(), number }
    }

    pub fn push(&self, event: Event) {
        let first = {
            let mut events = self.lock();
            events.waiting.push((self.number, event));
            events.waiting.len() == 1 && !events.is_turning
        };
        // Whoever found events already there has signalled or is about to.
        if first {
            self.shared.signal.set();
        }
    }

    /// A line for the log.
    pub fn log(&self, level: Level, line: impl Into<String>) {
        self.push(Event::Log(level, line.into()));
    }

    /// Everything that happened since the last time, and whose it is.
    pub fn take(&self) -> Vec<(u64, Event)> {
        self.clear();
        self.take_turning()
    }

    /// For who was woken by the descriptor.
    pub fn clear(&self) {
        self.shared.signal.clear();
    }

    /// What happens from now on needs no signal, until [`take_turning`](Self::take_turning).
    pub fn begin_turn(&self) {
        self.lock().is_turning = true;
    }

    /// As [`take`](Self::take), for who was not woken by the descriptor.
    pub fn take_turning(&self) -> Vec<(u64, Event)> {
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
        let mut events = self.lock();
        events.is_turning = false;
        std::mem::take(&mut events.waiting)
    }

    /// Blocks until something happened or the time is over; whether it did.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.shared.signal.wait(timeout)
    }

    /// The descriptor to watch for reading.
    pub fn fileno(&self) -> RawFd {
        self.shared.signal.descriptor.as_raw_fd()
    }

    /// How often somebody came for the events: it grows soon after [`wake`](Self::wake) while the loop turns.
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// Wakes whoever waits, with or without an event.
    pub fn wake(&self) {
        self.shared.signal.set();
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.shared.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers for work that ends without an answer: whoever waits for it is told, instead of waiting for ever.
pub struct Unanswered<F: FnMut(Error)>(Option<F>);

impl<F: FnMut(Error)> Unanswered<F> {
    pub fn new(tell: F) -> Self {
        Self(Some(tell))
    }

    /// It has an answer.
    pub fn answered(mut self) {
        self.0 = None;
    }
}

impl<F: FnMut(Error)> Drop for Unanswered<F> {
    fn drop(&mut self) {
        if let Some(tell) = &mut self.0 {
            tell(if std::thread::panicking() {
                let what = "the I/O thread failed in the middle of this call: please report what it printed";
                Error::broker(what, true)
            } else {
                Error::closed(true)
            });
        }
    }
}

/// A flag that a poll can wait for.
struct Signal {
    descriptor: OwnedFd,
}

impl Signal {
    fn new() -> std::io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and nobody else has it.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    fn set(&self) {
        let one = 1u64.to_ne_bytes();
        // It fails only when 2^64 signals were not cleared, and is set then.
        // SAFETY: `one` is eight readable bytes.
        unsafe { libc::write(self.descriptor.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    fn clear(&self) {
        let mut count = [0u8; 8];
        // It fails only when the flag was not set.
        // SAFETY: `count` is eight writable bytes.
        unsafe { libc::read(self.descriptor.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    fn wait(&self, timeout: Duration) -> bool {
        let mut watched = libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout_ms = timeout.as_millis().try_into().unwrap_or(i32::MAX);
        // SAFETY: `watched` is one pollfd.
        let ready = unsafe { libc::poll(&raw mut watched, 1, timeout_ms) };
        ready > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn events_signal_once_and_are_taken_in_order() {
        let inbox = Inbox::new().unwrap();
        assert!(!inbox.wait(Duration::ZERO));
        inbox.push(Event::Tasks);
        inbox.of(7).push(Event::Idle);
        assert!(inbox.wait(Duration::ZERO));
        assert!(matches!(inbox.take()[..], [(0, Event::Tasks), (7, Event::Idle)]));
        assert!(!inbox.wait(Duration::ZERO));
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn a_push_wakes_whoever_waits() {
        let inbox = std::sync::Arc::new(Inbox::new().unwrap());
        let pusher = std::thread::spawn({
            let inbox = inbox.clone();
            move || {
                for _ in 0..10_000 {
                    inbox.push(Event::Tasks);
                }
            }
        });
        let mut seen = 0;
        while seen < 10_000 {
            assert!(inbox.wait(SOON), "a wake-up was lost after {seen} events");
            seen += inbox.take().len();
        }
        pusher.join().unwrap();
    }
}
