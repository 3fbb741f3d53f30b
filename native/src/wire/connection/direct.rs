//! One exchange by hand: whoever has a connection to himself writes to its socket and reads from it on his own thread,
//! and the connection's driver looks away meanwhile. Must not know: what is sent.

use std::io::{Error as IoError, ErrorKind, IoSlice, Result as IoResult};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use redis::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};

use super::attempts::{Begun, Tried};
use super::{Connection, Stream};
use crate::wire::clock::Instant;
use crate::wire::error::Error;
use crate::wire::replies::Reply;

/// A command of so many bytes leaves in one piece.
const MOST: usize = 16 << 10;
/// Bytes that are read at once.
const READ: usize = 16 << 10;

/// Who uses a connection: its driver, for everybody, or one caller by hand.
pub(super) struct Gate {
    /// None where bytes do not go over the socket as they are, as with TLS.
    socket: Option<RawFd>,
    state: Mutex<State>,
    /// Tells those who wait for it that nobody has it by hand any more.
    returned: Notify,
}

#[derive(Default)]
struct State {
    is_lent: bool,
    /// The answer to what was sent by hand: the driver reads it before its own.
    coming: Option<Coming>,
    /// The driver may wait for an answer that nobody wants.
    is_owed: bool,
    /// Exchanges through the driver, and those that wait until they may begin.
    exchanges: usize,
    waiting: usize,
    driver: Option<Waker>,
    /// Let go of by the driver while the socket was lent, which must not be closed meanwhile.
    left: Option<Box<dyn Stream>>,
}

struct Coming {
    reply: Reply,
    /// Who waits for it, if anybody does; told by its end where it will not come.
    told: Option<oneshot::Sender<Value>>,
}

impl Gate {
    pub(super) fn new(socket: Option<RawFd>) -> Arc<Self> {
        Arc::new(Self { socket, state: Mutex::default(), returned: Notify::new() })
    }

    /// For an exchange through the driver.
    pub(super) async fn enter(&self) -> Entered<'_> {
        let mut waiting = None;
        loop {
            let returned = self.returned.notified();
            {
                let mut state = self.lock();
                if !state.is_lent {
                    state.exchanges += 1;
                    return Entered { gate: self, is_answered: false };
                }
                if waiting.is_none() {
                    state.waiting += 1;
                    waiting = Some(Waiting(self));
                }
            }
            returned.await;
        }
    }

    fn lend(&self) -> Option<RawFd> {
        let mut state = self.lock();
        let is_owed = state.is_owed || state.coming.is_some();
        if state.is_lent || is_owed || state.exchanges > 0 || state.waiting > 0 {
            return None;
        }
        state.is_lent = self.socket.is_some();
        self.socket
    }

    fn take_back(&self, coming: Option<Coming>) {
        let (driver, left) = {
            let mut state = self.lock();
            state.is_lent = false;
            let left = state.left.take();
            // Without a driver it does not come.
            state.coming = coming.filter(|_| left.is_none());
            (state.driver.take(), left)
        };
        drop(left);
        if let Some(driver) = driver {
            driver.wake();
        }
        self.returned.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exchange through the driver.
pub(super) struct Entered<'a> {
    gate: &'a Gate,
    is_answered: bool,
}

impl Entered<'_> {
    pub(super) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.exchanges -= 1;
        state.is_owed |= !self.is_answered;
    }
}

struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// A stream as its driver has it.
pub(super) struct Gated {
    /// Taken when this is dropped.
    stream: Option<Box<dyn Stream>>,
    gate: Arc<Gate>,
}

impl Gated {
    pub(super) fn new(stream: Box<dyn Stream>, gate: Arc<Gate>) -> Self {
        Self { stream: Some(stream), gate }
    }

    fn stream(&mut self) -> Pin<&mut (dyn Stream + 'static)> {
        Pin::new(&mut **self.stream.as_mut().expect("it is not dropped yet"))
    }
}

impl AsyncRead for Gated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        let gate = self.gate.clone();
        // Held, so that it is not lent in the middle.
        let mut state = gate.lock();
        if state.is_lent {
            state.driver = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(Coming { reply, .. }) = &mut state.coming {
            while reply.length()?.is_none() {
                let mut space = [MaybeUninit::uninit(); 4 << 10];
                let mut more = ReadBuf::uninit(&mut space[..buffer.remaining().min(4 << 10)]);
                std::task::ready!(self.stream().poll_read(cx, &mut more))?;
                if more.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                reply.bytes().extend_from_slice(more.filled());
            }
            let (value, more) = reply.split().map_err(IoError::other)?;
            if more.len() > buffer.remaining() {
                return Poll::Ready(Err(IoError::other("an answer to nothing")));
            }
            buffer.put_slice(more);
            if let Some(told) = state.coming.take().and_then(|coming| coming.told) {
                let _ = told.send(value);
            }
            if !buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        self.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<IoResult<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        self.stream().poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        self.stream().poll_shutdown(cx)
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        let stream = self.stream.take();
        let mut state = self.gate.lock();
        // Whoever waits for it is told.
        state.coming = None;
        if state.is_lent {
            // Whoever has it by hand hears of it at once.
            // SAFETY: the socket is open while `stream` lives.
            self.gate.socket.map(|socket| unsafe { libc::shutdown(socket, libc::SHUT_RDWR) });
            state.left = stream;
            return;
        }
        drop(state);
        drop(stream);
    }
}

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
