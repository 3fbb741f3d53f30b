//! A call whose first try is made by hand: on the thread of who waits for it, on a connection that nobody else uses.
//! Whatever that comes to, the rest is the usual way.

use redis::Value;

use super::{Dispatcher, Request};
use crate::wire::connection::{Begun, Direct};
use crate::wire::error::Error;

impl Dispatcher {
    /// The connection to send a call on by hand; None where it has to go the usual way.
    pub fn direct(&self, request: &Request) -> Option<Direct> {
        let is_confirmed = self.inner.confirming.is_some() && request.function.durable;
        if is_confirmed || request.function.check(request.count).is_err() {
            return None;
        }
        let connection = self.inner.link.live()?;
        let is_fit = super::compatibility::checked(&connection) == Some(request.form);
        // Of several servers it may be found out at any time which is the right one.
        if !is_fit || connection.is_routed() {
            return None;
        }
        connection.lend(request.size + 512)
    }

    /// What the call came to, where its first try says so; else what the usual way goes on with. The connection is
    /// everybody's again.
    ///
    /// # Errors
    /// The try.
    pub fn conclude_direct(
        &self,
        request: &Request,
        direct: Direct,
        answer: Option<Result<Value, Error>>,
    ) -> Result<Result<Value, Error>, Begun> {
        match answer {
            Some(Ok(Value::ServerError(_)) | Err(_)) | None => Err(direct.begun(answer)),
            Some(answer) => Ok(self.conclude(request, answer)),
        }
    }
}

impl Request {
    /// As it goes over the wire.
    pub fn packed(&self) -> Vec<u8> {
        self.cmd.get_packed_command()
    }
}
