//! One connection, from before its handshake until it breaks. Must not know: how it is made, nor by what other it is
//! followed.

use std::fmt::Display;
use std::io::{Error as IoError, ErrorKind};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::gate::{Gate, Gated};
use super::{Server, Stream};
use crate::wire::address::Place;
use crate::wire::clock::{Instant, timeout_at};
use crate::wire::error::Error;
use crate::wire::reactor::Reactor;

/// The number of the next connection.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);
/// Connections that are open.
static OPEN: AtomicU64 = AtomicU64::new(0);

/// Connections of this process to any server: how many are open, and how many were made so far.
pub fn counted() -> (u64, u64) {
    (OPEN.load(Ordering::Relaxed), GENERATIONS.load(Ordering::Relaxed) - 1)
}

/// One connection, shared by its clones; commands sent at the same time are pipelined. It never
/// reconnects: once dead, always dead.
#[derive(Clone)]
pub struct Connection {
    pub(super) inner: Arc<Opened>,
}

pub struct Opened {
    pub(super) wire: Wire,
    server: Server,
    generation: u64,
    place: Place,
    pub(super) node: OnceLock<Node>,
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
pub struct Node {
    /// Its name: a cluster's id for it, else where it is.
    pub(super) id: String,
    /// The slot of a cluster that it is for, if it is not for all that the node holds.
    pub(super) slot: Option<u16>,
}

/// A connection before and after its handshake.
pub struct Wire {
    multiplexed: MultiplexedConnection,
    pub(super) gate: Arc<Gate>,
    /// Given up by us; the driver takes a moment to end.
    closed: AtomicBool,
    /// Closed when the driver ended: nothing can be sent or answered any more.
    gone: watch::Receiver<()>,
    driver: AbortHandle,
    /// Of the event loop on whose thread it is.
    reactor: Option<Arc<Reactor>>,
    pub(super) response_timeout: Option<Duration>,
    /// Somebody makes sure that it still answers.
    doubted: AtomicBool,
}

impl Wire {
    /// Over a stream, and the socket that its bytes go over as they are; an answer may take as long as
    /// `response_timeout`, if there is one.
    pub(super) async fn over(
        stream: Box<dyn Stream>,
        socket: Option<RawFd>,
        response_timeout: Option<Duration>,
    ) -> Result<Self, RedisError> {
        let gate = Gate::new(socket);
        let stream = Gated::new(stream, gate.clone());
        // Nothing of redis-rs' own limits and greetings: ours say more when they fail.
        let bare = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let (multiplexed, driver) = MultiplexedConnection::new_with_config(&bare, stream, config).await?;
        let (driven, gone) = watch::channel(());
        let driver = tokio::spawn(async move {
            driver.await;
            drop(driven);
        });
        let (closed, doubted) = (AtomicBool::new(false), AtomicBool::new(false));
        OPEN.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            multiplexed,
            gate,
            closed,
            gone,
            driver: driver.abort_handle(),
            reactor: Reactor::current(),
            response_timeout,
            doubted,
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && self.gone.has_changed().is_ok()
    }

    pub(super) fn close(&self) {
        self.retire();
        self.driver.abort();
        // Perhaps from another thread.
        self.reactor.iter().for_each(|reactor| reactor.wake());
    }

    pub(super) fn retire(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Sends one command; an error reply is a value.
    pub(super) async fn exchange(&self, cmd: &Cmd) -> Result<Value, Error> {
        if !self.is_alive() {
            return Err(Error::broker("the connection is closed", false));
        }
        let mut multiplexed = self.multiplexed.clone();
        let sent = async {
            let entered = self.gate.enter().await;
            let answer = multiplexed.send_packed_command(cmd).await;
            entered.answered();
            answer
        };
        self.in_time(Instant::now(), sent).await
    }

    /// The answer to what was sent by hand then.
    pub(super) async fn answer(&self, coming: oneshot::Receiver<Value>, sent_at: Instant) -> Result<Value, Error> {
        self.in_time(sent_at, async { coming.await.map_err(|_| IoError::from(ErrorKind::UnexpectedEof)) }).await
    }

    async fn in_time<E: Display>(
        &self,
        since: Instant,
        answer: impl Future<Output = Result<Value, E>>,
    ) -> Result<Value, Error> {
        let answer = match self.response_timeout {
            None => answer.await,
            Some(limit) => match timeout_at(since + limit, answer).await {
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
    /// To the server at `place`, which has answered.
    pub(super) fn greeted(wire: Wire, server: Server, place: Place) -> Self {
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let opened = Opened { wire, server, generation, place, node: OnceLock::new(), noted: Noted::default() };
        Self { inner: Arc::new(opened) }
    }

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
        let entered = self.inner.wire.gate.enter().await;
        let answers = multiplexed.send_packed_commands(commands, 0, commands.len()).await;
        entered.answered();
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
