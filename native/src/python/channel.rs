//! `Channel`: one queue on one event loop, as Python sees it.
//!
//! Owns: the calls that wait for the end of the loop's turn. Must not know: what any function does. Nothing that goes to
//! the I/O thread holds a Python object.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::task::AbortHandle;

use super::convert::{from_python, push_all};
use super::inbox::{PyInbox, lock, of_parent};
use super::watch::StallDetector;
use super::worker::Worker;
use crate::engine::events::{Event, Inbox, Unanswered};
use crate::engine::hub::{State, Way};
use crate::engine::mailbox;
use crate::engine::producer::{self, Alone, Chunk, Outgoing, Pending};
use crate::engine::turns::{Loop, Turns};
use crate::lua::protocol::{Function, Protocol};
use crate::wire::clock::Instant;
use crate::wire::error::Error;

/// One queue on one event loop: calls to make, whose answers come to the loop's inbox.
#[pyclass(frozen, module = "ardiq._core")]
pub struct Channel {
    /// As the inbox's.
    open: ManuallyDrop<Open>,
}

struct Open {
    state: Arc<State>,
    inbox: Arc<Inbox>,
    /// The way its calls go now, and the chunks that wait there.
    way: Mutex<(Way, Arc<Outgoing>)>,
    /// The loop that drives it.
    of_loop: Option<Loop>,
    alone: Arc<Alone>,
    pending: Mutex<Pending>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Channel {
    pub(crate) fn open(state: Arc<State>, inbox: &PyInbox, number: u64) -> PyResult<Self> {
        let owned = inbox.live()?;
        let inbox = Arc::new(owned.inbox.of(number));
        let turns = owned.turns.get();
        let way = state.way(turns)?;
        let outgoing = Arc::new(Outgoing::new(way.dispatcher.clone(), inbox.clone()));
        let of_loop = turns.map(Turns::of_loop);
        let way = Mutex::new((way, outgoing));
        let alone = owned.alone.clone();
        let (pending, tasks) = (Mutex::default(), Mutex::default());
        let open = Open { state, inbox, way, of_loop, alone, pending, tasks };
        Ok(Self { open: ManuallyDrop::new(open) })
    }

    fn live(&self) -> PyResult<&Open> {
        if self.open.state.is_mine() { Ok(&self.open) } else { Err(of_parent("channel")) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.open.state.is_mine() {
            self.open.end();
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.open) };
        }
    }
}

impl Open {
    /// How the next call goes. What happened meanwhile, such as the end of a connection, is seen before it.
    fn way(&self) -> Result<(Way, Arc<Outgoing>), Error> {
        let mut way = lock(&self.way);
        if self.state.is_left(&way.0) {
            let threaded = self.state.way(None)?;
            let outgoing = Arc::new(Outgoing::new(threaded.dispatcher.clone(), self.inbox.clone()));
            *way = (threaded, outgoing);
        }
        if let Some(of_loop) = self.of_loop.as_ref().filter(|_| way.0.is_driven()) {
            self.alone.join();
            of_loop.reactor().look();
        }
        Ok(way.clone())
    }

    /// Whether the loop has to take a turn for it.
    fn send(&self, chunks: Vec<Chunk>) -> Result<bool, Error> {
        let (way, outgoing) = self.way()?;
        for _ in 0..outgoing.line_up(chunks) {
            self.state.spawn_on(&way, outgoing.clone().send());
        }
        Ok(way.is_driven())
    }

    /// The same, where they may leave alone; gives in how many seconds the loop has to take a turn.
    fn send_alone(&self, chunks: Vec<Chunk>) -> Result<Option<f64>, Error> {
        let (way, outgoing) = lock(&self.way).clone();
        let chunks = match &self.of_loop {
            Some(of_loop) if way.is_driven() && !self.state.is_left(&way) => {
                match self.alone.send(chunks, &outgoing, of_loop.reactor(), way.handle(), self.state.closed()) {
                    Ok(due) => return Ok(Some(due.saturating_duration_since(Instant::now()).as_secs_f64())),
                    Err(chunks) => chunks,
                }
            }
            _ => chunks,
        };
        Ok(self.send(chunks)?.then_some(0.0))
    }

    fn end(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.iter().for_each(AbortHandle::abort);
        lock(&self.pending).discard(&self.inbox);
    }
}

#[pymethods]
impl Channel {
    #[pyo3(signature = (ticket, function, args, repeat = false))]
    fn call(&self, ticket: u64, function: &str, args: &Bound<'_, PyAny>, repeat: bool) -> PyResult<bool> {
        let open = self.live()?;
        let args = from_python(args)?;
        let (way, _) = open.way()?;
        let dispatcher = way.dispatcher.clone();
        let mut request = dispatcher.request(function)?;
        for arg in args.iter() {
            request.arg(arg);
        }
        let inbox = open.inbox.clone();
        open.state.spawn_on(&way, async move {
            let unanswered = Unanswered::new(|error| inbox.push(Event::Failure { ticket, error }));
            let answer = dispatcher.deliver(&request, repeat).await;
            unanswered.answered();
            inbox.push(match answer {
                Ok(value) => Event::Reply { ticket, value },
                Err(error) => Event::Failure { ticket, error },
            });
        });
        Ok(way.is_driven())
    }

    #[pyo3(signature = (ticket, function, record, repeat = true))]
    fn submit(&self, ticket: u64, function: &str, record: &Bound<'_, PyAny>, repeat: bool) -> PyResult<()> {
        let open = self.live()?;
        let function = declared(function)?;
        // Reading a tuple or a list runs no Python code, so the lock cannot be asked for twice.
        lock(&open.pending).submit(function, repeat, ticket, |args| push_all(args, record))
    }

    fn flush(&self) -> PyResult<Option<f64>> {
        let open = self.live()?;
        let chunks = lock(&open.pending).take();
        Ok(open.send_alone(chunks)?)
    }

    #[pyo3(signature = (ticket, function, records, repeat = true))]
    fn submit_many(&self, ticket: u64, function: &str, records: &Bound<'_, PyAny>, repeat: bool) -> PyResult<bool> {
        let open = self.live()?;
        let records = from_python(records)?;
        let chunks = producer::split(declared(function)?, repeat, ticket, &records)?;
        let before = lock(&open.pending).take();
        open.send(before)?;
        Ok(open.send(chunks)?)
    }

    /// Makes the queue known at the server, without waiting for it.
    fn register(&self) -> PyResult<bool> {
        let open = self.live()?;
        let (way, _) = open.way()?;
        open.state.register(Some(&way));
        Ok(way.is_driven())
    }

    fn listen(&self, mailbox: String) -> PyResult<bool> {
        let open = self.live()?;
        let (way, _) = open.way()?;
        let listening = mailbox::listen(way.dispatcher.clone(), open.inbox.clone(), mailbox, way.reader.clone());
        lock(&open.tasks).push(open.state.spawn_on(&way, listening));
        Ok(way.is_driven())
    }

    fn worker(&self, config: &Bound<'_, PyDict>) -> PyResult<Worker> {
        let open = self.live()?;
        // A busy loop must not stop a lease.
        open.state.start_thread()?;
        Worker::new(open.state.clone(), open.inbox.clone(), open.of_loop.clone(), config)
    }

    #[pyo3(signature = (after_ms, most_ms = None))]
    fn detect_stalls(&self, after_ms: u64, most_ms: Option<u64>) -> PyResult<StallDetector> {
        let open = self.live()?;
        open.state.start_thread()?;
        Ok(StallDetector::start(open.state.clone(), open.inbox.clone(), after_ms, most_ms))
    }

    fn close(&self) {
        if self.open.state.is_mine() {
            self.open.end();
        }
    }
}

fn declared(function: &str) -> Result<&'static Function, Error> {
    Protocol::get().function(function)
}
