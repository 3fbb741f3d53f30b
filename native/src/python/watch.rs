//! `Health` and `StallDetector`: who looks at a worker process from outside Python, as Python sees them.
//!
//! Owns: when they start and end. Must not know: what they look at.

use std::collections::HashSet;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::engine::events::Inbox;
use crate::engine::health;
use crate::engine::hub::State;
use crate::engine::observer::Observer;
use crate::engine::stalls::{self, Stall};
use crate::engine::worker::Worker;

/// A future of the I/O thread, ended with its owner; in a forked child nothing of it is touched.
struct Running {
    open: ManuallyDrop<(Arc<State>, AbortHandle)>,
}

impl Running {
    fn new(state: Arc<State>, task: AbortHandle) -> Self {
        Self { open: ManuallyDrop::new((state, task)) }
    }

    fn is_mine(&self) -> bool {
        self.open.0.is_mine()
    }

    fn end(&self) {
        if self.is_mine() {
            self.open.1.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_mine() {
            self.open.1.abort();
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.open) };
        }
    }
}

/// A socket by its number, and by what tells it from a later one of that number.
struct Socket {
    descriptor: RawFd,
    inode: Option<libc::ino_t>,
}

/// Of what is open under this number.
fn inode(descriptor: RawFd) -> Option<libc::ino_t> {
    let mut status = MaybeUninit::uninit();
    // SAFETY: `fstat` fills the whole of `status` where it answers 0, and refuses a number that is not open.
    unsafe { (libc::fstat(descriptor, status.as_mut_ptr()) == 0).then(|| status.assume_init().st_ino) }
}

/// Probes and metrics over HTTP, for as long as it lives.
#[pyclass(frozen, module = "ardiq._core")]
pub struct Health {
    running: Running,
    address: SocketAddr,
    listener: Socket,
    health: ManuallyDrop<Arc<health::Health>>,
}

impl Health {
    pub(crate) fn start(state: Arc<State>, host: &str, port: u16) -> PyResult<Self> {
        state.start_thread()?;
        let (listener, address) = health::bind(host, port).map_err(os_error)?;
        let socket = Socket { descriptor: listener.as_raw_fd(), inode: inode(listener.as_raw_fd()) };
        let health = Arc::<health::Health>::default();
        let task = state.spawn(health::serve(listener, health.clone()));
        let running = Running::new(state, task);
        Ok(Self { running, address, listener: socket, health: ManuallyDrop::new(health) })
    }

    pub(super) fn watch(&self, queue: String, worker: Worker) {
        self.health.watch(queue, worker);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if self.running.is_mine() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.health) };
        }
    }
}

#[pymethods]
impl Health {
    /// Where it listens.
    #[getter]
    fn address(&self) -> String {
        self.address.to_string()
    }

    fn close(&self) {
        self.running.end();
    }

    /// In a forked child: leaves the port to the parent and who comes after it.
    fn after_fork(&self) {
        // Closed before, by this process's parent or a call like this one in it, its number may be of another file by now.
        if !self.running.is_mine()
            && self.listener.inode.is_some()
            && inode(self.listener.descriptor) == self.listener.inode
        {
            // SAFETY: nothing in this process knows of it: its owner is a copy that nobody touches.
            unsafe { libc::close(self.listener.descriptor) };
        }
    }
}

/// Looks whether an event loop turns, for as long as it lives.
#[pyclass(frozen, module = "ardiq._core")]
pub struct StallDetector {
    running: Running,
    stall: ManuallyDrop<Arc<Stall>>,
}

impl StallDetector {
    pub(super) fn start(state: Arc<State>, inbox: Arc<Inbox>, after_ms: u64, most_ms: Option<u64>) -> Self {
        let stall = Arc::<Stall>::default();
        let most = most_ms.map(Duration::from_millis);
        let watching = stalls::watch(inbox, stall.clone(), Duration::from_millis(after_ms), most);
        let task = state.spawn(watching);
        Self { running: Running::new(state, task), stall: ManuallyDrop::new(stall) }
    }

    pub(super) fn stall(&self) -> Arc<Stall> {
        Arc::clone(&self.stall)
    }
}

impl Drop for StallDetector {
    fn drop(&mut self) {
        if self.running.is_mine() {
            self.stall.end();
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.stall) };
        }
    }
}

#[pymethods]
impl StallDetector {
    /// Blocks until the loop is stalled; for how many seconds it has been, or None when the time is over.
    fn wait(&self, py: Python<'_>, timeout_ms: u64) -> PyResult<Option<f64>> {
        if !self.running.is_mine() {
            return Err(PyRuntimeError::new_err("this watch belongs to the parent process"));
        }
        let stalled = py.detach(|| self.stall.wait(Duration::from_millis(timeout_ms)));
        if stalled.is_some() {
            self.stall.seen();
        }
        Ok(stalled.map(|stalled| stalled.as_secs_f64()))
    }

    #[getter]
    fn ended(&self) -> bool {
        !self.running.is_mine() || self.stall.has_ended()
    }

    fn close(&self) {
        if self.running.is_mine() {
            self.running.end();
            self.stall.end();
        }
    }
}

/// With the system's number, where it has one, so that Python makes it the class that it is.
fn os_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}

/// Who counts for a worker that runs these tasks.
pub(super) fn observer(tasks: Vec<String>) -> Arc<Observer> {
    Arc::new(Observer::new(tasks.into_iter().map(String::into_bytes).collect::<HashSet<_>>()))
}
