//! What a `Core` does its I/O on, and what fork and exit do to it: a runtime that each thread drives which waits for
//! something, and a thread of its own once there is something that goes on by itself. Nothing that runs here may touch
//! Python.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, yield_now};

use crate::engine::process;
use crate::wire::clock::timeout;
use crate::wire::error::Error;

/// A current-thread tokio runtime. Dropping it tells its thread, if it has one, to stop, without waiting.
pub struct Runtime {
    pid: u32,
    // In a forked child the thread does not exist, but locks it held at the fork stay locked:
    // there, nothing of this may be touched, not even to drop it.
    inner: ManuallyDrop<Inner>,
}

struct Inner {
    handle: Handle,
    /// Whoever drives it holds it, too; the last one ends it.
    shared: Mutex<Option<Arc<Shared>>>,
    has_thread: AtomicBool,
    stop: Arc<Notify>,
    ended: Arc<Ended>,
}

struct Shared {
    runtime: ManuallyDrop<tokio::runtime::Runtime>,
    ended: Arc<Ended>,
}

#[derive(Default)]
struct Ended {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it is not used after this: `self` is being dropped.
        let runtime = unsafe { ManuallyDrop::take(&mut self.runtime) };
        // Drops the tasks; does not wait for a name that is just being resolved.
        runtime.shutdown_background();
        *lock(&self.ended.ended) = true;
        self.ended.changed.notify_all();
    }
}

impl Runtime {
    /// # Errors
    /// [`Error::Broker`] when the system gives no descriptor.
    pub fn new() -> Result<Self, Error> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Only name resolution runs on these.
            .max_blocking_threads(2)
            .thread_name("ardiq-dns")
            .build()
            .map_err(refused)?;
        let handle = runtime.handle().clone();
        let ended = Arc::new(Ended::default());
        let shared = Arc::new(Shared { runtime: ManuallyDrop::new(runtime), ended: ended.clone() });
        let (shared, has_thread) = (Mutex::new(Some(shared)), AtomicBool::new(false));
        let inner = Inner { handle, shared, has_thread, stop: Arc::default(), ended };
        Ok(Self { pid: process::id(), inner: ManuallyDrop::new(inner) })
    }

    /// Gives it a thread: what is spawned goes on by itself from now on.
    ///
    /// # Errors
    /// [`Error::Broker`] when the system gives no thread.
    pub fn start_thread(&self) -> Result<(), Error> {
        let shared = lock(&self.inner.shared);
        let Some(runtime) = shared.as_ref().filter(|_| !self.has_thread()).cloned() else { return Ok(()) };
        let stop = self.inner.stop.clone();
        let run = move || runtime.runtime.block_on(stop.notified());
        std::thread::Builder::new().name("ardiq-io".to_owned()).spawn(run).map_err(refused)?;
        self.inner.has_thread.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub fn handle(&self) -> &Handle {
        &self.inner.handle
    }

    /// Whether nothing goes on by itself but the driver of one connection.
    pub fn is_quiet(&self) -> bool {
        !self.has_thread() && self.inner.handle.metrics().num_alive_tasks() <= 1
    }

    pub fn has_thread(&self) -> bool {
        self.inner.has_thread.load(Ordering::Relaxed)
    }

    /// Has `future` run by its thread; without one, whenever somebody drives it. From any thread, attached to Python or
    /// not. After [`stop`](Self::stop) the future is dropped unrun.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.inner.handle.spawn(future)
    }

    /// Runs `future`, and what was spawned beside it, on the calling thread, for up to `limit`; None where that was not
    /// enough. Several threads may do this: one of them does the I/O for all.
    ///
    /// # Errors
    /// [`Error::Broker`] when it is stopped.
    pub fn drive<F: Future + Unpin>(&self, future: F, limit: Duration) -> Result<Option<F::Output>, Error> {
        let shared = lock(&self.inner.shared).clone().ok_or_else(|| Error::closed(true))?;
        // Not tokio's: this one leaves a limit of `future` that is over, too, its time to look once more.
        Ok(shared.runtime.block_on(async { timeout(limit, future).await.ok() }))
    }

    /// Comes first in what is driven: what has happened since anybody drove the runtime, such as the end of a connection,
    /// is known before it is relied upon.
    pub async fn catch_up(&self) {
        if !self.has_thread() {
            // The first pass finds what happened, the second has run whom it woke.
            yield_now().await;
            yield_now().await;
        }
    }

    /// Whether this process started it: a forked child has the handle, but no thread.
    pub fn is_mine(&self) -> bool {
        self.pid == process::id()
    }

    /// Drops every task and waits up to `timeout` for that, and for the thread to end; whether it did.
    pub fn stop(&self, timeout: Duration) -> bool {
        if !self.is_mine() {
            return true;
        }
        self.inner.stop.notify_one();
        drop(lock(&self.inner.shared).take());
        let ended = &self.inner.ended;
        let waited = ended.changed.wait_timeout_while(lock(&ended.ended), timeout, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if self.is_mine() {
            self.inner.stop.notify_one();
            // SAFETY: `inner` is not used after this: `self` is being dropped.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

fn refused(error: std::io::Error) -> Error {
    Error::broker(format!("cannot start the I/O runtime: {error}"), false)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::pin::Pin;

    use tokio::io::AsyncReadExt;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn its_thread_runs_futures_until_it_is_stopped() {
        let runtime = Runtime::new().unwrap();
        runtime.start_thread().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        runtime.spawn(async move { sender.send(std::thread::current().name().map(str::to_owned)) });
        assert_eq!(receiver.recv().unwrap().as_deref(), Some("ardiq-io"));

        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        assert!(runtime.stop(Duration::from_secs(5)));
        assert!(receiver.recv().is_err(), "the task was dropped with its sender");
        assert!(runtime.stop(Duration::ZERO), "stopping twice is harmless");
        runtime.spawn(async {});
    }

    #[test]
    fn without_a_thread_whoever_waits_runs_what_was_spawned() {
        let runtime = Runtime::new().unwrap();
        let ran_by = runtime.spawn(async { std::thread::current().id() });
        let waited = runtime.drive(ran_by, Duration::from_secs(5)).unwrap();
        assert_eq!(waited.unwrap().unwrap(), std::thread::current().id());
        let waiting = Box::pin(std::future::pending::<()>());
        assert!(runtime.drive(waiting, Duration::from_millis(1)).unwrap().is_none());
        assert!(runtime.stop(Duration::ZERO));
        assert!(runtime.drive(Box::pin(async {}), Duration::from_secs(5)).is_err(), "it is stopped");
    }

    #[test]
    fn an_answer_that_came_while_nobody_drove_it_is_in_time() {
        let runtime = Runtime::new().unwrap();
        let (mut server, client) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        let (told, answer) = oneshot::channel();
        runtime.spawn(async move {
            let mut client = tokio::net::UnixStream::from_std(client).unwrap();
            told.send(client.read_u8().await.unwrap())
        });
        // It waits for the socket.
        runtime.drive(Box::pin(runtime.catch_up()), Duration::from_secs(5)).unwrap();
        let limit = Duration::from_millis(10);
        let (mut answer, mut polls) = (answer, 0);
        let mut call = Box::pin(timeout(
            limit,
            poll_fn(|cx| {
                polls += 1;
                match polls {
                    1 => std::thread::sleep(3 * limit),
                    // Its time is over, as is that of `drive`, and nobody has looked since.
                    2 => server.write_all(&[7]).unwrap(),
                    _ => {}
                }
                Pin::new(&mut answer).poll(cx)
            }),
        ));
        let answered = std::iter::from_fn(|| Some(runtime.drive(&mut call, limit).unwrap())).flatten().next();
        assert_eq!(answered, Some(Ok(Ok(7))));
        let in_vain = Box::pin(timeout(limit, std::future::pending::<()>()));
        assert_eq!(runtime.drive(in_vain, Duration::from_secs(5)).unwrap().map(|end| end.is_err()), Some(true));
    }
}
