//! The one error enum, what servers' error replies mean, and the one `From` for `PyErr`.
//! Knows the classes of `ardiq/errors.py` by name only.

use std::fmt;

use redis::ServerError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The server is unreachable, refuses, or dropped the connection.
    Broker {
        message: String,
        /// The request may have reached the server, so it may have been carried out.
        maybe_sent: bool,
    },
    /// The server is at `maxmemory` and refuses what would add data. Nothing was written.
    OutOfMemory(String),
    /// An `ARDIQ_<code>` refusal by a function. Nothing was written.
    Server { code: String, message: String },
    /// The library is missing and may not be loaded, or is another than this build's, or the
    /// server is too old for it.
    Library(String),
    /// A call that does not fit the protocol or an option that makes no sense; nothing was sent.
    Argument(String),
    /// The server answered with an error nobody foresaw: a mistake in the Lua, or in a raw command.
    Script(String),
}

impl Error {
    /// A broken connection or no connection.
    pub fn broker(message: impl Into<String>, maybe_sent: bool) -> Self {
        Self::Broker { message: message.into(), maybe_sent }
    }

    /// Whether the request may have been carried out although it failed.
    pub fn maybe_sent(&self) -> bool {
        matches!(self, Self::Broker { maybe_sent: true, .. })
    }

    /// Whether it is the refusal `ARDIQ_<code>`.
    pub fn is(&self, refusal: &str) -> bool {
        matches!(self, Self::Server { code, .. } if code == refusal)
    }
}

/// An error reply, alone or inside a batch.
impl From<&ServerError> for Error {
    fn from(_reply: &ServerError) -> Self {
        todo!()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { message, .. } | Self::Server { message, .. } => f.write_str(message),
            Self::OutOfMemory(message)
            | Self::Library(message)
            | Self::Argument(message)
            | Self::Script(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(feature = "python")]
impl From<Error> for pyo3::PyErr {
    fn from(_error: Error) -> Self {
        todo!()
    }
}
