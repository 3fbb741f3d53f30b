//! `Inbox`: what happened, for one event loop, as Python is told it.
//!
//! Owns: turning events into tuples, and the turns of a loop. Must not know: what any function does. No lock is held
//! while Python objects are made.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use redis::Value;

use super::convert::{exception, to_python};
use crate::engine::events::{Event, Inbox, Level};
use crate::engine::process;
use crate::engine::producer::Alone;
use crate::engine::turns::Turns;
use crate::wire::clock::Instant;
use crate::wire::error::Error;
use crate::wire::reactor::Watch;

/// What happened, for one event loop.
#[pyclass(name = "Inbox", frozen, module = "ardiq._core")]
pub struct PyInbox {
    pid: u32,
    /// Dropped by the process that made it only: a forked child must not touch what it shares with threads it does not
    /// have.
    inbox: ManuallyDrop<Owned>,
}

pub(super) struct Owned {
    pub inbox: Inbox,
    /// Where the loop does its own I/O.
    pub turns: OnceLock<Turns>,
    pub alone: Arc<Alone>,
    /// Sockets that the loop is told to let go of.
    closing: Mutex<Vec<OwnedFd>>,
}

impl PyInbox {
    pub(super) fn live(&self) -> PyResult<&Owned> {
        if self.pid == process::id() { Ok(&self.inbox) } else { Err(of_parent("inbox")) }
    }
}

impl Drop for PyInbox {
    fn drop(&mut self) {
        if self.pid == process::id() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.inbox) };
        }
    }
}

#[pymethods]
impl PyInbox {
    #[new]
    fn new() -> PyResult<Self> {
        let (turns, alone, closing) = (OnceLock::new(), Arc::default(), Mutex::default());
        let owned = Owned { inbox: Inbox::new()?, turns, alone, closing };
        Ok(Self { pid: process::id(), inbox: ManuallyDrop::new(owned) })
    }

    fn fileno(&self) -> PyResult<i32> {
        Ok(self.live()?.inbox.fileno())
    }

    fn drive(&self) -> PyResult<()> {
        let owned = self.live()?;
        if owned.turns.get().is_none() {
            let _ = owned.turns.set(Turns::new(owned.inbox.of(0))?);
        }
        Ok(())
    }

    #[pyo3(signature = (readable = None, writable = None))]
    fn turn<'py>(
        &self,
        py: Python<'py>,
        readable: Option<i32>,
        writable: Option<i32>,
    ) -> PyResult<(Bound<'py, PyList>, Option<f64>)> {
        let owned = self.live()?;
        let Some(turns) = owned.turns.get() else { return Ok((self.take(py)?, None)) };
        if readable == Some(owned.inbox.fileno()) {
            owned.inbox.clear();
        }
        owned.inbox.begin_turn();
        if let Some(descriptor) = readable.filter(|descriptor| !owned.alone.readable(*descriptor)) {
            turns.reactor().readable(descriptor);
        }
        if let Some(descriptor) = writable {
            turns.reactor().writable(descriptor);
        }
        owned.alone.look_after();
        let due = turns.turn().map(|due| due.saturating_duration_since(Instant::now()).as_secs_f64());
        let events = owned.inbox.take_turning();
        let mut items = Vec::with_capacity(events.len());
        for wish in turns.reactor().wishes() {
            let (what, descriptor) = match wish {
                Watch::Read(descriptor) => ("read", descriptor),
                Watch::Pause(descriptor) => ("pause", descriptor),
                Watch::Write(descriptor) => ("write", descriptor),
                Watch::Close(socket) => {
                    let descriptor = socket.as_raw_fd();
                    lock(&owned.closing).push(socket);
                    ("close", descriptor)
                }
            };
            items.push(("watch", descriptor, what).into_pyobject(py)?);
        }
        Ok((tell(py, events, items)?, due))
    }

    /// The loop does not watch that one any more. Of others it may still be told.
    fn release(&self, descriptor: i32) -> PyResult<()> {
        lock(&self.live()?.closing).retain(|socket| socket.as_raw_fd() != descriptor);
        Ok(())
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        tell(py, self.live()?.inbox.take(), Vec::new())
    }

    fn wait(&self, py: Python<'_>, timeout_ms: u64) -> PyResult<bool> {
        let inbox = &self.live()?.inbox;
        Ok(py.detach(|| inbox.wait(Duration::from_millis(timeout_ms))))
    }

    fn wake(&self) -> PyResult<()> {
        self.live()?.inbox.wake();
        Ok(())
    }
}

/// Events as the tuples that Python is told, behind `items`.
fn tell<'py>(
    py: Python<'py>,
    events: Vec<(u64, Event)>,
    mut items: Vec<Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyList>> {
    for (number, event) in events {
        if let Err(error) = describe(py, number, event, &mut items) {
            // The others must not be lost with it.
            let line = format!("an event cannot be told: {error}");
            let told = ("log", Level::Error as i32, line).into_pyobject(py)?;
            items.push(("other", number, told).into_pyobject(py)?);
        }
    }
    PyList::new(py, items)
}

/// The tuples an event becomes.
fn describe<'py>(py: Python<'py>, number: u64, event: Event, items: &mut Vec<Bound<'py, PyTuple>>) -> PyResult<()> {
    let answer = match event {
        Event::Replies { tickets, values } => return describe_replies(py, tickets, values, items),
        Event::Failures { tickets, error } => {
            for ticket in tickets {
                items.push(("error", ticket, exception(py, error.clone())).into_pyobject(py)?);
            }
            return Ok(());
        }
        Event::Reply { ticket, value } => match to_python(py, value) {
            Ok(object) => ("reply", ticket, object).into_pyobject(py)?,
            Err(error) => ("error", ticket, error.into_value(py)).into_pyobject(py)?,
        },
        Event::Failure { ticket, error } => ("error", ticket, exception(py, error)).into_pyobject(py)?,
        Event::Partly { ticket, error, accepted } => {
            ("error", ticket, partly(py, error, accepted)?).into_pyobject(py)?
        }
        other => ("other", number, describe_other(py, other)?).into_pyobject(py)?,
    };
    items.push(answer);
    Ok(())
}

/// What is no answer to a call.
fn describe_other(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    Ok(match event {
        Event::Message(fields) => {
            let fields = PyList::new(py, fields.iter().map(|field| PyBytes::new(py, field)))?;
            ("message", fields).into_pyobject(py)?
        }
        Event::Listening(mailbox) => ("listening", mailbox).into_pyobject(py)?,
        Event::Joined(identity) => ("joined", identity).into_pyobject(py)?,
        Event::Tasks => ("tasks",).into_pyobject(py)?,
        Event::Abort(token) => ("abort", token).into_pyobject(py)?,
        Event::Outbox => ("outbox",).into_pyobject(py)?,
        Event::Settled { id, token, what, refused } => {
            ("settled", text(&id), token, text(&what), refused).into_pyobject(py)?
        }
        Event::Stuck { id, reason } => ("stuck", text(&id), text(&reason)).into_pyobject(py)?,
        Event::Lost { message, up_to } => ("lost", message, up_to).into_pyobject(py)?,
        Event::Log(level, line) => ("log", level as i32, line).into_pyobject(py)?,
        Event::Idle => ("idle",).into_pyobject(py)?,
        Event::Failed(error) => ("failed", exception(py, error)).into_pyobject(py)?,
        Event::Stopped => ("worker", "stopped").into_pyobject(py)?,
        answer => unreachable!("told where answers are: {answer:?}"),
    })
}

/// The exception of a batch of which some calls failed: `accepted` has what the others answered.
pub fn partly(py: Python<'_>, error: Error, accepted: Vec<Option<Value>>) -> PyResult<Bound<'_, PyAny>> {
    let values = accepted.into_iter().map(|value| to_python(py, value.unwrap_or(Value::Nil)));
    let exception = exception(py, error);
    exception.setattr("accepted", PyList::new(py, values.collect::<PyResult<Vec<_>>>()?)?)?;
    Ok(exception)
}

/// One tuple a record. Most answers are the one before again.
fn describe_replies<'py>(
    py: Python<'py>,
    tickets: Vec<u64>,
    values: Vec<Value>,
    items: &mut Vec<Bound<'py, PyTuple>>,
) -> PyResult<()> {
    let reply = intern!(py, "reply");
    let mut before: Option<(Value, Bound<'py, PyAny>)> = None;
    for (ticket, value) in tickets.into_iter().zip(values) {
        let tuple = match &before {
            Some((same, object)) if *same == value => (reply, ticket, object).into_pyobject(py)?,
            _ if matches!(value, Value::ServerError(_)) => {
                ("error", ticket, to_python(py, value)?).into_pyobject(py)?
            }
            _ => match to_python(py, value.clone()) {
                Ok(object) => {
                    let tuple = (reply, ticket, &object).into_pyobject(py)?;
                    before = Some((value, object));
                    tuple
                }
                Err(error) => ("error", ticket, error.into_value(py)).into_pyobject(py)?,
            },
        };
        items.push(tuple);
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn of_parent(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!("this {what} belongs to the parent process; open a new one"))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
