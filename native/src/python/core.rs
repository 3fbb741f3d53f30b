//! `Core`: what Python holds of one queue of one server. Knows no function.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use redis::Value;

use super::channel::Channel;
use super::convert::{from_python, to_python};
use super::inbox::{PyInbox, partly};
use super::watch::Health;
use crate::call::dispatch::{Dispatcher, Request};
use crate::call::migrate::{self, Status};
use crate::call::schema;
use crate::engine::events::{Event, Inbox};
use crate::engine::health;
use crate::engine::hub::{Hub, Running, State};
use crate::engine::producer;
use crate::lua::library::Library;
use crate::lua::protocol::Protocol;
use crate::wire::address::Place;
use crate::wire::clock::Instant;
use crate::wire::connection::cluster::{View, slot_of};
use crate::wire::connection::{Begun, Options};
use crate::wire::error::Error;

/// How long a wait may keep Ctrl-C from being noticed.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// One queue of one server; thread-safe; connects when first used.
#[pyclass(frozen, module = "ardiq._core")]
pub struct Core {
    hub: Arc<Hub>,
    base: String,
    // Taken as the hub's is.
    state: Mutex<Option<Arc<State>>>,
}

impl Core {
    fn of(hub: Arc<Hub>, base: String) -> Self {
        Self { hub, base, state: Mutex::new(None) }
    }

    /// The live state of this process. Call it attached to Python. What it fails with becomes an exception at the caller,
    /// not under the lock: that runs Python, which may let another thread on that waits for the lock.
    ///
    /// # Errors
    /// As [`Hub::enter`].
    pub fn state(&self) -> Result<Arc<State>, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = state.as_ref().filter(|state| state.is_mine()) {
            return Ok(state.clone());
        }
        let entered = Arc::new(self.hub.enter(&self.base)?);
        // Not dropped: the count of its `Arc` may be off by what other threads held.
        std::mem::forget(state.replace(entered.clone()));
        Ok(entered)
    }

    fn leave(&self) -> Option<Arc<Running>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        if state.is_mine() {
            return self.hub.leave(&state);
        }
        std::mem::forget(state);
        None
    }

    fn prefix(&self) -> String {
        Protocol::of_base(&self.base).0.to_owned()
    }

    /// Runs what `work` makes of the dispatcher on this thread and waits for it, detached from Python except to see whether
    /// a signal came.
    fn wait<T: Send, F>(&self, py: Python<'_>, work: impl FnOnce(Dispatcher) -> F) -> PyResult<T>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        Self::wait_on(&*self.state()?, py, work)
    }

    /// The same for a call that has begun: closed meanwhile, it does not begin anew.
    fn wait_on<T: Send, F>(state: &State, py: Python<'_>, work: impl FnOnce(Dispatcher) -> F) -> PyResult<T>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let mut work = std::pin::pin!(state.call(work(state.dispatcher())));
        loop {
            let work = work.as_mut();
            if let Some(result) = py.detach(move || state.drive(work, SIGNAL_CHECK))? {
                return Ok(result?);
            }
            py.check_signals()?;
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.leave();
    }
}

#[pymethods]
impl Core {
    #[new]
    #[pyo3(signature = (url, base, *, connect_timeout_ms = 2000, broker_timeout_ms = 5000, response_timeout_ms = 10000, replicated = false))]
    fn new(
        url: &str,
        base: String,
        connect_timeout_ms: u64,
        broker_timeout_ms: u64,
        response_timeout_ms: u64,
        replicated: bool,
    ) -> PyResult<Self> {
        let options = Options {
            connect_timeout: Duration::from_millis(connect_timeout_ms),
            broker_timeout: Duration::from_millis(broker_timeout_ms),
            response_timeout: Duration::from_millis(response_timeout_ms),
        };
        // Composed here, while no other thread can fork: a child must not find it half done.
        Library::get();
        let hub = Hub::shared(url, Protocol::of_base(&base).0, options, replicated)?;
        Ok(Self::of(hub, base))
    }

    /// Calls a library function and waits for its reply. `repeat`: ask again when the reply is lost. `within_ms`: where the
    /// caller has less time than a call may take.
    #[pyo3(signature = (function, args, repeat = false, within_ms = None))]
    fn call<'py>(
        &self,
        py: Python<'py>,
        function: &str,
        args: &Bound<'py, PyAny>,
        repeat: bool,
        within_ms: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let state = self.state()?;
        let dispatcher = state.dispatcher();
        let mut request = dispatcher.request(function)?;
        for arg in from_python(args)?.iter() {
            request.arg(arg);
        }
        let deadline = dispatcher.deadline(within_ms.map_or(Duration::MAX, Duration::from_millis));
        let begun = match by_hand(py, &state, &request, deadline) {
            Some(Ok(reply)) => return to_python(py, reply?),
            Some(Err(begun)) => Some(begun),
            None => None,
        };
        // One may be why there is no answer yet. What it has called may use the connection.
        py.check_signals()?;
        let reply = Self::wait_on(&state, py, |dispatcher| async move {
            dispatcher.deliver_begun(deadline, &request, repeat, begun).await
        })?;
        to_python(py, reply)
    }

    /// Calls a function with many records, in chunks, and waits for the answers, one a record.
    #[pyo3(signature = (function, records, repeat = true))]
    fn call_many<'py>(
        &self,
        py: Python<'py>,
        function: &str,
        records: &Bound<'py, PyAny>,
        repeat: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let chunks = producer::split(Protocol::get().function(function)?, repeat, 0, &from_python(records)?)?;
        let inbox = Arc::new(Inbox::new()?);
        match self.wait(py, |dispatcher| producer::send(dispatcher, inbox, chunks))? {
            Event::Partly { error, accepted, .. } => Err(PyErr::from_value(partly(py, error, accepted)?)),
            Event::Reply { value, .. } => to_python(py, value),
            other => unreachable!("no answer of a batch: {other:?}"),
        }
    }

    /// Sends a raw command and waits for its answer.
    fn command<'py>(&self, py: Python<'py>, args: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let mut cmd = redis::Cmd::new();
        for arg in from_python(args)?.iter() {
            cmd.arg(arg);
        }
        if cmd.args_iter().len() == 0 {
            return Err(PyValueError::new_err("an empty command"));
        }
        let answer = self.wait(py, |dispatcher| async move { dispatcher.link().query(&cmd).await })?;
        to_python(py, answer)
    }

    #[pyo3(signature = (inbox, number = 0))]
    fn channel(&self, inbox: &PyInbox, number: u64) -> PyResult<Channel> {
        Channel::open(self.state()?, inbox, number)
    }

    /// Makes the queue known at the server, without waiting for it.
    fn register(&self) -> PyResult<()> {
        self.state()?.register(None);
        Ok(())
    }

    fn health(&self, host: &str, port: u16) -> PyResult<Health> {
        Health::start(self.state()?, host, port)
    }

    /// The metrics of these queues, as a worker's `/metrics` has them, asked one after the other.
    #[staticmethod]
    fn metrics(py: Python<'_>, queues: Vec<(String, Py<Self>)>) -> PyResult<String> {
        let ask = |(name, core): (String, Py<Self>)| {
            let state = core.get().wait(py, |dispatcher| async move { Ok(health::in_time(&dispatcher).await) })?;
            Ok((name, state))
        };
        let told: Vec<_> = queues.into_iter().map(ask).collect::<PyResult<_>>()?;
        Ok(health::render_queues(&told))
    }

    /// The server's URL without its password.
    #[getter]
    fn url(&self) -> &str {
        self.hub.connector().describe()
    }

    /// What the server is and where, such as `("Redis 7.0.15", "localhost:6379")`.
    fn server(&self, py: Python<'_>) -> PyResult<(String, String)> {
        self.wait(py, |dispatcher| async move {
            let connection = dispatcher.link().connection().await?;
            Ok((connection.server().to_string(), connection.place().to_string()))
        })
    }

    /// Where each primary of a cluster is, whether it holds the queue, and a core for it alone.
    fn primaries(&self, py: Python<'_>) -> PyResult<Vec<(String, bool, Self)>> {
        let (connector, base) = (self.hub.connector().anywhere(), self.base.clone());
        let places = self.wait(py, |dispatcher| async move {
            let primaries = async {
                let node = connector.connect().await?;
                if !node.server().cluster {
                    return Ok(Vec::new());
                }
                let view = View::ask(&node).await?;
                let owner = view.owner(slot_of(&base)).map(|owner| &owner.id);
                let places = view.shards.iter().map(|shard| (shard.place.clone(), Some(&shard.id) == owner));
                let mut places: Vec<_> = places.collect();
                places.sort_by_key(|(_, holds_queue)| !holds_queue);
                Ok(places)
            };
            dispatcher.link().connector().in_time(primaries).await
        })?;
        let primary = |(place, holds_queue): (Place, bool)| {
            (place.to_string(), holds_queue, Self::of(self.hub.only(place), self.base.clone()))
        };
        Ok(places.into_iter().map(primary).collect())
    }

    /// Refuses, with `LibraryError`, a server whose eviction policy could throw away tasks.
    fn check_eviction(&self, py: Python<'_>) -> PyResult<()> {
        self.wait(py, |dispatcher| async move {
            let link = dispatcher.link();
            link.connector().in_time(async { schema::check_eviction(&link.connection().await?).await }).await
        })
    }

    fn migrate_status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let prefix = self.prefix();
        let status = self.wait(py, |dispatcher| async move { migrate::status(dispatcher.link(), &prefix).await })?;
        status_to_python(py, &status)
    }

    #[pyo3(signature = (*, to = None, force = false))]
    fn migrate_apply(&self, py: Python<'_>, to: Option<u32>, force: bool) -> PyResult<Vec<String>> {
        let prefix = self.prefix();
        self.wait(py, move |dispatcher| async move { migrate::apply(dispatcher.link(), &prefix, to, force).await })
    }

    #[pyo3(signature = (*, force = false))]
    fn migrate_prune(&self, py: Python<'_>, force: bool) -> PyResult<Vec<String>> {
        let prefix = self.prefix();
        self.wait(py, move |dispatcher| async move { migrate::prune(dispatcher.link(), &prefix, force).await })
    }

    /// Every queue of the server, as prefix and name.
    fn queues(&self, py: Python<'_>) -> PyResult<Vec<(String, String)>> {
        self.wait(py, |dispatcher| async move { migrate::queues(dispatcher.link()).await })
    }

    /// Lets go of the connections, which end with the last queue that is closed; waits for that no longer than
    /// `timeout_ms`. Used again, it connects anew.
    #[pyo3(signature = (timeout_ms = 1000))]
    fn close(&self, py: Python<'_>, timeout_ms: u64) {
        if let Some(last) = self.leave() {
            py.detach(|| last.stop(Duration::from_millis(timeout_ms)));
        }
    }

    /// In a forked child: forgets the parent's connections without a word on them.
    fn after_fork(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.as_ref().is_some_and(|state| !state.is_mine()) {
            // Not dropped: see `state`.
            std::mem::forget(state.take());
        }
    }
}

/// Makes the first try of a call on this thread alone, where the connection is free for that; waits no longer than a
/// signal may.
fn by_hand(
    py: Python<'_>,
    state: &State,
    request: &Request,
    deadline: Instant,
) -> Option<Result<Result<Value, Error>, Begun>> {
    let mut direct = state.direct(request)?;
    let command = request.packed();
    let answer = py.detach(|| {
        if let Err(error) = direct.send(&command) {
            return Some(Err(error));
        }
        direct.wait(SIGNAL_CHECK.min(deadline.saturating_duration_since(Instant::now())));
        direct.receive()
    });
    Some(state.dispatcher().conclude_direct(request, direct, answer))
}

/// The library of this build: payload and SHA1.
#[pyfunction]
pub fn library() -> (String, &'static str) {
    (Library::get().payload(), Library::get().sha1())
}

/// What `lua/` makes, which is the library unless that was released as another one.
#[pyfunction]
pub fn composed() -> String {
    Library::get().composed()
}

/// One function as a script of its own: source and SHA1.
#[pyfunction]
pub fn script(function: &str) -> PyResult<(String, String)> {
    let script = Library::get().script(function)?;
    Ok((script.source, script.sha1))
}

/// A data step of `lua/migrations` as a script.
#[pyfunction]
pub fn migration(name: &str) -> PyResult<String> {
    Ok(Library::get().migration(name)?)
}

/// The commands of the server that one function may call.
#[pyfunction]
pub fn commands(function: &str) -> PyResult<Vec<String>> {
    Ok(Library::get().commands(function)?)
}

/// Give memory that was freed back to the system, where the C library keeps it until told.
#[pyfunction]
pub fn trim_memory(py: Python<'_>) {
    #[cfg(target_env = "gnu")]
    py.detach(|| {
        // SAFETY: it may be called at any time, from any thread.
        unsafe { libc::malloc_trim(0) };
    });
    #[cfg(not(target_env = "gnu"))]
    let _ = py;
}

fn status_to_python<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
    let installed = PyList::empty(py);
    for library in &status.installed {
        let entry = PyDict::new(py);
        entry.set_item("version", library.version)?;
        entry.set_item("sha1", &library.sha1)?;
        entry.set_item("state", library.state.name())?;
        entry.set_item("loaded_at", library.loaded_at)?;
        entry.set_item("package", &library.package)?;
        installed.append(entry)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("server", &status.server)?;
    dict.set_item("functions", status.no_functions.is_none())?;
    dict.set_item("no_functions", &status.no_functions)?;
    dict.set_item("installed", installed)?;
    dict.set_item("pending", &status.pending)?;
    dict.set_item("maxmemory_policy", &status.maxmemory_policy)?;
    dict.set_item("data_version", status.data_version)?;
    dict.set_item("dirty", &status.dirty)?;
    dict.set_item("lock", &status.lock)?;
    Ok(dict)
}
