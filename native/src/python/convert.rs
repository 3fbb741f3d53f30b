//! Between Python's objects and the wire's values.
//!
//! Owns: which Python types arguments may have, and what replies become. Must not know: what they mean.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple};
use redis::Value;

use crate::call::args::Args;
use crate::wire::error::Error;

/// Texts up to this length are compared with the one before.
const SHORT: usize = 16;

/// Appends one `str`, `bytes` or `int`.
pub fn push(args: &mut Args, item: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(text) = item.cast::<PyString>() {
        args.push(text.to_str()?);
    } else if let Ok(bytes) = item.cast::<PyBytes>() {
        args.push(bytes.as_bytes());
    } else if item.is_instance_of::<PyInt>() {
        args.push_int(item.extract()?);
    } else {
        let kind = item.get_type().name()?;
        return Err(PyTypeError::new_err(format!("an argument is str, bytes or int, not {kind}")));
    }
    Ok(())
}

/// Appends each item of a tuple or a list; for these, no Python code runs.
pub fn push_all(args: &mut Args, items: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(items) = items.cast::<PyTuple>() {
        items.iter_borrowed().try_for_each(|item| push(args, &item))
    } else if let Ok(items) = items.cast::<PyList>() {
        items.iter().try_for_each(|item| push(args, &item))
    } else {
        Err(PyTypeError::new_err("arguments come as a tuple or a list"))
    }
}

/// A sequence of `str`, `bytes` and `int` as arguments.
pub fn from_python(items: &Bound<'_, PyAny>) -> PyResult<Args> {
    let mut args = Args::default();
    if items.is_instance_of::<PyTuple>() || items.is_instance_of::<PyList>() {
        push_all(&mut args, items)?;
    } else {
        items.try_iter()?.try_for_each(|item| push(&mut args, &item?))?;
    }
    Ok(args)
}

/// A reply; an error inside it becomes an exception object in its place.
pub fn to_python(py: Python<'_>, value: Value) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        Value::BulkString(bytes) => PyBytes::new(py, &bytes).into_any(),
        Value::Int(number) => number.into_pyobject(py)?.into_any(),
        Value::Nil => py.None().into_bound(py),
        Value::SimpleString(text) => PyBytes::new(py, text.as_bytes()).into_any(),
        Value::Okay => PyBytes::new(py, b"OK").into_any(),
        Value::Array(values) | Value::Set(values) => list(py, values)?,
        Value::Map(pairs) => list(py, pairs.into_iter().flat_map(|(name, value)| [name, value]))?,
        Value::Double(number) => number.into_pyobject(py)?.into_any(),
        Value::Boolean(truth) => truth.into_pyobject(py)?.to_owned().into_any(),
        Value::ServerError(error) => exception(py, Error::from(&error)),
        other => PyString::new(py, &format!("{other:?}")).into_any(),
    })
}

/// An exception object for an error.
pub fn exception(py: Python<'_>, error: Error) -> Bound<'_, PyAny> {
    PyErr::from(error).into_value(py).into_bound(py).into_any()
}

fn list(py: Python<'_>, values: impl IntoIterator<Item = Value>) -> PyResult<Bound<'_, PyAny>> {
    let mut items: Vec<Bound<'_, PyAny>> = Vec::new();
    let mut before: Option<(Vec<u8>, usize)> = None;
    for value in values {
        let item = match (value, &before) {
            // Most answers of a batch are the one before again.
            (Value::BulkString(text), Some((same, at))) if text == *same => items[*at].clone(),
            (Value::BulkString(text), _) if text.len() <= SHORT => {
                let item = PyBytes::new(py, &text).into_any();
                before = Some((text, items.len()));
                item
            }
            (value, _) => to_python(py, value)?,
        };
        items.push(item);
    }
    Ok(PyList::new(py, items)?.into_any())
}
