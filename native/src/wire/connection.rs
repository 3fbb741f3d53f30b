//! From an address to connections: the shared one that reconnects, the dedicated one for blocking
//! commands. Knows no function and no library.
//!
//! | module | owns |
//! |---|---|
//! | `handshake` | the first exchange with a server |
//! | `route` | which of several servers is the primary |
//! | [`cluster`] | what a cluster says of its nodes |
//! | `link` | the shared connection, made again when it broke |
//! | `tls` | why TLS was refused, for people |

pub mod cluster;
mod handshake;
mod link;
mod route;
mod tls;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::wire::address::{Address, Kind, Place};
use crate::wire::error::Error;
use cluster::slot_of;

pub use handshake::Server;
pub use link::{Attempts, Backoff, Link};
use route::Route;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// One attempt to connect, handshake included.
    pub connect_timeout: Duration,
    /// How long a call may take, from the first attempt to connect to the answer.
    pub broker_timeout: Duration,
    /// How long an answer may take on the shared connection before that counts as dead.
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

/// The number of the next connection.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);
/// Connections that are open.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Connections of this process to any server: how many are open, and how many were made so far.
pub fn counted() -> (u64, u64) {
    (OPEN.load(Ordering::Relaxed), GENERATIONS.load(Ordering::Relaxed) - 1)
}

/// Makes connections to one server, or to the primary among several. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Inner>,
    /// Of a cluster: the node is wanted that holds this slot. Without one any node will do.
    slot: Option<u16>,
}

struct Inner {
    address: Address,
    options: Options,
    route: Route,
    /// Of a cluster, too, this server is wanted and no other, whichever slots it holds.
    is_only: bool,
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
        Ok(Self::to(Address::parse(url)?, options, false))
    }

    /// The same; of a cluster, to the node that holds `key`. Both share what they learn, and connections.
    #[must_use]
    pub fn for_key(&self, key: &str) -> Self {
        self.at(slot_of(key))
    }

    /// The same; of a cluster, to whichever node answers first.
    #[must_use]
    pub fn anywhere(&self) -> Self {
        Self { slot: None, ..self.another() }
    }

    /// The same, which knows of no connection yet.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { slot: self.slot, ..Self::to(self.address().clone(), *self.options(), self.inner.is_only) }
    }

    /// To the server at `place` and no other.
    #[must_use]
    pub fn only(&self, place: Place) -> Self {
        Self::to(self.address().only(place), *self.options(), true)
    }

    fn to(address: Address, options: Options, is_only: bool) -> Self {
        Self { inner: Arc::new(Inner { address, options, route: Route::default(), is_only }), slot: None }
    }

    fn at(&self, slot: u16) -> Self {
        Self { inner: self.inner.clone(), slot: (!self.inner.is_only).then_some(slot) }
    }

    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The URL without its password, for messages.
    pub fn describe(&self) -> &str {
        &self.address().shown
    }

    /// As whom it logs in.
    pub fn user(&self) -> &str {
        self.address().login.username().unwrap_or("default")
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

    /// Questions that are no call of the queue, answered within the broker timeout.
    ///
    /// # Errors
    /// Those of `questions`; [`Error::Broker`], never `maybe_sent`, when the time is over.
    pub async fn in_time<T>(&self, questions: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.options().broker_timeout, questions).await.unwrap_or_else(|_| Err(self.no_answer()))
    }

    fn no_answer(&self) -> Error {
        let patience = self.options().broker_timeout.as_millis();
        Error::broker(format!("no answer from {} within {patience} ms", self.describe()), false)
    }

    fn address(&self) -> &Address {
        &self.inner.address
    }

    async fn attempt(&self, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        let limit = self.options().connect_timeout;
        match timeout(limit, self.primary(response_timeout)).await {
            Ok(found) => found,
            Err(_) => Err(self.unreachable(&format!("no connection within {} ms", limit.as_millis()))),
        }
    }

    /// A connection to the server at `place`, whatever it is.
    async fn open(
        &self,
        place: &Place,
        login: &RedisConnectionInfo,
        response_timeout: Option<Duration>,
    ) -> Result<Connection, Refusal> {
        let stream = stream(place).await.map_err(|e| self.unreachable(&e.to_string()).at(place, self))?;
        // Nothing of redis-rs' own limits and greetings: ours say more when they fail.
        let bare = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let (multiplexed, driver) = MultiplexedConnection::new_with_config(&bare, stream, config)
            .await
            .map_err(|e| self.unreachable(&e.to_string()).at(place, self))?;
        let (driven, gone) = watch::channel(());
        let driver = tokio::spawn(async move {
            driver.await;
            drop(driven);
        });
        let closed = AtomicBool::new(false);
        OPEN.fetch_add(1, Ordering::Relaxed);
        let doubted = AtomicBool::new(false);
        let wire = Wire { multiplexed, closed, gone, driver: driver.abort_handle(), response_timeout, doubted };
        let server = handshake::greet(&wire, login).await.map_err(|error| {
            let told = error.error.map_message(|what| format!("{}: {what}", self.describe()));
            Refusal { temporary: error.temporary, error: told }.advised().at(place, self)
        })?;
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let opened =
            Opened { wire, server, generation, place: place.clone(), node: OnceLock::new(), noted: Noted::default() };
        Ok(Connection { inner: Arc::new(opened) })
    }

    fn unreachable(&self, why: &str) -> Refusal {
        let error = Error::broker(format!("cannot reach {}: {why}", self.describe()), false);
        Refusal { error, temporary: true }.advised()
    }
}

impl Refusal {
    /// Says what to do where it is a matter of certificates, which no further attempt changes.
    fn advised(self) -> Self {
        match tls::advice(&self.error.to_string()) {
            Some(advice) => Self::lasting(self.error.map_message(|what| format!("{what}: {advice}"))),
            None => self,
        }
    }

    /// Says which of several servers it was.
    fn at(mut self, place: &Place, connector: &Connector) -> Self {
        if connector.address().places.len() > 1 || !matches!(connector.address().kind, Kind::Server) {
            self.error = self.error.map_message(|what| format!("{what} (at {place})"));
        }
        self
    }

    fn passing(what: String) -> Self {
        Self { error: Error::broker(what, false), temporary: true }
    }

    fn lasting(error: Error) -> Self {
        Self { error, temporary: false }
    }
}

async fn stream(place: &Place) -> std::io::Result<Box<dyn Stream>> {
    match place {
        Place::Tcp { host, port } => Ok(Box::new(tcp(host, *port).await?)),
        Place::Tls { host, port, name, config } => {
            let stream = tcp(host, *port).await?;
            Ok(Box::new(TlsConnector::from(config.clone()).connect(name.clone(), stream).await?))
        }
        Place::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
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
    place: Place,
    node: OnceLock<Node>,
    noted: Noted,
}

/// What those who send commands found out about the server, for others on the same connection.
#[derive(Default)]
pub struct Noted {
    /// How it is called; 0: not known yet.
    pub form: AtomicU8,
    /// Held by who finds it out.
    pub finding: Arc<tokio::sync::Mutex<()>>,
}

/// Which of several servers a connection leads to.
struct Node {
    /// Its name: a cluster's id for it, else where it is.
    id: String,
    /// The slot of a cluster that it is for, if it is not for all that the node holds.
    slot: Option<u16>,
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
    /// Somebody makes sure that it still answers.
    doubted: AtomicBool,
}

impl Wire {
    fn is_alive(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && self.gone.has_changed().is_ok()
    }

    fn close(&self) {
        self.retire();
        self.driver.abort();
    }

    fn retire(&self) {
        self.closed.store(true, Ordering::Release);
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
        OPEN.fetch_sub(1, Ordering::Relaxed);
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

    /// For those who gave up an answer that they waited for `since` then: ends it unless one comes within the response
    /// timeout, which they would have waited for.
    pub fn doubt(&self, since: Instant) {
        let wire = &self.inner.wire;
        let Some(limit) = wire.response_timeout.filter(|_| !wire.doubted.swap(true, Ordering::AcqRel)) else { return };
        // Not at once, where many answers came and each took its time.
        let until = (since + limit).max(Instant::now() + limit / 4);
        let connection = self.clone();
        tokio::spawn(async move {
            match timeout_at(until, connection.exchange(&redis::cmd("PING"))).await {
                Ok(Ok(_)) => connection.inner.wire.doubted.store(false, Ordering::Release),
                _ => connection.close(),
            }
        });
    }

    /// Takes no further command; answers under way still come.
    pub fn retire(&self) {
        self.inner.wire.retire();
    }

    /// Where it leads.
    pub fn place(&self) -> &Place {
        &self.inner.place
    }

    pub fn noted(&self) -> &Noted {
        &self.inner.noted
    }

    /// Whether it leads to one of several servers that may take its place.
    pub fn is_routed(&self) -> bool {
        self.inner.node.get().is_some()
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

    /// The same for many commands at once, with no limit on the time.
    ///
    /// # Errors
    /// [`Error::Broker`] only.
    pub async fn exchange_all(&self, commands: &redis::Pipeline) -> Result<Vec<Value>, Error> {
        let mut multiplexed = self.inner.wire.multiplexed.clone();
        let answers = multiplexed.send_packed_commands(commands, 0, commands.len()).await;
        answers.map_err(|e| Error::broker(format!("the connection broke: {e}"), true))
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
