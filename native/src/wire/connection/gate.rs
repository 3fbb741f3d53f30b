//! Who uses a connection at the moment: its driver, for everybody, or one caller by hand. Must not know: what is sent, nor
//! what a caller does by hand.

use std::io::{Error as IoError, IoSlice, Result as IoResult};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use redis::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};

use super::Stream;
use crate::wire::replies::Reply;

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
    /// The driver has let go of the socket, whose number may be another's by now.
    is_gone: bool,
    /// The answer to what was sent by hand: the driver reads it before its own.
    coming: Option<Coming>,
    /// Exchanges through the driver that have begun so far, those under way, and those that wait until they may begin.
    begun: u64,
    exchanges: usize,
    waiting: usize,
    /// The driver may wait for an answer that nobody wants, to one of the first so many.
    owed: Option<u64>,
    driver: Option<Waker>,
    /// Let go of by the driver while the socket was lent, which must not be closed meanwhile.
    left: Option<Box<dyn Stream>>,
}

/// An answer of which the driver has to read the rest.
pub(super) struct Coming {
    pub reply: Reply,
    /// Who waits for it, if anybody does; told by its end where it will not come.
    pub told: Option<oneshot::Sender<Value>>,
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
                    state.begun += 1;
                    return Entered { gate: self, number: state.begun, is_answered: false };
                }
                if waiting.is_none() {
                    state.waiting += 1;
                    waiting = Some(Waiting(self));
                }
            }
            returned.await;
        }
    }

    pub(super) fn lend(&self) -> Option<RawFd> {
        let mut state = self.lock();
        let is_owed = state.owed.is_some() || state.coming.is_some();
        if state.is_gone || state.is_lent || is_owed || state.exchanges > 0 || state.waiting > 0 {
            return None;
        }
        state.is_lent = self.socket.is_some();
        self.socket
    }

    pub(super) fn take_back(&self, coming: Option<Coming>) {
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
    number: u64,
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
        if !self.is_answered {
            state.owed = Some(state.begun);
        } else if state.owed < Some(self.number) {
            // Answers come in order, so all that was owed when this one began has come.
            state.owed = None;
        }
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
        state.is_gone = true;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_be_owed_has_come_when_what_began_later_is_answered() {
        let gate = Gate::new(Some(0));
        let (given_up, beside) = (gate.enter().await, gate.enter().await);
        assert_eq!(gate.lend(), None, "it is in use");
        drop(given_up);
        beside.answered();
        assert_eq!(gate.lend(), None, "the answers may have come in the other order");
        gate.enter().await.answered();
        assert_eq!(gate.lend(), Some(0));
        assert_eq!(gate.lend(), None, "it is lent");
        gate.take_back(None);
        gate.enter().await.answered();
        assert_eq!(gate.lend(), Some(0));
    }

    #[tokio::test]
    async fn what_its_driver_has_let_go_of_is_not_lent() {
        let gate = Gate::new(Some(0));
        drop(Gated::new(Box::new(tokio::io::duplex(1).0), gate.clone()));
        assert_eq!(gate.lend(), None, "the number may be of another socket");
    }
}
