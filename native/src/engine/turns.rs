//! A runtime that an event loop drives by turns, on its own thread: what is ready runs, and nothing blocks. Nothing that
//! runs here may touch Python.

use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

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

/// What others have run on the event loop's thread, as far as that turns.
#[derive(Clone)]
pub struct Loop {
    handle: Handle,
    reactor: Arc<Reactor>,
}

impl Loop {
    pub fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }

    /// Runs `future` there, until it ends or nobody waits for it any more; where the loop has ended, for ever.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let mut running = OnLoop { task: self.handle.spawn(future), reactor: self.reactor.clone() };
        self.reactor.wake();
        match (&mut running.task).await {
            Ok(output) => output,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => std::future::pending().await,
        }
    }
}

/// What runs on an event loop's thread while this lives.
struct OnLoop<T> {
    task: JoinHandle<T>,
    reactor: Arc<Reactor>,
}

impl<T> Drop for OnLoop<T> {
    fn drop(&mut self) {
        self.task.abort();
        self.reactor.wake();
    }
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

    /// For what goes on beside it.
    pub fn of_loop(&self) -> Loop {
        Loop { handle: self.handle().clone(), reactor: self.reactor.clone() }
    }

    pub fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }

    /// Runs all that is ready; gives when the next turn is due if nothing happens before.
    pub fn turn(&self) -> Option<Instant> {
        let _entered = self.reactor.enter();
        self.reactor.begin_turn();
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
        if self.reactor.is_deferred() { Some(Instant::now()) } else { due }
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
        let mut due = turns.turn();
        assert!(due.is_some());
        while let Some(next) = due {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            due = turns.turn();
        }
        assert_eq!(receiver.try_iter().count(), 1000);
    }

    #[test]
    fn who_waits_for_the_next_turn_has_it_come_at_once() {
        let turns = Turns::new(Inbox::new().unwrap()).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        turns.handle().spawn(async move {
            sender.send("this turn").unwrap();
            Reactor::current().unwrap().next_turn().await;
            sender.send("the next").unwrap();
        });
        assert!(turns.turn().unwrap() <= Instant::now());
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["this turn"]);
        assert_eq!(turns.turn(), None);
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["the next"]);
    }

    #[test]
    fn what_others_have_run_on_the_loop_runs_there_and_ends_with_their_wait() {
        let inbox = Inbox::new().unwrap();
        let turns = Turns::new(inbox.of(0)).unwrap();
        let of_loop = turns.of_loop();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let waits = std::thread::spawn(move || {
            let here = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let ran_by = here.block_on(of_loop.run(async { std::thread::current().id() }));
            let forever = of_loop.run(async move {
                let _ended_with_it = sender;
                std::future::pending::<()>().await;
            });
            let limited = here.block_on(async { tokio::time::timeout(Duration::from_millis(20), forever).await });
            (ran_by, limited.is_err())
        });
        while !waits.is_finished() {
            inbox.wait(Duration::from_millis(100));
            inbox.clear();
            turns.turn();
        }
        assert_eq!(waits.join().unwrap(), (std::thread::current().id(), true));
        turns.turn();
        assert_eq!(receiver.recv(), Err(std::sync::mpsc::RecvError), "it is dropped");
    }
}
