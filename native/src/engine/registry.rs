//! The list of queues at the server: who uses a queue makes it known there, without waiting for it.
//!
//! Owns: which names are still to be told, and when it is tried again. Must not know: what the list is for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::sync::Notify;

use crate::lua::protocol::Protocol;
use crate::wire::clock::timeout;
use crate::wire::connection::Link;
use crate::wire::error::Error;

/// Names that one command tells at most.
const MOST: usize = 1000;
/// How long it is waited for a connection before one is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The queues of one prefix that this process uses.
pub struct Registry {
    key: String,
    waiting: Mutex<Waiting>,
    told: Notify,
}

#[derive(Default)]
struct Waiting {
    names: BTreeSet<String>,
    /// Those of the command under way.
    sent: BTreeSet<String>,
    /// Somebody tells them, or waits until that can be done.
    is_served: bool,
    /// Who does goes on only while an event loop turns.
    is_driven: bool,
    /// A command is under way.
    is_sent: bool,
}

impl Registry {
    pub fn new(prefix: &str) -> Self {
        let key = Protocol::get().shared_key("queues", prefix);
        Self { key, waiting: Mutex::default(), told: Notify::new() }
    }

    /// Adds a queue; whether somebody should [`tell`](Self::tell) the server now, who is driven by an event loop or not.
    #[must_use]
    pub fn add(&self, name: &str, is_driven: bool) -> bool {
        let mut waiting = self.waiting();
        waiting.names.insert(name.to_owned());
        if waiting.is_served {
            return false;
        }
        (waiting.is_served, waiting.is_sent, waiting.is_driven) = (true, true, is_driven);
        true
    }

    /// Tells the server on this way, with as much patience as it takes.
    pub fn tell(self: Arc<Self>, link: Link) -> impl Future<Output = ()> + Send {
        // Also where it ends before it began, with the loop that was to drive it.
        let serving = Serving(Some(self.clone()));
        async move {
            let link = link.for_key(&self.key);
            while let Some(names) = self.next() {
                // A user that may not do this does without; what else was refused is not for us to mend.
                if let Err(Error::Broker { .. }) = self.send(&link, &names).await {
                    self.put_back(true);
                    connected(&link).await;
                }
            }
            serving.end();
        }
    }

    /// Resolves when nothing is on its way to the server. What a loop was about to tell is told on this way: the loop may be
    /// that of the caller, who keeps it from turning.
    pub async fn told(&self, link: &Link) {
        let of_loop: Vec<String> = {
            let waiting = self.waiting();
            let is_of_loop = waiting.is_sent && waiting.is_driven;
            waiting.names.union(&waiting.sent).filter(|_| is_of_loop).cloned().collect()
        };
        if !of_loop.is_empty() {
            let link = link.for_key(&self.key);
            for names in of_loop.chunks(MOST) {
                let _ = self.send(&link, names).await;
            }
            return;
        }
        while self.waiting().is_sent {
            self.told.notified().await;
        }
    }

    async fn send(&self, link: &Link, names: &[String]) -> Result<Value, Error> {
        link.query(redis::cmd("SADD").arg(&self.key).arg(names)).await
    }

    /// Those to send; the ones before have been.
    fn next(&self) -> Option<Vec<String>> {
        let mut waiting = self.waiting();
        let names: Vec<_> = waiting.names.iter().take(MOST).cloned().collect();
        waiting.sent = names.iter().filter_map(|name| waiting.names.take(name)).collect();
        waiting.is_sent = !names.is_empty();
        if names.is_empty() {
            waiting.is_served = false;
            self.told.notify_one();
            return None;
        }
        Some(names)
    }

    fn put_back(&self, is_served: bool) {
        let mut waiting = self.waiting();
        let sent = std::mem::take(&mut waiting.sent);
        waiting.names.extend(sent);
        (waiting.is_served, waiting.is_sent) = (is_served, false);
        self.told.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who tells the names; ended in the middle, the next one does.
struct Serving(Option<Arc<Registry>>);

impl Serving {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(registry) = &self.0 {
            registry.put_back(false);
        }
    }
}

async fn connected(link: &Link) {
    loop {
        let _ = timeout(LOOK_AGAIN, link.made()).await;
        if link.is_connected() {
            return;
        }
    }
}
