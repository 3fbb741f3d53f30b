//! From an address to connections: the shared one that reconnects, the dedicated one for blocking
//! commands. Knows no function and no library.
//!
//! | module | owns |
//! |---|---|
//! | `handshake` | the first exchange with a server |
//! | `route` | which of several servers is the primary |
//! | [`cluster`] | what a cluster says of its nodes |
//! | `opened` | one connection, until it breaks |
//! | `gate` | who uses a connection at the moment: its driver or a caller by hand |
//! | `direct` | one exchange by hand, on a connection that nobody else uses |
//! | `attempts` | the tries of one call; pauses between them |
//! | `link` | the shared connection, made again when it broke |
//! | `tls` | why TLS was refused, and whether a server speaks it, for people |

mod attempts;
pub mod cluster;
mod direct;
mod gate;
mod handshake;
mod link;
mod opened;
mod route;
mod tls;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use redis::RedisConnectionInfo;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::wire::address::{Address, Kind, Place};
use crate::wire::clock::{sleep, timeout};
use crate::wire::error::Error;
use crate::wire::reactor::Reactor;
use cluster::slot_of;

pub use attempts::{Attempts, Backoff, Begun};
pub use direct::Direct;
pub use handshake::Server;
pub use link::Link;
pub use opened::{Connection, Noted, counted, refuse_error};
use opened::{Node, Opened, Wire};
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
        let (stream, socket) = stream(place).await.map_err(|e| self.unreachable(&e.to_string()).at(place, self))?;
        let wire = Wire::over(stream, socket, response_timeout);
        let wire = wire.await.map_err(|e| self.unreachable(&e.to_string()).at(place, self))?;
        let greeted = handshake::greet(&wire, login).await;
        if let Place::Tcp { host, port } = place
            && greeted.is_err()
            && !wire.is_alive()
            && let Ok((stream, _)) = tcp(host, *port).await
            && timeout(tls::PATIENCE, tls::is_secure(stream)).await == Ok(true)
        {
            return Err(self.unreachable(tls::SECURE).at(place, self));
        }
        let server = greeted.map_err(|error| {
            let told = error.error.map_message(|what| format!("{}: {what}", self.describe()));
            Refusal { temporary: error.temporary, error: told }.advised().at(place, self)
        })?;
        Ok(Connection::greeted(wire, server, place.clone()))
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

/// A connection to that place, and the socket that its bytes go over as they are.
async fn stream(place: &Place) -> std::io::Result<(Box<dyn Stream>, Option<RawFd>)> {
    match place {
        Place::Tcp { host, port } => tcp(host, *port).await,
        Place::Tls { host, port, name, config } => {
            let (stream, _) = tcp(host, *port).await?;
            let secured = tokio::select! {
                secured = TlsConnector::from(config.clone()).connect(name.clone(), stream) => secured?,
                () = found_plain(host, *port) => return Err(std::io::Error::other(tls::PLAIN)),
            };
            Ok((Box::new(secured), None))
        }
        Place::Unix(path) => match Reactor::current() {
            Some(reactor) => Ok(bare(reactor.connect_unix(path).await?)),
            None => Ok(bare(UnixStream::connect(path).await?)),
        },
    }
}

/// Resolves when a server that lets a handshake wait turns out to speak plain text.
async fn found_plain(host: &str, port: u16) {
    sleep(tls::PATIENCE).await;
    if let Ok((stream, _)) = tcp(host, port).await
        && tls::is_plain(stream).await
    {
        return;
    }
    std::future::pending().await
}

async fn tcp(host: &str, port: u16) -> std::io::Result<(Box<dyn Stream>, Option<RawFd>)> {
    if let Some(reactor) = Reactor::current() {
        let stream = reactor.connect_tcp(host, port).await?;
        keep_alive(&SockRef::from(stream.socket()))?;
        return Ok(bare(stream));
    }
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    keep_alive(&SockRef::from(&stream))?;
    Ok(bare(stream))
}

fn bare<S: Stream + AsRawFd + 'static>(stream: S) -> (Box<dyn Stream>, Option<RawFd>) {
    let socket = stream.as_raw_fd();
    (Box::new(stream), Some(socket))
}

fn keep_alive(socket: &SockRef<'_>) -> std::io::Result<()> {
    // A peer that vanished without a word is noticed after half a minute, also while a blocking
    // command waits and nothing is sent.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5));
    socket.set_tcp_keepalive(&keepalive.with_retries(3))
}
