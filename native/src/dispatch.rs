//! One call of a library function: `FCALL` where the server has functions, else `EVALSHA`; loads
//! the library where it is missing; refuses another one. The only place that knows the difference.
//! Knows no function by name.

use std::sync::Arc;

use redis::Value;

use crate::connection::Link;
use crate::error::Error;
use crate::protocol::Function;

/// Calls functions on one queue. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Shared>,
}

struct Shared {}

/// A call being built; may be sent again as it is.
pub struct Request {
    pub function: &'static Function,
}

impl Request {
    pub fn arg(&mut self, _value: &[u8]) -> &mut Self {
        todo!()
    }

    pub fn int(&mut self, _value: i64) -> &mut Self {
        todo!()
    }

    /// Bytes of arguments so far.
    pub fn size(&self) -> usize {
        todo!()
    }
}

impl Dispatcher {
    /// `base` is the queue's base key, `ardiq:{name}:`.
    pub fn new(_link: Link, _base: &str) -> Self {
        todo!()
    }

    pub fn base(&self) -> &str {
        let _ = &self.inner;
        todo!()
    }

    /// The shared connection, for raw commands.
    pub fn link(&self) -> &Link {
        todo!()
    }

    /// Starts a call; the name is checked here, the number of arguments in [`send`](Self::send).
    ///
    /// # Errors
    /// [`Error::Argument`] when the protocol has no such function.
    pub fn request(&self, _function: &str) -> Result<Request, Error> {
        todo!()
    }

    /// # Errors
    /// What [`Error`] says. Errors of single records stay in the reply as `Value::ServerError`.
    pub async fn send(&self, _request: &Request) -> Result<Value, Error> {
        todo!()
    }

    /// [`request`](Self::request), its arguments, and [`send`](Self::send) in one.
    ///
    /// # Errors
    /// As those.
    pub async fn call<A: AsRef<[u8]>>(&self, _function: &str, _args: &[A]) -> Result<Value, Error> {
        todo!()
    }
}
