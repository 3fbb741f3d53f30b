//! From an address to connections: the shared one that reconnects, the dedicated one for blocking
//! commands. Knows no key, no function and no library.

mod handshake;
mod link;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::address::{Address, Place};
use crate::error::Error;

pub use handshake::Server;
pub use link::{Attempts, Backoff, Link};

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// One attempt to connect, handshake included.
    pub connect_timeout: Duration,
    /// How long a call keeps trying to connect before it fails.
    pub broker_timeout: Duration,
    /// How long an answer may take on the shared connection.
    pub response_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            broker_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(10),
        }
    }
}

/// Makes connections to one server. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    inner: Arc<(Address, Options)>,
}

/// Why an attempt failed, and whether another may go better.
pub struct Refusal {
    pub error: Error,
    pub temporary: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connector {
    /// # Errors
    /// [`Error::Argument`] for a URL or certificate that cannot be used.
    pub fn new(url: &str, options: Options) -> Result<Self, Error> {
        Ok(Self { inner: Arc::new((Address::parse(url)?, options)) })
    }

    /// To another node of the same cluster.
    ///
    /// # Errors
    /// As [`Address::at`].
    pub fn at(&self, host: &str, port: u16) -> Result<Self, Error> {
        Ok(Self { inner: Arc::new((self.address().at(host, port)?, *self.options())) })
    }

    pub fn options(&self) -> &Options {
        &self.inner.1
    }

    /// The URL without its password, for messages.
    pub fn describe(&self) -> &str {
        &self.address().shown
    }

    /// One attempt at a connection whose answers must come within the response timeout.
    ///
    /// # Errors
    /// [`Error::Broker`], never `maybe_sent`.
    pub async fn connect(&self) -> Result<Connection, Error> {
        self.attempt(Some(self.options().response_timeout)).await.map_err(|refusal| refusal.error)
    }

    /// One attempt at a connection of its own without a limit on answers, for blocking commands.
    ///
    /// # Errors
    /// [`Error::Broker`], never `maybe_sent`.
    pub async fn dedicated(&self) -> Result<Connection, Error> {
        self.attempt(None).await.map_err(|refusal| refusal.error)
    }

    fn address(&self) -> &Address {
        &self.inner.0
    }

    async fn attempt(&self, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        let limit = self.options().connect_timeout;
        match timeout(limit, self.open(response_timeout)).await {
            Ok(opened) => opened,
            Err(_) => Err(self.unreachable(&format!("no connection within {} ms", limit.as_millis()))),
        }
    }

    async fn open(&self, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        let stream = self.stream().await.map_err(|e| self.unreachable(&e.to_string()))?;
        // Nothing of redis-rs' own limits and greetings: ours say more when they fail.
        let bare = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let (multiplexed, driver) = MultiplexedConnection::new_with_config(&bare, stream, config)
            .await
            .map_err(|e| self.unreachable(&e.to_string()))?;
        let (driven, gone) = watch::channel(());
        let driver = tokio::spawn(async move {
            driver.await;
            drop(driven);
        });
        let closed = AtomicBool::new(false);
        let wire = Wire { multiplexed, closed, gone, driver: driver.abort_handle(), response_timeout };
        let server = handshake::greet(&wire, &self.address().login).await.map_err(|error| Refusal {
            temporary: error.temporary,
            error: error.error.map_message(|what| format!("{}: {what}", self.describe())),
        })?;
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Ok(Connection { inner: Arc::new(Opened { wire, server, generation }) })
    }

    async fn stream(&self) -> std::io::Result<Box<dyn Stream>> {
        match &self.address().place {
            Place::Tcp { host, port } => Ok(Box::new(tcp(host, *port).await?)),
            Place::Tls { host, port, name, config } => {
                let stream = tcp(host, *port).await?;
                Ok(Box::new(TlsConnector::from(config.clone()).connect(name.clone(), stream).await?))
            }
            Place::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }

    fn unreachable(&self, why: &str) -> Refusal {
        Refusal { error: Error::broker(format!("cannot reach {}: {why}", self.describe()), false), temporary: true }
    }
}

async fn tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    // A peer that vanished without a word is noticed after half a minute, also while a blocking
    // command waits and nothing is sent.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5));
    SockRef::from(&stream).set_tcp_keepalive(&keepalive.with_retries(3))?;
    Ok(stream)
}

/// One connection, shared by its clones; commands sent at the same time are pipelined. It never
/// reconnects: once dead, always dead.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Opened>,
}

struct Opened {
    wire: Wire,
    server: Server,
    generation: u64,
}

/// A connection before and after its handshake.
struct Wire {
    multiplexed: MultiplexedConnection,
    /// Given up by us; the driver takes a moment to end.
    closed: AtomicBool,
    /// Closed when the driver ended: nothing can be sent or answered any more.
    gone: watch::Receiver<()>,
    driver: AbortHandle,
    response_timeout: Option<Duration>,
}

impl Wire {
    fn is_alive(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && self.gone.has_changed().is_ok()
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.driver.abort();
    }

    /// Sends one command; an error reply is a value.
    async fn exchange(&self, cmd: &Cmd) -> Result<Value, Error> {
        if !self.is_alive() {
            return Err(Error::broker("the connection is closed", false));
        }
        let mut multiplexed = self.multiplexed.clone();
        let sent = multiplexed.send_packed_command(cmd);
        let answer = match self.response_timeout {
            None => sent.await,
            Some(limit) => match timeout(limit, sent).await {
                Ok(answer) => answer,
                Err(_) => {
                    // What comes late would be nobody's, and a peer that vanished answers nothing
                    // at all: begin anew on another connection.
                    self.close();
                    return Err(Error::broker(format!("no answer within {} ms", limit.as_millis()), true));
                }
            },
        };
        answer.map_err(|e| Error::broker(format!("the connection broke: {e}"), true))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Otherwise a blocking command in flight would hold the connection open.
        self.close();
    }
}

impl Connection {
    /// What the server is.
    pub fn server(&self) -> &Server {
        &self.inner.server
    }

    /// A number no other connection of this process has.
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    pub fn is_alive(&self) -> bool {
        self.inner.wire.is_alive()
    }

    /// Resolves when the connection is gone.
    pub async fn closed(&self) {
        let mut gone = self.inner.wire.gone.clone();
        while gone.changed().await.is_ok() {}
    }

    /// Ends it, for all its clones.
    pub fn close(&self) {
        self.inner.wire.close();
    }

    /// Sends one command. Error replies come as errors; those inside arrays stay in the value.
    ///
    /// # Errors
    /// What [`Error`] says; `maybe_sent` unless the connection was known dead before.
    pub async fn query(&self, cmd: &Cmd) -> Result<Value, Error> {
        refuse_error(self.exchange(cmd).await?)
    }

    /// As [`query`](Self::query), with an error reply as a value.
    ///
    /// # Errors
    /// [`Error::Broker`] only.
    pub async fn exchange(&self, cmd: &Cmd) -> Result<Value, Error> {
        self.inner.wire.exchange(cmd).await
    }
}

/// An error reply as an error.
///
/// # Errors
/// What the reply means.
pub fn refuse_error(value: Value) -> Result<Value, Error> {
    match value {
        Value::ServerError(reply) => Err(Error::from(&reply)),
        value => Ok(value),
    }
}
