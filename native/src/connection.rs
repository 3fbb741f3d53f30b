//! From a URL to connections: TCP, TLS, unix sockets; the shared connection that reconnects; the
//! dedicated one for blocking commands. Knows no key, no function and no library.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};

use crate::error::Error;

#[derive(Clone, Debug)]
pub struct Options {
    /// One attempt to connect, handshake included.
    pub connect_timeout: Duration,
    /// How long a call keeps trying to connect before it fails.
    pub broker_timeout: Duration,
    /// How long an answer may take on the shared connection.
    pub response_timeout: Duration,
}

/// What a server said of itself when the connection was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `redis` or `valkey`.
    pub name: String,
    pub version: (u32, u32, u32),
    pub cluster: bool,
}

impl Server {
    /// Whether it has Redis Functions (7.0 and later, every Valkey).
    pub fn has_functions(&self) -> bool {
        todo!()
    }
}

/// Makes connections to one server. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Target>,
}

struct Target {}

impl Connector {
    /// # Errors
    /// [`Error::Argument`] for a URL or certificate that cannot be used.
    pub fn new(_url: &str, _options: Options) -> Result<Self, Error> {
        todo!()
    }

    pub fn options(&self) -> &Options {
        todo!()
    }

    /// The URL without its password, for messages.
    pub fn describe(&self) -> &str {
        let _ = &self.inner;
        todo!()
    }

    /// One attempt at a connection whose answers must come within the response timeout.
    ///
    /// # Errors
    /// [`Error::Broker`], never `maybe_sent`.
    pub async fn connect(&self) -> Result<Connection, Error> {
        todo!()
    }

    /// One attempt at a connection of its own without a limit on answers, for blocking commands.
    ///
    /// # Errors
    /// [`Error::Broker`], never `maybe_sent`.
    pub async fn dedicated(&self) -> Result<Connection, Error> {
        todo!()
    }
}

/// One connection, shared by its clones; commands sent at the same time are pipelined. It never
/// reconnects: once dead, always dead.
#[derive(Clone)]
pub struct Connection {}

impl Connection {
    /// What the server is.
    pub fn server(&self) -> &Server {
        todo!()
    }

    pub fn is_alive(&self) -> bool {
        todo!()
    }

    /// Resolves when the connection is gone.
    pub async fn closed(&self) {
        todo!()
    }

    /// Sends one command. Error replies come as errors; those inside arrays stay in the value.
    ///
    /// # Errors
    /// What [`Error`] says; `maybe_sent` unless the connection was known dead before.
    pub async fn query(&self, _cmd: &Cmd) -> Result<Value, Error> {
        todo!()
    }
}

/// The shared connection of a `Core`: connects when first used, and again, with backoff, when it
/// broke. Cheap to clone.
#[derive(Clone)]
pub struct Link {}

impl Link {
    pub fn new(_connector: Connector) -> Self {
        todo!()
    }

    pub fn connector(&self) -> &Connector {
        todo!()
    }

    /// The live connection; makes one, trying for up to the broker timeout.
    ///
    /// # Errors
    /// [`Error::Broker`], never `maybe_sent`.
    pub async fn connection(&self) -> Result<Connection, Error> {
        todo!()
    }

    /// Sends one command on the live connection. A command that failed after it was sent is not
    /// repeated here.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query(&self, _cmd: &Cmd) -> Result<Value, Error> {
        todo!()
    }
}

/// Growing pauses between attempts: 50 ms to 2 s, with jitter.
#[derive(Default)]
pub struct Backoff {}

impl Backoff {
    /// How long to pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        todo!()
    }

    pub fn reset(&mut self) {
        todo!()
    }
}
