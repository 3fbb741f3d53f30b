//! The one thread a `Core` does its I/O on, and what fork and exit do to it.
//! Nothing that runs here may touch Python.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::wire::error::Error;

/// A current-thread tokio runtime on a thread of its own. Dropping it tells the thread to stop,
/// without waiting.
pub struct Runtime {
    pid: u32,
    // In a forked child the thread does not exist, but locks it held at the fork stay locked:
    // there, nothing of this may be touched, not even to drop it.
    inner: ManuallyDrop<Inner>,
}

struct Inner {
    handle: Handle,
    stop: Arc<Notify>,
    ended: Arc<(Mutex<bool>, Condvar)>,
}

impl Runtime {
    /// # Errors
    /// [`Error::Broker`] when the system gives no thread or no descriptor.
    pub fn start() -> Result<Self, Error> {
        let refused = |e: std::io::Error| Error::broker(format!("cannot start the I/O thread: {e}"), false);
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Only name resolution runs on these.
            .max_blocking_threads(2)
            .thread_name("ardiq-dns")
            .build()
            .map_err(refused)?;
        let handle = runtime.handle().clone();
        let stop = Arc::new(Notify::new());
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let (told, end) = (stop.clone(), ended.clone());
        std::thread::Builder::new()
            .name("ardiq-io".to_owned())
            .spawn(move || {
                runtime.block_on(told.notified());
                // Drops the tasks; does not wait for a name that is just being resolved.
                runtime.shutdown_background();
                *end.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                end.1.notify_all();
            })
            .map_err(refused)?;
        Ok(Self { pid: std::process::id(), inner: ManuallyDrop::new(Inner { handle, stop, ended }) })
    }

    /// Runs `future` on the thread; from any thread, attached to Python or not. After
    /// [`stop`](Self::stop) the future is dropped unrun.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.inner.handle.spawn(future)
    }

    /// Whether this process started it: a forked child has the handle, but not the thread.
    pub fn is_mine(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Drops every task and waits up to `timeout` for the thread to end; whether it did.
    pub fn stop(&self, timeout: Duration) -> bool {
        if !self.is_mine() {
            return true;
        }
        self.inner.stop.notify_one();
        let (ended, changed) = &*self.inner.ended;
        let guard = ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, timeout, |ended| !*ended);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_futures_until_it_is_stopped() {
        let runtime = Runtime::start().unwrap();
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
}
