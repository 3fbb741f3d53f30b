//! The one `From<Error>` for `PyErr`. Knows the classes of `ardiq/errors.py` by name only.

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::lua::protocol::Protocol;
use crate::wire::error::Error;

/// The class an error becomes, in `ardiq.errors`; none: a `ValueError`.
fn class(error: &Error) -> Option<&str> {
    match error {
        Error::Broker { .. } => Some("BrokerError"),
        Error::Forbidden { .. } => Some("Forbidden"),
        Error::OutOfMemory(_) => Some("OutOfMemory"),
        Error::Server { code, .. } => Some(Protocol::get().exception(code).unwrap_or("ArdiqError")),
        Error::Library(_) => Some("LibraryError"),
        Error::Argument(_) => None,
        Error::Script(_) => Some("ArdiqError"),
    }
}

fn raise(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let Some(class) = class(error) else {
        return Ok(PyValueError::new_err(error.to_string()));
    };
    let class = py.import("ardiq.errors")?.getattr(class)?;
    let options = PyDict::new(py);
    if let Error::Broker { maybe_sent, .. } | Error::Forbidden { maybe_sent, .. } = error {
        options.set_item("maybe_enqueued", maybe_sent)?;
    }
    Ok(PyErr::from_value(class.call((error.to_string(),), Some(&options))?))
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        Python::attach(|py| {
            raise(py, &error).unwrap_or_else(|broken| {
                // Should a class be missing, the message still arrives.
                let raised = PyRuntimeError::new_err(error.to_string());
                raised.set_cause(py, Some(broken));
                raised
            })
        })
    }
}
