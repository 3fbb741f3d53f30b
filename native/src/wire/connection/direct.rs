//! One exchange by hand: whoever has a connection to himself writes to its socket and reads from it on his own thread,
//! and the connection's driver looks away meanwhile. Must not know: what is sent.

use std::io::{Error as IoError, ErrorKind};
use std::os::fd::RawFd;
use std::time::Duration;

use redis::Value;
use tokio::sync::oneshot;

use super::Connection;
use super::attempts::{Begun, Tried};
use super::gate::Coming;
use crate::wire::clock::Instant;
use crate::wire::error::Error;
use crate::wire::replies::Reply;

/// A command of so many bytes leaves in one piece.
const MOST: usize = 16 << 10;
/// Bytes that are read at once.
const READ: usize = 16 << 10;

/// A connection that is used by hand, for one exchange. Dropped before the answer has come, it leaves that to the driver,
/// for nobody.
pub struct Direct {
    connection: Connection,
    socket: RawFd,
    reply: Reply,
    told: Option<oneshot::Sender<Value>>,
    /// Since when an answer is to come.
    sent_at: Option<Instant>,
    is_broken: bool,
}

impl Connection {
    /// This connection to be used by hand, where nobody else uses it and the server has not ended it.
    pub fn lend(&self, bytes: usize) -> Option<Direct> {
        if bytes > MOST || !self.is_alive() {
            return None;
        }
        let socket = self.inner.wire.gate.lend()?;
        let (connection, reply) = (self.clone(), Reply::default());
        let direct = Direct { connection, socket, reply, told: None, sent_at: None, is_broken: false };
        direct.is_quiet().then_some(direct)
    }
}

impl Direct {
    /// What the usual way goes on with: the answer, or that it is still to come.
    pub fn begun(mut self, answer: Option<Result<Value, Error>>) -> Begun {
        let (connection, sent_at) = (self.connection.clone(), self.sent_at());
        let tried = answer.map_or_else(
            || {
                let (told, coming) = oneshot::channel();
                self.told = Some(told);
                Tried::Coming(coming)
            },
            Tried::Answered,
        );
        Begun { connection, sent_at, tried }
    }

    pub fn socket(&self) -> RawFd {
        self.socket
    }

    /// How long the answer may take.
    pub fn limit(&self) -> Option<Duration> {
        self.connection.inner.wire.response_timeout
    }

    pub fn sent_at(&self) -> Instant {
        self.sent_at.unwrap_or_else(Instant::now)
    }

    /// Whether there is nothing to read, not even an end.
    fn is_quiet(&self) -> bool {
        let mut byte = 0u8;
        // SAFETY: `byte` is one writable byte.
        let read = unsafe { libc::recv(self.socket, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
        read < 0 && IoError::last_os_error().kind() == ErrorKind::WouldBlock
    }

    /// Sends the command, without waiting.
    ///
    /// # Errors
    /// [`Error::Broker`]; the connection is of no use any more.
    pub fn send(&mut self, command: &[u8]) -> Result<(), Error> {
        self.try_send(command).inspect_err(|_| self.is_broken = true)
    }

    fn try_send(&mut self, command: &[u8]) -> Result<(), Error> {
        self.sent_at = Some(Instant::now());
        // SAFETY: `command` is readable.
        let sent = unsafe {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            libc::send(self.socket, command.as_ptr().cast(), command.len(), flags)
        };
        match usize::try_from(sent) {
            Ok(sent) if sent == command.len() => Ok(()),
            // The server does nothing with a part of a command, nor with none.
            Ok(_) => Err(Error::broker("the connection does not take a command at once", false)),
            Err(_) => Err(broke(&IoError::last_os_error(), false)),
        }
    }

    /// Blocks until there is something to read, or a signal came, no longer than `limit`.
    pub fn wait(&self, limit: Duration) {
        let mut watched = libc::pollfd { fd: self.socket, events: libc::POLLIN, revents: 0 };
        let limit_ms = limit.as_millis().try_into().unwrap_or(i32::MAX);
        // SAFETY: `watched` is one pollfd.
        unsafe { libc::poll(&raw mut watched, 1, limit_ms) };
    }

    /// The answer, when it is there.
    pub fn receive(&mut self) -> Option<Result<Value, Error>> {
        let answer = self.try_receive();
        self.is_broken = matches!(answer, Some(Err(_)));
        answer
    }

    fn try_receive(&mut self) -> Option<Result<Value, Error>> {
        loop {
            let received = self.reply.bytes();
            let before = received.len();
            received.reserve(READ);
            let space = received.spare_capacity_mut();
            // SAFETY: so much is writable.
            let read = unsafe { libc::recv(self.socket, space.as_mut_ptr().cast(), space.len(), libc::MSG_DONTWAIT) };
            let read = match usize::try_from(read) {
                Ok(0) => return Some(Err(broke(&ErrorKind::UnexpectedEof.into(), true))),
                Ok(read) => read,
                Err(_) => {
                    let error = IoError::last_os_error();
                    return match error.kind() {
                        ErrorKind::WouldBlock | ErrorKind::Interrupted => self.late().map(Err),
                        _ => Some(Err(broke(&error, true))),
                    };
                }
            };
            // SAFETY: `recv` filled so many bytes.
            unsafe { received.set_len(before + read) };
            match self.reply.length() {
                Ok(None) => {}
                Ok(Some(_)) => return Some(self.conclude()),
                Err(error) => return Some(Err(broke(&error, true))),
            }
        }
    }

    fn conclude(&mut self) -> Result<Value, Error> {
        match self.reply.split() {
            Ok((value, [])) => {
                self.sent_at = None;
                Ok(value)
            }
            Ok(_) => Err(Error::broker("the connection broke: an answer to nothing", true)),
            Err(error) => Err(Error::broker(format!("the connection broke: {error}"), true)),
        }
    }

    /// Why there will be no answer any more.
    fn late(&self) -> Option<Error> {
        let limit = self.connection.inner.wire.response_timeout?;
        let is_late = self.sent_at?.elapsed() >= limit;
        is_late.then(|| Error::broker(format!("no answer within {} ms", limit.as_millis()), true))
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        if self.is_broken {
            self.connection.close();
        }
        let is_awaited = self.sent_at.is_some() && !self.is_broken;
        let (reply, told) = (std::mem::take(&mut self.reply), self.told.take());
        self.connection.inner.wire.gate.take_back(is_awaited.then_some(Coming { reply, told }));
    }
}

fn broke(error: &IoError, maybe_sent: bool) -> Error {
    Error::broker(format!("the connection broke: {error}"), maybe_sent)
}
