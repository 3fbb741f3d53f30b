//! Ardiq's carrier: Lua decides, Rust carries, Python speaks.
//!
//! | module | owns |
//! |---|---|
//! | [`protocol`] | `protocol.json` as values |
//! | [`library`] | `lua/` composed into one payload |
//! | [`error`] | the one error enum |
//! | [`address`] | what a URL says |
//! | [`connection`] | address to connections; reconnecting |
//! | [`schema`] | which libraries a server has |
//! | [`dispatch`] | one call: `FCALL` or `EVALSHA` |
//! | [`migrate`] | plan, load, verify, prune |
//! | [`runtime`] | the I/O thread |
//! | `hub` | what the queues of this process share on their way to one server |
//! | `core` | what Python holds of one queue |
//! | [`registry`] | the list of queues at the server |
//! | [`args`] | arguments of a call, packed |
//! | [`bridge`] | events for an event loop, and waking it; the classes Python sees |
//! | [`mailbox`] | reading a mailbox |
//! | [`producer`] | batching of enqueues |
//! | [`worker`] | the worker's I/O loop |
//! | [`observer`] | what a worker does, counted |
//! | [`stalls`] | event loops that do not turn |
//! | [`health`] | probes and metrics over HTTP |
//!
//! Without the feature `python` the crate is plain Rust: tests and the bench floor use it so.

pub mod address;
pub mod connection;
pub mod dispatch;
pub mod error;
pub mod library;
pub mod migrate;
pub mod protocol;
pub mod registry;
pub mod runtime;
pub mod schema;

pub mod args;
pub mod bridge;
pub mod health;
pub mod mailbox;
pub mod observer;
pub mod producer;
pub mod stalls;
pub mod worker;

#[cfg(feature = "python")]
pub mod core;
#[cfg(feature = "python")]
pub mod hub;

#[cfg(feature = "python")]
#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::bridge::{Channel, Health, LoopWatch, Pool, PyInbox, Worker};
    #[pymodule_export]
    use crate::core::{Core, commands, library, migration, script};
    #[pymodule_export]
    const PROTOCOL: &str = crate::protocol::TEXT;
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        use pyo3::types::PyModuleMethods;
        module.add("PROTOCOL_VERSION", crate::protocol::Protocol::get().version)
    }
}
