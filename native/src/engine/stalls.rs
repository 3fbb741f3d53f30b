//! An event loop that has not run for too long: noticed on the I/O thread, which needs no interpreter.
//!
//! Owns: asking the loop for a sign, what is known of its stall, and ending the process that is to be replaced. Must
//! not know: what holds the loop; Python looks, if it can.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::events::{Inbox, Level};

/// The exit code of a process that ended because its event loop was stalled for too long.
pub const EXIT_CODE: i32 = 4;
/// The longest pause between two looks.
const SLOWEST: Duration = Duration::from_secs(1);
/// A thread of Python that was told of the stall gets the interpreter within this, unless something holds on to it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of one event loop.
#[derive(Debug, Default)]
pub struct Stall {
    /// For how long it has not turned, in ms; 0: it turns.
    stalled_ms: AtomicU64,
    stalls: AtomicU64,
    /// Stalls in which no other thread of Python ran either.
    held: AtomicU64,
    is_held: AtomicBool,
    news: Mutex<News>,
    changed: Condvar,
}

/// For the thread that looks what holds the loop.
#[derive(Debug, Default)]
struct News {
    is_stalled: bool,
    /// It is awake, with the interpreter.
    is_seen: bool,
    has_ended: bool,
}

impl Stall {
    /// For how long the loop has not turned; zero while it does.
    pub fn stalled(&self) -> Duration {
        Duration::from_millis(self.stalled_ms.load(Ordering::Relaxed))
    }

    /// Whether something holds on to the interpreter during this stall.
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// How often the loop was stalled, and how often something held on to the interpreter.
    pub fn counted(&self) -> (u64, u64) {
        (self.stalls.load(Ordering::Relaxed), self.held.load(Ordering::Relaxed))
    }

    /// Blocks until a stall begins; its length so far, or nothing when the time is over or nobody watches any more.
    pub fn wait(&self, timeout: Duration) -> Option<Duration> {
        let news = self.news();
        let waited = self.changed.wait_timeout_while(news, timeout, |news| !news.has_ended && !news.is_new());
        let news = waited.unwrap_or_else(PoisonError::into_inner).0;
        (news.is_new() && !news.has_ended).then(|| self.stalled())
    }

    /// Said by who waited, once it has the interpreter.
    pub fn seen(&self) {
        self.news().is_seen = true;
    }

    /// Whether nobody watches any more.
    pub fn has_ended(&self) -> bool {
        self.news().has_ended
    }

    /// Nobody watches any more.
    pub fn end(&self) {
        self.news().has_ended = true;
        self.changed.notify_all();
    }

    /// The loop has been silent for so long. What there is to say to people who do not read Python's log.
    fn goes_on(&self, silent: Duration, after: Duration) -> Option<String> {
        self.stalled_ms.store((silent.as_millis() as u64).max(1), Ordering::Relaxed);
        let mut news = self.news();
        if !news.is_stalled {
            // Who was told of the one before may say so only now.
            (news.is_stalled, news.is_seen) = (true, false);
            self.stalls.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_all();
        } else if !news.is_seen && silent >= after + PATIENCE && !self.is_held.swap(true, Ordering::Relaxed) {
            self.held.fetch_add(1, Ordering::Relaxed);
            let what = "code that does not release the interpreter (a C extension, or one very long operation)";
            return Some(format!("no Python code has run for {:.1} s: {what} holds it", silent.as_secs_f64()));
        }
        None
    }

    /// The loop turns; for how long it did not.
    fn turns(&self) -> Option<Duration> {
        let stalled_ms = self.stalled_ms.swap(0, Ordering::Relaxed);
        if stalled_ms == 0 {
            return None;
        }
        self.is_held.store(false, Ordering::Relaxed);
        let mut news = self.news();
        (news.is_stalled, news.is_seen) = (false, false);
        Some(Duration::from_millis(stalled_ms))
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    fn is_new(&self) -> bool {
        self.is_stalled && !self.is_seen
    }
}

/// Asks the loop of this inbox for a sign, again and again. It is stalled when it gave none for `after`; after
/// `most` of that the process ends.
pub async fn watch(inbox: Arc<Inbox>, stall: Arc<Stall>, after: Duration, most: Option<Duration>) {
    let pause = (after / 4).clamp(Duration::from_millis(5), SLOWEST);
    let mut silent = Duration::ZERO;
    let mut looked = Instant::now();
    let mut turns = inbox.turns();
    inbox.wake();
    loop {
        tokio::time::sleep(pause).await;
        // A pause that took longer was one of this whole process: it was stopped, or its machine slept.
        let passed = looked.elapsed().min(2 * pause);
        looked = Instant::now();
        let now = inbox.turns();
        if now != turns {
            turns = now;
            silent = Duration::ZERO;
            if let Some(stalled) = stall.turns() {
                let line = format!("the event loop runs again, after about {:.1} s", stalled.as_secs_f64());
                inbox.log(Level::Warning, line);
            }
            inbox.wake();
            continue;
        }
        silent += passed;
        if silent >= after {
            stall.goes_on(silent, after).iter().for_each(|line| say(line));
        }
        if most.is_some_and(|most| silent >= most) {
            say(&format!(
                "the event loop has not run for {:.1} s: this worker ends, and what it held runs again when its \
                 lease is over",
                silent.as_secs_f64()
            ));
            // SAFETY: it ends the process without running anything of it.
            unsafe { libc::_exit(EXIT_CODE) };
        }
    }
}

/// A line on standard error, if it takes one: Python's log is out of reach. Nobody may read it, and a full pipe must
/// hold up neither the I/O thread nor the end of the process.
fn say(line: &str) {
    let text = format!("ardiq: process {}: {line}\n", std::process::id());
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: both are given what they read or write, of that length. A pipe that is ready takes a page at once.
    unsafe {
        if libc::poll(&mut stderr, 1, 0) == 1 && stderr.revents & libc::POLLOUT != 0 {
            libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len().min(libc::PIPE_BUF));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(5);

    #[test]
    fn a_stall_is_told_once_and_counted_once() {
        let stall = Stall::default();
        assert_eq!(stall.wait(Duration::ZERO), None);
        assert_eq!(stall.goes_on(AFTER, AFTER), None);
        assert_eq!(stall.wait(Duration::ZERO), Some(AFTER));
        stall.seen();
        assert_eq!(stall.wait(Duration::ZERO), None, "it was told");
        assert_eq!(stall.goes_on(2 * AFTER, AFTER), None);
        assert_eq!((stall.stalled(), stall.counted()), (2 * AFTER, (1, 0)));
        assert_eq!(stall.turns(), Some(2 * AFTER));
        assert_eq!((stall.stalled(), stall.turns()), (Duration::ZERO, None));
        stall.goes_on(AFTER, AFTER);
        assert_eq!((stall.wait(Duration::ZERO), stall.counted()), (Some(AFTER), (2, 0)));
    }

    #[test]
    fn who_does_not_come_for_the_news_is_kept_from_the_interpreter() {
        let stall = Stall::default();
        stall.goes_on(AFTER, AFTER);
        assert_eq!(stall.goes_on(AFTER + PATIENCE / 2, AFTER), None);
        assert!(stall.goes_on(AFTER + PATIENCE, AFTER).is_some_and(|line| line.contains("6.0 s")));
        assert_eq!(stall.goes_on(2 * AFTER, AFTER), None, "it is said once");
        assert_eq!((stall.is_held(), stall.counted()), (true, (1, 1)));
        stall.turns();
        assert!(!stall.is_held());
    }

    #[test]
    fn nobody_waits_when_it_has_ended() {
        let stall = Stall::default();
        stall.goes_on(AFTER, AFTER);
        stall.end();
        assert_eq!((stall.wait(AFTER), stall.has_ended()), (None, true));
    }
}
