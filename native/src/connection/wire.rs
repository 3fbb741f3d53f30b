//! One stream to a server: requests of all who share it go out together, replies come back in
//! order. The only place that reads and writes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use redis::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::resp::{self, Scanner};
use crate::error::Error;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Waiter = oneshot::Sender<Result<Value, Error>>;

/// What a read asks for at least.
const READ_SIZE: usize = 16 * 1024;
/// An idle connection holds no larger buffers.
const IDLE_SIZE: usize = 256 * 1024;

/// The near end of a connection. Dropping it ends the connection.
pub(super) struct Wire {
    line: Arc<Line>,
    gone: watch::Receiver<()>,
    driver: AbortHandle,
}

/// What callers hand to the driver.
#[derive(Default)]
struct Line {
    outgoing: Mutex<Outgoing>,
}

#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    waiters: Vec<Waiter>,
    /// Of the driver, when it waits for requests.
    driver: Option<Waker>,
    /// Set once nothing goes out any more.
    closed: bool,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    /// Drives `stream` on the current runtime. No answer may take longer than `limit`: then all
    /// that is under way fails, since what comes late would be nobody's, and a peer that vanished
    /// answers nothing at all.
    pub fn new(stream: Box<dyn Stream>, limit: Option<Duration>) -> Self {
        let line = Arc::new(Line::default());
        let (driven, gone) = watch::channel(());
        let mut driver = Driver {
            stream,
            limit,
            line: line.clone(),
            writing: Vec::new(),
            written: 0,
            flushed: true,
            waiting: VecDeque::new(),
            reading: Vec::new(),
            scanner: Scanner::default(),
            alarm: None,
            _driven: driven,
        };
        let task = tokio::spawn(async move {
            let why = poll_fn(|context| driver.poll(context)).await;
            driver.end(&why);
        });
        Self { line, gone, driver: task.abort_handle() }
    }

    pub fn is_alive(&self) -> bool {
        !self.line.lock().closed
    }

    /// Resolves when the connection is gone.
    pub async fn closed(&self) {
        let mut gone = self.gone.clone();
        while gone.changed().await.is_ok() {}
    }

    pub fn close(&self) {
        self.line.lock().closed = true;
        self.driver.abort();
    }

    /// Sends the one request that `write` appends; an error reply is a value.
    pub async fn exchange(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Value, Error> {
        let (sender, receiver) = oneshot::channel();
        let driver = {
            let mut outgoing = self.line.lock();
            if outgoing.closed {
                return Err(Error::broker("the connection is closed", false));
            }
            write(&mut outgoing.bytes);
            outgoing.waiters.push(sender);
            outgoing.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
        receiver.await.unwrap_or_else(|_| Err(Error::broker("the connection was closed", true)))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.close();
    }
}

/// The far end: what the runtime does for the connection.
struct Driver {
    stream: Box<dyn Stream>,
    limit: Option<Duration>,
    line: Arc<Line>,
    writing: Vec<u8>,
    written: usize,
    flushed: bool,
    /// Who waits for the replies to what was written, and since when.
    waiting: VecDeque<(Waiter, Instant)>,
    reading: Vec<u8>,
    scanner: Scanner,
    alarm: Option<Pin<Box<Sleep>>>,
    /// Dropped with the driver, which is how others learn of its end.
    _driven: watch::Sender<()>,
}

impl Driver {
    /// Reads and writes until neither goes on; ready when the connection is over, with the reason.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<String> {
        if let Poll::Ready(Err(broken)) = self.poll_write(context) {
            return Poll::Ready(format!("the connection broke: {broken}"));
        }
        if let Poll::Ready(Err(broken)) = self.poll_read(context) {
            return Poll::Ready(format!("the connection broke: {broken}"));
        }
        self.poll_limit(context)
    }

    /// Ready only with an error.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.writing.shrink_to(IDLE_SIZE);
                self.written = 0;
                if !self.collect(context) {
                    if !self.flushed {
                        std::task::ready!(Pin::new(&mut self.stream).poll_flush(context))?;
                        self.flushed = true;
                    }
                    return Poll::Pending;
                }
            }
            let rest = &self.writing[self.written..];
            match std::task::ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            self.flushed = false;
        }
    }

    /// Takes over what was handed in; false when that is nothing, and the driver will be woken.
    fn collect(&mut self, context: &mut Context<'_>) -> bool {
        let mut outgoing = self.line.lock();
        if outgoing.bytes.is_empty() {
            outgoing.driver = Some(context.waker().clone());
            return false;
        }
        std::mem::swap(&mut self.writing, &mut outgoing.bytes);
        let now = Instant::now();
        self.waiting.extend(outgoing.waiters.drain(..).map(|waiter| (waiter, now)));
        true
    }

    /// Ready only with an error.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let length = self.reading.len();
            self.reading.reserve(READ_SIZE);
            let mut buffer = ReadBuf::uninit(self.reading.spare_capacity_mut());
            std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let read = buffer.filled().len();
            if read == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server")));
            }
            // SAFETY: `poll_read` initialised that many bytes of the spare capacity.
            unsafe { self.reading.set_len(length + read) };
            self.answer()?;
        }
    }

    /// Hands out every reply that is whole.
    fn answer(&mut self) -> io::Result<()> {
        let garbled = |_| io::Error::new(io::ErrorKind::InvalidData, "what it sends is not the Redis protocol");
        let mut at = 0;
        while at < self.reading.len()
            && let Some(length) = self.scanner.find_end(&self.reading[at..]).map_err(garbled)?
        {
            let reply = resp::parse(&self.reading[at..at + length]).map_err(garbled)?;
            at += length;
            self.scanner = Scanner::default();
            let Some((waiter, _)) = self.waiting.pop_front() else {
                // Before it closes, a server says why: unasked.
                let why = match reply {
                    Value::ServerError(error) => Error::from(&error).to_string(),
                    _ => "an answer nobody asked for".to_owned(),
                };
                return Err(io::Error::other(why));
            };
            // Who does not wait any more wants no answer.
            let _ = waiter.send(Ok(reply));
        }
        self.reading.drain(..at);
        if self.reading.is_empty() {
            self.reading.shrink_to(IDLE_SIZE);
        }
        Ok(())
    }

    /// Whether the oldest request has waited too long.
    fn poll_limit(&mut self, context: &mut Context<'_>) -> Poll<String> {
        let Some(limit) = self.limit else { return Poll::Pending };
        loop {
            let Some((_, since)) = self.waiting.front() else { return Poll::Pending };
            let deadline = *since + limit;
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            // Set for an older request, it rings early: only then is it set anew.
            if alarm.is_elapsed() {
                if Instant::now() >= deadline {
                    return Poll::Ready(format!("no answer within {} ms", limit.as_millis()));
                }
                alarm.as_mut().reset(deadline);
            }
            std::task::ready!(alarm.as_mut().poll(context));
        }
    }

    /// Tells all who wait.
    fn end(&mut self, why: &str) {
        let unsent = {
            let mut outgoing = self.line.lock();
            outgoing.closed = true;
            std::mem::take(&mut outgoing.waiters)
        };
        for (waiter, _) in self.waiting.drain(..) {
            let _ = waiter.send(Err(Error::broker(why, true)));
        }
        for waiter in unsent {
            let _ = waiter.send(Err(Error::broker(why, false)));
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.end("the connection was closed");
    }
}
