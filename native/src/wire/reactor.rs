//! Sockets of a runtime that an event loop drives by turns: the loop watches their descriptors and says which are ready.
//! Must not know: which loop that is, nor what is sent.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use redis::io::tcp::socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::wire::clock::Deadlines;

thread_local! {
    /// Of the runtime that this thread drives at the moment.
    static CURRENT: RefCell<Option<Arc<Reactor>>> = const { RefCell::new(None) };
}

/// What an event loop is to do about a socket.
#[derive(Debug)]
pub enum Watch {
    /// Tell when there is something to read, each time.
    Read(RawFd),
    /// Do not, for now.
    Pause(RawFd),
    /// Tell once when it can be written to.
    Write(RawFd),
    /// It is done with: to be closed when the loop does not watch it any more.
    Close(OwnedFd),
}

/// What a runtime that is driven by turns waits for.
pub struct Reactor {
    deadlines: Arc<Deadlines>,
    sockets: Mutex<Sockets>,
    /// How many turns have begun.
    turns: AtomicU64,
    /// Has the next turn come, from any thread.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Sockets {
    open: HashMap<RawFd, Ready>,
    wishes: Vec<Watch>,
    /// Who waits for the next turn.
    deferred: Vec<Waker>,
}

/// What is known of one socket, and who waits for it.
#[derive(Default)]
struct Ready {
    readable: bool,
    writable: bool,
    watched: bool,
    /// Told as readable while nobody waited for it.
    ignored: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// While this lives, what runs on this thread belongs to a reactor.
pub struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(None);
        Deadlines::enter(None);
    }
}

impl Reactor {
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            deadlines: Arc::default(),
            sockets: Mutex::default(),
            turns: AtomicU64::new(0),
            wake: Box::new(wake),
        })
    }

    /// That of the runtime which this thread drives by turns, if it does.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }

    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Entered {
        CURRENT.set(Some(self.clone()));
        Deadlines::enter(Some(self.deadlines.clone()));
        Entered(())
    }

    pub fn deadlines(&self) -> &Arc<Deadlines> {
        &self.deadlines
    }

    /// Has the next turn come, from any thread.
    pub fn wake(&self) {
        (self.wake)();
    }

    /// A turn begins: who waited for it goes on.
    pub fn begin_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let deferred = std::mem::take(&mut self.lock().deferred);
        deferred.into_iter().for_each(Waker::wake);
    }

    /// Whether somebody waits for the next turn.
    pub fn is_deferred(&self) -> bool {
        !self.lock().deferred.is_empty()
    }

    /// Resolves in the loop's next turn: when it has done what follows from this one.
    pub async fn next_turn(&self) {
        let turn = self.turns.load(Ordering::Relaxed);
        std::future::poll_fn(|cx| {
            if self.turns.load(Ordering::Relaxed) != turn {
                return Poll::Ready(());
            }
            self.lock().deferred.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What has changed since the last time, in this order.
    pub fn wishes(&self) -> Vec<Watch> {
        std::mem::take(&mut self.lock().wishes)
    }

    /// Whether the loop tells when there is something to read.
    pub fn watches(&self, descriptor: RawFd) -> bool {
        self.lock().open.get(&descriptor).is_some_and(|ready| ready.watched)
    }

    /// The loop found the socket readable.
    pub fn readable(&self, descriptor: RawFd) {
        let mut sockets = self.lock();
        let Sockets { open, wishes, .. } = &mut *sockets;
        let Some(ready) = open.get_mut(&descriptor) else { return };
        match ready.reader.take() {
            Some(reader) => {
                ready.readable = true;
                reader.wake();
            }
            // Nobody reads it, and the loop would tell the same again and again.
            None if std::mem::replace(&mut ready.ignored, true) && ready.watched => {
                ready.watched = false;
                wishes.push(Watch::Pause(descriptor));
            }
            None => {}
        }
    }

    /// The loop found the socket writable.
    pub fn writable(&self, descriptor: RawFd) {
        if let Some(ready) = self.lock().open.get_mut(&descriptor) {
            ready.writable = true;
            if let Some(writer) = ready.writer.take() {
                writer.wake();
            }
        }
    }

    /// Has everybody who waits for something to read look themselves: the loop may not have told yet.
    pub fn look(&self) {
        for ready in self.lock().open.values_mut() {
            if let Some(reader) = ready.reader.take() {
                ready.readable = true;
                reader.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to the first address of a name that takes it.
    pub(super) async fn connect_tcp(self: &Arc<Self>, host: &str, port: u16) -> Result<Stream> {
        let mut last = Error::new(ErrorKind::InvalidInput, "could not resolve to any address");
        for address in self.resolve(host, port).await? {
            match self.connect(&address.into()).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) async fn connect_unix(self: &Arc<Self>, path: &Path) -> Result<Stream> {
        self.connect(&SockAddr::unix(path)?).await
    }

    async fn resolve(self: &Arc<Self>, host: &str, port: u16) -> Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let (resolved, answer) = oneshot::channel();
        let (host, reactor) = (host.to_owned(), self.clone());
        tokio::task::spawn_blocking(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            let _ = resolved.send(found);
            (reactor.wake)();
        });
        answer.await.map_err(|_| Error::other("the name was not resolved"))?
    }

    async fn connect(self: &Arc<Self>, address: &SockAddr) -> Result<Stream> {
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let is_under_way = match socket.connect(address) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => true,
            Err(error) => return Err(error),
        };
        if address.domain() != Domain::UNIX {
            socket.set_tcp_nodelay(true)?;
        }
        let descriptor = socket.as_raw_fd();
        self.lock().open.insert(descriptor, Ready { writable: !is_under_way, ..Ready::default() });
        let stream = Stream { socket: Some(socket), reactor: self.clone() };
        std::future::poll_fn(|cx| stream.poll_writable(cx)).await;
        match stream.socket().take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }
}

/// A connection that a reactor's event loop watches.
pub struct Stream {
    /// Taken when this is dropped.
    socket: Option<Socket>,
    reactor: Arc<Reactor>,
}

impl Stream {
    pub(super) fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("it is not dropped yet")
    }

    fn poll_writable(&self, cx: &Context<'_>) -> Poll<()> {
        let descriptor = self.socket().as_raw_fd();
        let mut sockets = self.reactor.lock();
        let Sockets { open, wishes, .. } = &mut *sockets;
        let ready = open.entry(descriptor).or_default();
        if ready.writable {
            return Poll::Ready(());
        }
        if ready.writer.replace(cx.waker().clone()).is_none() {
            wishes.push(Watch::Write(descriptor));
        }
        Poll::Pending
    }

    fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        let descriptor = self.socket().as_raw_fd();
        let mut sockets = self.reactor.lock();
        let Sockets { open, wishes, .. } = &mut *sockets;
        let ready = open.entry(descriptor).or_default();
        if ready.readable {
            return Poll::Ready(());
        }
        ready.ignored = false;
        ready.reader = Some(cx.waker().clone());
        if !std::mem::replace(&mut ready.watched, true) {
            wishes.push(Watch::Read(descriptor));
        }
        Poll::Pending
    }

    fn note(&self, change: impl FnOnce(&mut Ready)) {
        if let Some(ready) = self.reactor.lock().open.get_mut(&self.socket().as_raw_fd()) {
            change(ready);
        }
    }

    fn poll_send(&self, cx: &Context<'_>, send: impl Fn(&Socket) -> Result<usize>) -> Poll<Result<usize>> {
        loop {
            std::task::ready!(self.poll_writable(cx));
            match send(self.socket()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.note(|ready| ready.writable = false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket().as_raw_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        loop {
            std::task::ready!(self.poll_readable(cx));
            // SAFETY: `recv` does not make anything uninitialized.
            let space: &mut [MaybeUninit<u8>] = unsafe { buffer.unfilled_mut() };
            let length = space.len();
            match self.socket().recv(space) {
                Ok(received) => {
                    if 0 < received && received < length {
                        // That was all: what comes later is told.
                        self.note(|ready| ready.readable = false);
                    }
                    // SAFETY: `recv` filled so many bytes.
                    unsafe { buffer.assume_init(received) };
                    buffer.advance(received);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.note(|ready| ready.readable = false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_send(cx, |socket| socket.send_with_flags(bytes, libc::MSG_NOSIGNAL))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        self.poll_send(cx, |socket| socket.send_vectored_with_flags(bytes, libc::MSG_NOSIGNAL))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.socket().shutdown(std::net::Shutdown::Write))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        let mut sockets = self.reactor.lock();
        sockets.open.remove(&socket.as_raw_fd());
        // The other side hears of it at once, even where the loop does not turn.
        let _ = socket.shutdown(std::net::Shutdown::Both);
        sockets.wishes.push(Watch::Close(socket.into()));
    }
}
