//! A runtime that an event loop drives by turns, on its own thread: what is ready runs, and nothing blocks. Nothing that
//! runs here may touch Python.

use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::runtime::{Builder, Handle};

use crate::engine::events::Inbox;
use crate::wire::clock::Instant;
use crate::wire::error::Error;
use crate::wire::reactor::Reactor;

/// The number of the next one.
static NUMBERS: AtomicU64 = AtomicU64::new(0);
/// Rounds of one turn in which time limits are found to be over.
const ROUNDS: usize = 8;

/// The runtime of one event loop. Dropping it drops what runs on it, and closes its connections.
pub struct Turns {
    number: u64,
    runtime: ManuallyDrop<tokio::runtime::Runtime>,
    reactor: Arc<Reactor>,
    idle: Arc<Idle>,
}

/// Who drives the runtime is told by it when nothing is ready any more.
#[derive(Default)]
struct Idle {
    is_idle: AtomicBool,
    driver: Mutex<Option<Waker>>,
}

impl Turns {
    /// For the loop of that inbox, which is woken when something is ready that was not waited for on the loop.
    ///
    /// # Errors
    /// [`Error::Broker`] when the system refuses it.
    pub fn new(inbox: Inbox) -> Result<Self, Error> {
        let idle = Arc::<Idle>::default();
        let told = idle.clone();
        let runtime = Builder::new_current_thread()
            .enable_time()
            // Only name resolution runs on these.
            .max_blocking_threads(2)
            .thread_name("ardiq-dns")
            .on_thread_park(move || {
                told.is_idle.store(true, Ordering::Relaxed);
                if let Some(driver) = &*told.driver() {
                    driver.wake_by_ref();
                }
            })
            .build()
            .map_err(|e| Error::broker(format!("cannot start the runtime of an event loop: {e}"), false))?;
        let (number, reactor) = (NUMBERS.fetch_add(1, Ordering::Relaxed), Reactor::new(move || inbox.wake()));
        Ok(Self { number, runtime: ManuallyDrop::new(runtime), reactor, idle })
    }

    /// One that no other of this process has.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    pub fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }

    /// Runs all that is ready; gives when the next turn is due if nothing happens before.
    pub fn turn(&self) -> Option<Instant> {
        let _entered = self.reactor.enter();
        let mut due = None;
        for _ in 0..ROUNDS {
            if self.reactor.deadlines().is_over() {
                // After a busy time the answer may be there, too, of which the loop has not told yet.
                self.reactor.look();
            }
            self.idle.is_idle.store(false, Ordering::Relaxed);
            self.runtime.block_on(poll_fn(|cx| {
                if self.idle.is_idle.load(Ordering::Relaxed) {
                    return Poll::Ready(());
                }
                *self.idle.driver() = Some(cx.waker().clone());
                Poll::Pending
            }));
            // What was found to be over last has not gone on yet.
            due = self.reactor.deadlines().first();
            if due.is_none_or(|due| due > Instant::now()) {
                break;
            }
        }
        due
    }
}

impl Idle {
    fn driver(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        *self.idle.driver() = None;
        // SAFETY: it is not used after this: `self` is being dropped.
        let runtime = unsafe { ManuallyDrop::take(&mut self.runtime) };
        // Does not wait for a name that is just being resolved.
        runtime.shutdown_background();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::clock::sleep;

    #[test]
    fn a_turn_runs_all_that_is_ready_and_says_when_the_next_is_due() {
        let turns = Turns::new(Inbox::new().unwrap()).unwrap();
        assert_eq!(turns.turn(), None);
        let (sender, receiver) = std::sync::mpsc::channel();
        for number in 0..1000 {
            let sender = sender.clone();
            turns.handle().spawn(async move {
                tokio::task::yield_now().await;
                sleep(Duration::from_millis(20)).await;
                sender.send(number).unwrap();
            });
        }
        let due = turns.turn().unwrap();
        assert_eq!(receiver.try_iter().count(), 0);
        std::thread::sleep(due.saturating_duration_since(Instant::now()) + Duration::from_millis(5));
        assert_eq!(turns.turn(), None);
        assert_eq!(receiver.try_iter().count(), 1000);
    }
}
