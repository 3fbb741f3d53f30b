//! `Worker`: the I/O loop of a worker as Python sees it.
//!
//! Owns: turning claims into tuples and tuples into outcomes. Must not know: what an outcome means. No lock
//! is held while Python objects are made.

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyIndexError, PyKeyError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use tokio::task::AbortHandle;

use super::watch::{Health, StallDetector, observer};
use crate::engine::claims::Claim;
use crate::engine::events::Inbox;
use crate::engine::hub::State;
use crate::engine::outcomes::{Outcome, Outcomes};
use crate::engine::turns::Loop;
use crate::engine::worker::lanes::Lane;
use crate::engine::worker::pool;
use crate::engine::worker::{self, Config};

/// The I/O loop of one worker process: join, step, heartbeat, leave, off the GIL.
#[pyclass(frozen, module = "ardiq._core")]
pub struct Worker {
    /// Dropped by the process that made it only, as the channel's is.
    open: ManuallyDrop<Open>,
}

struct Open {
    state: Arc<State>,
    worker: worker::Worker,
    running: Mutex<Option<AbortHandle>>,
}

impl Worker {
    pub(super) fn new(
        state: Arc<State>,
        inbox: Arc<Inbox>,
        of_loop: Option<Loop>,
        config: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let health: Option<(Bound<'_, Health>, String, Vec<String>)> = item(config, "health")?.extract()?;
        let mut read = read_config(config)?;
        let watcher = health.map(|(health, queue, tasks)| {
            read.observer = Some(observer(tasks));
            (health, queue)
        });
        let worker = worker::Worker::new(state.dispatcher(), inbox, of_loop, read);
        if let Some((health, queue)) = watcher {
            health.get().watch(queue, worker.clone());
        }
        Ok(Self { open: ManuallyDrop::new(Open { state, worker, running: Mutex::default() }) })
    }

    fn live(&self) -> PyResult<&Open> {
        if self.open.state.is_mine() {
            Ok(&self.open)
        } else {
            Err(PyRuntimeError::new_err("this worker belongs to the parent process"))
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.open.state.is_mine() {
            self.open.abandon();
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.open) };
        }
    }
}

impl Open {
    fn abandon(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        running.iter().for_each(AbortHandle::abort);
        self.worker.end();
    }
}

#[pymethods]
impl Worker {
    #[getter]
    fn ended(&self) -> PyResult<bool> {
        Ok(self.live()?.worker.has_ended())
    }

    fn start(&self) -> PyResult<()> {
        let open = self.live()?;
        let mut running = open.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() || open.worker.has_ended() {
            return Err(PyRuntimeError::new_err("a worker starts once"));
        }
        *running = Some(open.state.spawn(open.worker.clone().run()));
        Ok(())
    }

    fn take<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let claims = self.live()?.worker.take(limit);
        let mut repeated = Repeated::default();
        let tuples: Vec<_> = claims.iter().map(|claim| describe(py, claim, &mut repeated)).collect::<PyResult<_>>()?;
        PyList::new(py, tuples)
    }

    fn take_thread<'py>(&self, py: Python<'py>, timeout_ms: u64) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let worker = &self.live()?.worker;
        // Where there is something, a thread keeps the GIL: handing it around costs more than the task.
        let claim = match worker.try_take_for_thread() {
            None => py.detach(|| worker.take_for_thread(Duration::from_millis(timeout_ms))),
            claim => claim,
        };
        claim.map(|claim| describe(py, &claim, &mut Repeated::default())).transpose()
    }

    fn settle(&self, outcomes: &Bound<'_, PyAny>) -> PyResult<()> {
        let open = self.live()?;
        let (mut read, mut run_ms, mut wrong) = (Outcomes::default(), 0, Ok(()));
        for outcome in outcomes.try_iter()? {
            // One that cannot be read must not take the others along.
            match outcome.and_then(|outcome| read_outcome(outcome.cast::<PyTuple>()?, &mut read)) {
                Ok(ran_ms) => run_ms += ran_ms,
                Err(error) => wrong = Err(error),
            }
        }
        open.worker.settle(read, run_ms);
        wrong
    }

    fn holder(&self, token: i64) -> PyResult<(String, i64)> {
        Ok(self.live()?.worker.holder(token))
    }

    fn occupy(&self, takes: bool) -> PyResult<()> {
        self.live()?.worker.occupy(takes);
        Ok(())
    }

    fn thread_runs_on(&self, token: i64, runs_on: bool) -> PyResult<()> {
        self.live()?.worker.thread_runs_on(token, runs_on);
        Ok(())
    }

    fn stop(&self) -> PyResult<()> {
        self.live()?.worker.stop();
        Ok(())
    }

    fn abandon(&self) {
        if self.open.state.is_mine() {
            self.open.abandon();
        }
    }
}

/// The slots that the queues of one process share.
#[pyclass(frozen, module = "ardiq._core")]
pub struct Pool {
    pool: Arc<pool::Pool>,
}

#[pymethods]
impl Pool {
    #[new]
    fn new(concurrency: usize, shares: Vec<usize>) -> PyResult<Self> {
        if concurrency < shares.len() || shares.contains(&0) {
            return Err(PyValueError::new_err("a queue needs a share and a slot at least"));
        }
        Ok(Self { pool: pool::Pool::new(concurrency, &shares) })
    }

    /// How many slots each queue is guaranteed.
    #[getter]
    fn guaranteed(&self) -> Vec<usize> {
        self.pool.guaranteed()
    }
}

/// The strings of the task before, which the next one mostly has too.
#[derive(Default)]
struct Repeated<'py> {
    name: Option<(Vec<u8>, Bound<'py, PyString>)>,
    codec: Option<(Vec<u8>, Bound<'py, PyString>)>,
    lane: Option<(Vec<u8>, Bound<'py, PyString>)>,
}

fn repeated<'py>(
    py: Python<'py>,
    before: &mut Option<(Vec<u8>, Bound<'py, PyString>)>,
    bytes: &[u8],
) -> Bound<'py, PyString> {
    match before {
        Some((same, string)) if same == bytes => string.clone(),
        _ => {
            let string = text(py, bytes);
            *before = Some((bytes.to_vec(), string.clone()));
            string
        }
    }
}

/// A name that is not UTF-8 can only have been written by hand; it fails as an unknown task does.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, &String::from_utf8_lossy(bytes))
}

fn describe<'py>(py: Python<'py>, claim: &Claim, before: &mut Repeated<'py>) -> PyResult<Bound<'py, PyTuple>> {
    let int = |number: i64| -> PyResult<Bound<'py, PyAny>> { Ok(number.into_pyobject(py)?.into_any()) };
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes).into_any();
    let fields = [
        text(py, &claim.id).into_any(),
        int(claim.token)?,
        repeated(py, &mut before.name, &claim.name).into_any(),
        bytes(&claim.args),
        bytes(&claim.kwargs),
        repeated(py, &mut before.codec, &claim.codec).into_any(),
        bytes(&claim.headers),
        repeated(py, &mut before.lane, &claim.lane).into_any(),
        int(claim.tries)?,
        int(claim.enqueued_at)?,
    ];
    if claim.others.is_empty() {
        return PyTuple::new(py, fields);
    }
    let others: Vec<_> = claim.others.iter().map(|other| describe(py, other, before)).collect::<PyResult<_>>()?;
    PyTuple::new(py, fields.into_iter().chain([PyTuple::new(py, others)?.into_any()]).collect::<Vec<_>>())
}

/// Adds one outcome; for how long its task ran.
fn read_outcome(outcome: &Bound<'_, PyTuple>, into: &mut Outcomes) -> PyResult<i64> {
    if outcome.len() != 6 {
        return Err(PyTypeError::new_err("an outcome is (id, token, outcome, run_ms, value, details)"));
    }
    let item = |index: usize| outcome.get_borrowed_item(index);
    let (id, token, kind) = (item(0)?, item(1)?, item(2)?);
    let (run_ms, value, details) = (item(3)?, item(4)?, item(5)?);
    let (id, kind) = (id.cast::<PyString>()?, kind.cast::<PyString>()?);
    let (value, details) = (value.cast::<PyBytes>()?, details.cast::<PyBytes>()?);
    let run_ms = run_ms.extract()?;
    // Everything is read before anything is appended, so a wrong type leaves no half record.
    into.push(&Outcome {
        id: id.to_str()?.as_bytes(),
        token: token.extract()?,
        outcome: kind.to_str()?.as_bytes(),
        run_ms,
        value: value.as_bytes(),
        details: details.as_bytes(),
    });
    Ok(run_ms)
}

fn item<'py>(config: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    config.get_item(name)?.ok_or_else(|| PyKeyError::new_err(name.to_owned()))
}

fn read_config(config: &Bound<'_, PyDict>) -> PyResult<Config> {
    let item = |name: &str| item(config, name);
    let milliseconds = |name: &str| -> PyResult<Duration> { Ok(Duration::from_millis(item(name)?.extract()?)) };
    let lanes: Vec<(String, Option<u32>, Option<usize>)> = item("lanes")?.extract()?;
    let names = |name: &str| -> PyResult<HashSet<Vec<u8>>> {
        let names: Vec<String> = item(name)?.extract()?;
        Ok(names.into_iter().map(String::into_bytes).collect())
    };
    let pool_share: Option<(Bound<'_, Pool>, usize)> = item("pool_share")?.extract()?;
    let watch: Option<Bound<'_, StallDetector>> = item("stall_detector")?.extract()?;
    let no_share = || PyIndexError::new_err("the pool has no such share");
    let pool_share = pool_share.map(|(pool, at)| pool.get().pool.share(at).ok_or_else(no_share)).transpose()?;
    Ok(Config {
        label: item("label")?.extract()?,
        info: item("info")?.extract()?,
        lanes: lanes.into_iter().map(|(name, weight, limit)| Lane { name, weight, limit }).collect(),
        concurrency: item("concurrency")?.extract()?,
        prefetch: item("prefetch")?.extract()?,
        lease: milliseconds("lease_ms")?,
        poll_block: milliseconds("poll_block_ms")?,
        result_ttl_ms: item("result_ttl_ms")?.extract()?,
        max_lost: item("max_lost")?.extract()?,
        burst: item("burst")?.extract()?,
        give_up_after: item("give_up_after_ms")?.extract::<Option<u64>>()?.map(Duration::from_millis),
        thread_tasks: names("thread_tasks")?,
        batch_tasks: names("batch_tasks")?,
        pool_share,
        observer: None,
        stall: watch.map(|watch| watch.get().stall()),
    })
}
