//! Ardiq's carrier: Lua decides, Rust carries, Python speaks.
//!
//! Five rooms by what they may know: `wire` < `lua` < `call` < `engine` < `python`. Each file may name those above it in
//! this map and none below it (`tests/agreement/test_native.py`).
//!
//! | file | owns |
//! |---|---|
//! | **[`wire`]** | **bytes to and from a server** |
//! | [`wire::error`] | the one error enum; what error replies mean |
//! | [`wire::values`] | parts of replies that Rust itself reads |
//! | [`wire::replies`] | replies, read by hand |
//! | [`wire::packed`] | many texts as one argument, and such replies |
//! | [`wire::address`] | what a URL says |
//! | [`wire::clock`] | time limits and pauses |
//! | [`wire::reactor`] | sockets that an event loop watches |
//! | [`wire::connection`] | address to connections; reconnecting; which of several servers |
//! | **[`lua`]** | **what is embedded of `../lua`** |
//! | [`lua::layout`] | where fields are in what is sent flat, by name |
//! | [`lua::protocol`] | `protocol.json` as values |
//! | [`lua::library`] | `lua/` composed into one payload |
//! | **[`call`]** | **functions of the library at a server** |
//! | [`call::args`] | arguments of a call, packed |
//! | [`call::schema`] | which libraries a server has |
//! | [`call::dispatch`] | one call: `FCALL` or `EVALSHA`; whether a server is fit for it; waiting for a replica |
//! | [`call::migrate`] | plan, load, verify, prune |
//! | **[`engine`]** | **what goes on by itself** |
//! | [`engine::process`] | which process this is |
//! | [`engine::events`] | what happened, for an event loop, and waking it |
//! | [`engine::runtime`] | the runtime, driven by who waits or by a thread of its own |
//! | [`engine::turns`] | the runtime of an event loop, driven by it |
//! | [`engine::registry`] | the list of queues at the server |
//! | [`engine::mailbox`] | reading a mailbox |
//! | [`engine::producer`] | batching of enqueues |
//! | [`engine::stalls`] | event loops that do not turn |
//! | [`engine::claims`] | the reply to a step as values |
//! | [`engine::outcomes`] | outcomes as the records of a step |
//! | [`engine::observer`] | what a worker does, counted |
//! | [`engine::worker`] | the worker's I/O loop |
//! | [`engine::health`] | probes and metrics over HTTP |
//! | [`engine::hub`] | what the queues of this process share on their way to one server |
//! | **`python`** | **the classes that Python sees; the only place where PyO3 may occur** |
//! | `python::error` | the exception an error becomes |
//! | `python::convert` | Python's objects to arguments, replies to Python's objects |
//! | `python::watch` | `Health`, `StallDetector` |
//! | `python::worker` | `Worker`, `Pool` |
//! | `python::inbox` | `Inbox`: what happened, for one event loop |
//! | `python::channel` | `Channel`: one queue on one event loop |
//! | `python::core` | `Core`: what Python holds of one queue |
//!
//! Without the feature `python` the crate is plain Rust: tests and the bench floor use it so.

pub mod call;
pub mod engine;
pub mod lua;
pub mod wire;

#[cfg(feature = "python")]
pub mod python;

#[cfg(feature = "python")]
#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::python::{
        Channel, Core, Health, Pool, PyInbox, StallDetector, Worker, commands, composed, library, migration, script,
        trim_memory,
    };
    #[pymodule_export]
    const PROTOCOL: &str = crate::lua::protocol::TEXT;
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        use pyo3::types::PyModuleMethods;
        module.add("PROTOCOL_VERSION", crate::lua::protocol::Protocol::get().version)
    }
}
