//! The one thread a `Core` does its I/O on, and what fork and exit do to it.
//! Nothing that runs here may touch Python.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::error::Error;

/// A current-thread tokio runtime on a thread of its own. Dropping it tells the thread to stop,
/// without waiting.
pub struct Runtime {}

impl Runtime {
    /// # Errors
    /// [`Error::Broker`] when the system gives no thread or no descriptor.
    pub fn start() -> Result<Self, Error> {
        todo!()
    }

    /// Runs `future` on the thread; from any thread, attached to Python or not.
    pub fn spawn<F>(&self, _future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        todo!()
    }

    /// Whether this process started it: a forked child has the handle, but not the thread.
    pub fn is_mine(&self) -> bool {
        todo!()
    }

    /// Drops every task and waits up to `timeout` for the thread to end; whether it did.
    pub fn stop(&self, _timeout: Duration) -> bool {
        todo!()
    }
}
