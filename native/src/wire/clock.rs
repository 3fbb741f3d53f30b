//! Time limits and pauses: tokio's, but whoever drives a runtime by turns knows when the next turn is due. Who may run
//! there takes them from here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{coop::unconstrained, yield_now};

pub use tokio::time::Instant;

thread_local! {
    /// Of the runtime that this thread drives by turns at the moment.
    static CURRENT: RefCell<Option<Arc<Deadlines>>> = const { RefCell::new(None) };
}

/// By how much tokio's timers may be late.
const LATE: Duration = Duration::from_millis(1);

/// When those who wait in one runtime want to go on: how many at each time.
#[derive(Default)]
pub struct Deadlines(Mutex<BTreeMap<Instant, usize>>);

impl Deadlines {
    /// From now on, those who wait on this thread do so in that runtime, or in none that is driven by turns.
    pub fn enter(deadlines: Option<Arc<Self>>) {
        CURRENT.set(deadlines);
    }

    /// When the first of them goes on if the runtime is driven then.
    pub fn first(&self) -> Option<Instant> {
        self.lock().keys().next().map(|first| *first + LATE)
    }

    /// Has it known that somebody goes on then.
    pub fn note(this: &Arc<Self>, deadline: Instant) -> Noted {
        *this.lock().entry(deadline).or_default() += 1;
        Noted(Some((this.clone(), deadline)))
    }

    /// Whether somebody's time is over.
    pub fn is_over(&self) -> bool {
        self.lock().keys().next().is_some_and(|first| *first <= Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Instant, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A deadline that is waited for while this lives.
pub struct Noted(Option<(Arc<Deadlines>, Instant)>);

fn note(deadline: Instant) -> Noted {
    CURRENT.with_borrow(Clone::clone).map_or(Noted(None), |deadlines| Deadlines::note(&deadlines, deadline))
}

impl Drop for Noted {
    fn drop(&mut self) {
        let Some((deadlines, deadline)) = &self.0 else { return };
        let mut deadlines = deadlines.lock();
        if let Some(count) = deadlines.get_mut(deadline) {
            *count -= 1;
            if *count == 0 {
                deadlines.remove(deadline);
            }
        }
    }
}

/// What goes on at its deadline at the latest. No `async fn`: that would hold the future twice, which doubles with each
/// limit around another.
struct Until<F> {
    waiting: F,
    deadline: Instant,
    noted: Option<Noted>,
}

impl<F: Future> Future for Until<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `waiting` is never moved: only this reaches it, and pins it.
        let this = unsafe { self.get_unchecked_mut() };
        let deadline = this.deadline;
        this.noted.get_or_insert_with(|| note(deadline));
        // SAFETY: as above.
        unsafe { Pin::new_unchecked(&mut this.waiting) }.poll(cx)
    }
}

pub fn sleep_until(deadline: Instant) -> impl Future<Output = ()> + Send {
    Until { waiting: tokio::time::sleep_until(deadline), deadline, noted: None }
}

pub fn sleep(pause: Duration) -> impl Future<Output = ()> + Send {
    sleep_until(Instant::now() + pause)
}

/// The time was over first.
#[derive(Debug, PartialEq, Eq)]
pub struct Elapsed;

/// What has until `over`. Holds both in one place, as [`Until`] does.
struct Limited<F, O> {
    waiting: F,
    over: O,
}

impl<F: Future, O: Future<Output = ()>> Future for Limited<F, O> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: neither is ever moved: only this reaches them, and pins them.
        let (waiting, over) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.waiting), Pin::new_unchecked(&mut this.over))
        };
        match waiting.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            // Also where that did so much that it is to let others on.
            Poll::Pending => pin!(unconstrained(over)).poll(cx).map(|()| Err(Elapsed)),
        }
    }
}

/// Fails with [`Elapsed`] when the time is over first. What came meanwhile is in time, however long nobody drove the
/// runtime: a process may wait longer for its turn on a busy machine than for an answer.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
    let over = async move {
        tokio::time::sleep_until(deadline).await;
        // The first pass finds what came, the second has run whom it woke.
        yield_now().await;
        yield_now().await;
    };
    Until { waiting: Limited { waiting: future, over }, deadline, noted: None }
}

/// Fails with [`Elapsed`] when the time is over first.
pub fn timeout<F: Future>(limit: Duration, future: F) -> impl Future<Output = Result<F::Output, Elapsed>> {
    timeout_at(Instant::now() + limit, future)
}
