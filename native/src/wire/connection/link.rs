//! The shared connection: made when first used, made again when it broke.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::{Notify, OwnedMutexGuard};

use super::cluster::Moved;
use super::{Attempts, Backoff, Connection, Connector, Refusal, refuse_error};
use crate::wire::clock::{Instant, sleep, sleep_until, timeout, timeout_at};
use crate::wire::error::Error;

/// How often it is made sure that a primary which others may take the place of still answers, and how long it has.
const PULSE: Duration = Duration::from_secs(1);

/// The shared connection: connects when first used, and again, with backoff, when it broke. Cheap to clone.
///
/// Of a cluster, the one to the node that holds the key of the link: those of other keys share it where they are for the
/// same node.
#[derive(Clone)]
pub struct Link {
    pub(super) connector: Connector,
    inner: Arc<Shared>,
}

/// What the links for all keys share, besides the connections that the connector knows.
struct Shared {
    /// By the node of a cluster that is to be connected to, as far as it is known which.
    gates: Mutex<HashMap<Option<String>, Arc<Gate>>>,
    /// Tells those who pause or block that a connection was made.
    made: Notify,
}

#[derive(Default)]
struct Gate {
    /// Held by the one that connects; the others wait for what it gets.
    connecting: Arc<tokio::sync::Mutex<Backoff>>,
    last_error: Mutex<Option<Error>>,
}

impl Link {
    pub fn new(connector: Connector) -> Self {
        Self { connector, inner: Arc::new(Shared { gates: Mutex::default(), made: Notify::new() }) }
    }

    /// To the same server by a connection of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(self.connector.another())
    }

    /// The same for another key.
    #[must_use]
    pub fn for_key(&self, key: &str) -> Self {
        Self { connector: self.connector.for_key(key), inner: self.inner.clone() }
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The live connection; makes one, trying for up to the broker timeout.
    ///
    /// # Errors
    /// [`Error::Broker`], never `maybe_sent`.
    pub async fn connection(&self) -> Result<Connection, Error> {
        self.attempts().connection().await
    }

    /// Sends one command on the live connection, and has the answer within the broker timeout. A command that failed after
    /// it was sent is not repeated here.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn query(&self, cmd: &Cmd) -> Result<Value, Error> {
        let mut attempts = self.attempts();
        let answer = timeout_at(attempts.deadline, self.try_query(cmd, &mut attempts)).await;
        answer.unwrap_or_else(|_| Err(attempts.late()))
    }

    async fn try_query(&self, cmd: &Cmd, attempts: &mut Attempts<'_>) -> Result<Value, Error> {
        loop {
            let connection = attempts.connection().await?;
            let answer = match attempts.exchange(&connection, cmd).await {
                Ok(Value::ServerError(reply)) => match Moved::read(&reply) {
                    // A key of another slot than this link is for.
                    Some(moved) if self.connector.slot != Some(moved.slot) => {
                        match self.elsewhere(&moved, &connection).await {
                            Ok(elsewhere) => attempts.exchange(&elsewhere, cmd).await,
                            Err(_) => Ok(Value::ServerError(reply)),
                        }
                    }
                    _ => Ok(Value::ServerError(reply)),
                },
                answer => answer,
            };
            if !attempts.again(&connection, &answer).await {
                return refuse_error(answer?);
            }
        }
    }

    /// Pauses before another attempt at something that failed: no longer than it takes anybody to reach the server.
    pub async fn pause(&self, backoff: &mut Backoff) {
        self.wait(backoff.pause()).await;
    }

    pub(super) async fn wait(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.inner.made.notified() => {}
        }
    }

    /// Resolves when the shared connection is made the next time.
    pub async fn made(&self) {
        self.inner.made.notified().await;
    }

    /// Whether the shared connection was made after that one: what broke the one before it may have left that one
    /// half-open.
    pub fn is_newer_than(&self, connection: &Connection) -> bool {
        self.live().is_some_and(|live| live.generation() > connection.generation())
    }

    /// The tries of one call, which begins now.
    pub fn attempts(&self) -> Attempts<'_> {
        self.attempts_until(Instant::now() + self.connector().options().broker_timeout)
    }

    /// The same, of one that has until then.
    pub fn attempts_until(&self, deadline: Instant) -> Attempts<'_> {
        Attempts::new(self, deadline)
    }

    /// Whether a call would need no new connection.
    pub fn is_connected(&self) -> bool {
        self.live().is_some()
    }

    /// The shared connection, where there is one.
    pub fn live(&self) -> Option<Connection> {
        self.connector.shared()
    }

    fn gate(&self, node: Option<String>) -> Arc<Gate> {
        lock(&self.inner.gates).entry(node).or_default().clone()
    }

    pub(super) async fn connect(&self, deadline: Instant) -> Result<Connection, Error> {
        'gates: loop {
            let node = self.connector.owner();
            let gate = self.gate(node.clone());
            let mut turn = tokio::select! {
                turn = timeout_at(deadline, gate.connecting.clone().lock_owned()) => match turn {
                    Ok(turn) => turn,
                    Err(_) => return Err(self.late()),
                },
                () = self.connector.learned(), if node.is_none() => continue,
            };
            loop {
                if let Some(connection) = self.live() {
                    return Ok(connection);
                }
                if self.connector.owner() != node {
                    continue 'gates;
                }
                // Goes on when the time of this call is over: connecting may take longer than any call has.
                let attempt = tokio::spawn(self.clone().attempt(gate.clone(), turn));
                let (returned, refusal) = match timeout_at(deadline, attempt).await {
                    Ok(Ok((_, Ok(connection)))) => return Ok(connection),
                    Ok(Ok((turn, Err(refusal)))) => (turn, refusal),
                    Ok(Err(_)) | Err(_) => return Err(self.late()),
                };
                turn = returned;
                let next = Instant::now() + turn.pause();
                if !refusal.temporary || next >= deadline {
                    return Err(refusal.error);
                }
                sleep_until(next).await;
            }
        }
    }

    /// Lets all use a connection that was made; gives the one to use, which another call may have made meanwhile.
    fn share(&self, made: Connection) -> Connection {
        if let Some(live) = self.live() {
            return live;
        }
        self.connector.share(&made);
        self.inner.made.notify_waiters();
        if made.is_routed() {
            self.watch(made.clone());
        }
        made
    }

    /// One attempt at the shared connection, for as long as it takes; gives back its turn.
    async fn attempt(
        self,
        gate: Arc<Gate>,
        mut turn: OwnedMutexGuard<Backoff>,
    ) -> (OwnedMutexGuard<Backoff>, Result<Connection, Refusal>) {
        let found = self.connector().attempt(Some(self.connector().options().response_timeout)).await;
        *lock(&gate.last_error) = found.as_ref().err().map(|refusal| refusal.error.clone());
        if found.is_ok() {
            turn.reset();
        }
        (turn, found.map(|connection| self.share(connection)))
    }

    /// The server, or the node of the cluster, that holds `key`.
    ///
    /// # Errors
    /// As [`connection`](Self::connection).
    pub async fn holding(&self, key: &str) -> Result<Connection, Error> {
        let connection = self.connection().await?;
        if !connection.server().cluster {
            return Ok(connection);
        }
        self.for_key(key).connection().await
    }

    /// Where a key of another slot is.
    async fn elsewhere(&self, moved: &Moved, connection: &Connection) -> Result<Connection, Error> {
        match self.connector.slot {
            Some(_) => Self { connector: self.connector.at(moved.slot), inner: self.inner.clone() }.connection().await,
            None => self.connector.only(moved.from(connection)?).connect().await,
        }
    }

    /// Looks for another primary whenever the one connected to does not answer: a machine that vanished closes no
    /// connection. Ends with the connection, once there is another one in its place, or with the link.
    fn watch(&self, connection: Connection) {
        let (connector, inner) = (self.connector.clone(), Arc::downgrade(&self.inner));
        tokio::spawn(async move {
            let mut watched = Some(connection);
            loop {
                sleep(PULSE).await;
                let Some(inner) = inner.upgrade() else { return };
                let link = Self { connector: connector.clone(), inner };
                let Some(connection) = watched.take().filter(Connection::is_alive) else {
                    // Whoever makes the next one has it watched.
                    match link.connection().await {
                        Ok(_) => return,
                        Err(_) => continue,
                    }
                };
                if timeout(PULSE, connection.exchange(&redis::cmd("PING"))).await.is_err() {
                    let response_timeout = connector.options().response_timeout;
                    if let Ok(found) = connector.attempt(Some(response_timeout)).await
                        && !connection.is_alive()
                    {
                        link.share(found);
                    }
                }
                watched = Some(connection);
            }
        });
    }

    /// For those who waited in vain for their turn, or for a connection.
    pub(super) fn late(&self) -> Error {
        if self.is_connected() {
            return self.connector().no_answer();
        }
        let last = lock(&self.gate(self.connector.owner()).last_error).clone();
        last.unwrap_or_else(|| {
            let connector = self.connector();
            let patience = connector.options().broker_timeout.as_millis();
            Error::broker(format!("cannot reach {}: no connection within {patience} ms", connector.describe()), false)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
