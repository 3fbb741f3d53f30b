//! `Hub`: what all queues of this process share on their way to one server: the runtime and the connections. Owns when
//! they start, end and are forgotten; knows no function.

use std::collections::HashMap;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::call::dispatch::{Dispatcher, Request};
use crate::engine::mailbox::Reader;
use crate::engine::registry::Registry;
use crate::engine::runtime::Runtime;
use crate::engine::turns::Turns;
use crate::lua::protocol::Protocol;
use crate::wire::address::Place;
use crate::wire::connection::{Connector, Direct, Link, Options};
use crate::wire::error::Error;

/// What two queues must have in common to share a hub.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    url: String,
    /// Of their keys: what is recorded under it is checked once a connection.
    prefix: String,
    options: Options,
    replicated: bool,
}

// This lock and those of hubs are taken only by threads attached to Python and never across a wait: a thread that forks
// is attached too, so the child never finds them locked.
static HUBS: Mutex<Option<HashMap<Key, Weak<Hub>>>> = Mutex::new(None);

/// The way of this process to one server; nothing of it is there before it is used.
pub struct Hub {
    /// For others to be made from: what it learned itself would be another process's after a fork.
    connector: Connector,
    replicated: bool,
    live: Mutex<Option<Live>>,
}

/// What lives between two forks, and how many queues use it.
struct Live {
    running: Arc<Running>,
    queues: usize,
}

/// What an event loop has of a server that drives its own runtime.
struct Apart {
    dispatcher: Dispatcher,
    reader: Arc<Reader>,
}

/// By the number of the loop's runtime.
type OfLoop = (u64, Weak<Apart>);

/// On which runtime one queue's calls from an event loop go on, and by which connections.
#[derive(Clone)]
pub struct Way {
    pub dispatcher: Dispatcher,
    pub reader: Arc<Reader>,
    handle: Handle,
    /// Kept for the other queues of the loop; None on the I/O thread.
    apart: Option<Arc<Apart>>,
}

impl Way {
    /// Of the runtime on which its calls go on.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether the loop drives it itself.
    pub fn is_driven(&self) -> bool {
        self.apart.is_some()
    }
}

/// The runtime and the connections on it. In a forked child nothing of it may be touched, so there it is not even
/// dropped.
pub struct Running {
    runtime: ManuallyDrop<Runtime>,
    dispatcher: ManuallyDrop<Dispatcher>,
    registry: ManuallyDrop<Arc<Registry>>,
    reader: ManuallyDrop<Arc<Reader>>,
    /// Of each loop that drives a runtime of its own.
    apart: ManuallyDrop<Mutex<Vec<OfLoop>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.runtime.is_mine() {
            // SAFETY: none is used after this: `self` is being dropped.
            unsafe {
                ManuallyDrop::drop(&mut self.runtime);
                ManuallyDrop::drop(&mut self.dispatcher);
                ManuallyDrop::drop(&mut self.registry);
                ManuallyDrop::drop(&mut self.reader);
                ManuallyDrop::drop(&mut self.apart);
            }
        }
    }
}

impl Hub {
    /// That of this process for such queues.
    ///
    /// # Errors
    /// As [`Connector::new`].
    pub fn shared(url: &str, prefix: &str, options: Options, replicated: bool) -> Result<Arc<Self>, Error> {
        let key = Key { url: url.to_owned(), prefix: prefix.to_owned(), options, replicated };
        let mut hubs = lock(&HUBS);
        let hubs = hubs.get_or_insert_default();
        if let Some(hub) = hubs.get(&key).and_then(Weak::upgrade) {
            return Ok(hub);
        }
        let hub = Arc::new(Self::new(Connector::new(url, options)?, replicated));
        hubs.retain(|_, hub| hub.strong_count() > 0);
        hubs.insert(key, Arc::downgrade(&hub));
        Ok(hub)
    }

    /// One to the server at `place` and no other.
    pub fn only(&self, place: Place) -> Arc<Self> {
        Arc::new(Self::new(self.connector.only(place), false))
    }

    fn new(connector: Connector, replicated: bool) -> Self {
        Self { connector, replicated, live: Mutex::new(None) }
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Enters a queue; starts the runtime when there is none or when it is that of the parent process. Call it attached
    /// to Python.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn enter(&self, base: &str) -> Result<State, Error> {
        let mut live = lock(&self.live);
        if live.as_ref().is_some_and(|live| !live.running.runtime.is_mine()) {
            // Not dropped: the count of its `Arc` may be off by what other threads held.
            std::mem::forget(live.take());
        }
        let live = match &mut *live {
            Some(live) => live,
            none => {
                let link = Link::new(self.connector.another());
                let registry = ManuallyDrop::new(Arc::new(Registry::new(Protocol::of_base(base).0)));
                let dispatcher = Dispatcher::new(link, base);
                let dispatcher = if self.replicated { dispatcher.replicated() } else { dispatcher };
                let runtime = ManuallyDrop::new(Runtime::new()?);
                let dispatcher = ManuallyDrop::new(dispatcher);
                let running = Running {
                    runtime,
                    dispatcher,
                    registry,
                    reader: ManuallyDrop::default(),
                    apart: ManuallyDrop::default(),
                };
                none.insert(Live { running: Arc::new(running), queues: 0 })
            }
        };
        live.queues += 1;
        let dispatcher = ManuallyDrop::new(live.running.dispatcher.on(base));
        Ok(State { running: live.running.clone(), dispatcher, closed: ManuallyDrop::new(watch::Sender::new(false)) })
    }

    /// A queue is done with: what it has under way ends. Gives what is to be stopped when it was the last one.
    pub fn leave(&self, state: &State) -> Option<Arc<Running>> {
        if !state.is_mine() || state.closed.send_replace(true) {
            return None;
        }
        let mut live = lock(&self.live);
        let current = live.as_mut().filter(|live| Arc::ptr_eq(&live.running, &state.running))?;
        current.queues -= 1;
        if current.queues > 0 {
            return None;
        }
        live.take().map(|live| live.running)
    }
}

impl Running {
    fn apart(&self, turns: &Turns) -> Arc<Apart> {
        let mut known = lock(&self.apart);
        known.retain(|(_, apart)| apart.strong_count() > 0);
        if let Some(apart) =
            known.iter().find(|(number, _)| *number == turns.number()).and_then(|(_, apart)| apart.upgrade())
        {
            return apart;
        }
        let apart = Arc::new(Apart { dispatcher: self.dispatcher.apart(), reader: Arc::default() });
        known.push((turns.number(), Arc::downgrade(&apart)));
        apart
    }

    /// Ends the thread and the connections, and waits for that no longer than `timeout`.
    pub fn stop(&self, timeout: Duration) {
        let _ = self.runtime.drive(Box::pin(self.registry.told(self.dispatcher.link())), timeout);
        self.runtime.stop(timeout);
    }
}

/// One queue on its hub, until it is closed or the process forks. In a forked child nothing of it may be touched.
pub struct State {
    running: Arc<Running>,
    dispatcher: ManuallyDrop<Dispatcher>,
    closed: ManuallyDrop<watch::Sender<bool>>,
}

impl State {
    /// Whether this process made it.
    pub fn is_mine(&self) -> bool {
        self.running.runtime.is_mine()
    }

    pub fn dispatcher(&self) -> Dispatcher {
        Dispatcher::clone(&self.dispatcher)
    }

    /// The way of an event loop: that which it drives itself, unless it cannot or there is a thread for it, as in a worker's
    /// process.
    ///
    /// # Errors
    /// As [`start_thread`](Self::start_thread).
    pub fn way(&self, turns: Option<&Turns>) -> Result<Way, Error> {
        let runtime = &self.running.runtime;
        match turns.filter(|_| !runtime.has_thread()) {
            Some(turns) => {
                let apart = self.running.apart(turns);
                let dispatcher = apart.dispatcher.on(self.dispatcher.base());
                let (reader, handle) = (apart.reader.clone(), turns.handle().clone());
                Ok(Way { dispatcher, reader, handle, apart: Some(apart) })
            }
            None => {
                self.start_thread()?;
                let (dispatcher, reader) = (self.dispatcher(), Arc::clone(&self.running.reader));
                Ok(Way { dispatcher, reader, handle: runtime.handle().clone(), apart: None })
            }
        }
    }

    /// Whether a way is not to be used any more.
    pub fn is_left(&self, way: &Way) -> bool {
        way.is_driven() && self.running.runtime.has_thread()
    }

    /// Makes the queue known at the server, without waiting for it; on that way, or beside blocking calls.
    pub fn register(&self, way: Option<&Way>) {
        let registry = &self.running.registry;
        if registry.add(Protocol::of_base(self.dispatcher.base()).1, way.is_some_and(Way::is_driven)) {
            let (handle, dispatcher) = match way {
                Some(way) => (&way.handle, &way.dispatcher),
                None => (self.running.runtime.handle(), &*self.dispatcher),
            };
            handle.spawn(Arc::clone(registry).tell(dispatcher.link().clone()));
        }
    }

    /// From now on what is spawned goes on by itself, on a thread.
    ///
    /// # Errors
    /// As [`Runtime::start_thread`].
    pub fn start_thread(&self) -> Result<(), Error> {
        self.running.runtime.start_thread()
    }

    /// The same, on that way.
    pub fn spawn_on(&self, way: &Way, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let open = self.until_closed(future);
        way.handle.spawn(async move { open.await.unwrap_or_default() }).abort_handle()
    }

    /// Has `future` run, until the queue is closed.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let open = self.until_closed(future);
        self.running.runtime.spawn(async move { open.await.unwrap_or_default() }).abort_handle()
    }

    /// The connection to send a call on by hand, beside which nothing has to go on; None where it has to be driven.
    pub fn direct(&self, request: &Request) -> Option<Direct> {
        let is_quiet = self.running.runtime.is_quiet() && !self.is_closed();
        is_quiet.then(|| self.dispatcher.direct(request)).flatten()
    }

    /// Becomes true when the queue is closed.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// For [`drive`](Self::drive): ends with an error when the queue is closed.
    pub fn call<T>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send,
    ) -> impl Future<Output = Result<T, Error>> + Send {
        // Boxed: each of those around it would hold it twice.
        let (running, open) = (self.running.clone(), self.until_closed(Box::pin(future)));
        async move {
            running.runtime.catch_up().await;
            open.await.unwrap_or_else(|| Err(Error::closed(true)))
        }
    }

    /// As [`Runtime::drive`].
    ///
    /// # Errors
    /// As that.
    pub fn drive<F: Future + Unpin>(&self, future: F, limit: Duration) -> Result<Option<F::Output>, Error> {
        self.running.runtime.drive(future, limit)
    }

    fn until_closed<F: Future + Send>(&self, future: F) -> impl Future<Output = Option<F::Output>> + Send + use<F> {
        let mut closed = self.closed.subscribe();
        async move {
            tokio::select! {
                output = future => Some(output),
                _ = closed.wait_for(|closed| *closed) => None,
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.is_mine() {
            // SAFETY: neither is used after this: `self` is being dropped.
            unsafe {
                ManuallyDrop::drop(&mut self.dispatcher);
                ManuallyDrop::drop(&mut self.closed);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
