//! `Core`: what Python holds of one server and one queue. Owns when the runtime starts, ends and is
//! forgotten; knows no function.

use std::future::Future;
use std::sync::Arc;

use pyo3::prelude::*;
use tokio::task::JoinHandle;

use crate::bridge::Channel;
use crate::dispatch::Dispatcher;
use crate::runtime::Runtime;

/// Connections to one server for one queue; thread-safe; connects when first used.
#[pyclass(frozen, module = "ardiq._core")]
pub struct Core {}

/// What lives between two forks: the runtime and the connections on it.
pub struct State {
    pub runtime: Runtime,
    pub dispatcher: Dispatcher,
}

impl Core {
    /// The live state of this process; starts the runtime when there is none or when it is that of
    /// the parent process. Call it attached to Python (the GIL is what guards it).
    ///
    /// # Errors
    /// As [`Runtime::start`].
    pub fn state(&self) -> PyResult<Arc<State>> {
        todo!()
    }

    /// Runs `future` on the runtime's thread.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub fn spawn<F>(&self, future: F) -> PyResult<JoinHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Ok(self.state()?.runtime.spawn(future))
    }
}

#[pymethods]
impl Core {
    fn channel(slf: &Bound<'_, Self>) -> PyResult<Channel> {
        Channel::open(slf)
    }
}
