//! The list of queues at the server: who uses a queue makes it known there, without waiting for it.
//!
//! Owns: which names are still to be told, and when it is tried again. Must not know: what the list is for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// Somebody tells them, or waits until that can be done.
    is_served: bool,
    /// A command is under way.
    is_sent: bool,
}

impl Registry {
    pub fn new(prefix: &str) -> Self {
        let key = Protocol::get().shared_key("queues", prefix);
        Self { key, waiting: Mutex::default(), told: Notify::new() }
    }

    /// Adds a queue; whether somebody should [`tell`](Self::tell) the server now.
    #[must_use]
    pub fn add(&self, name: &str) -> bool {
        let mut waiting = self.waiting();
        waiting.names.insert(name.to_owned());
        waiting.is_sent |= !waiting.is_served;
        !std::mem::replace(&mut waiting.is_served, true)
    }

    /// Tells the server on this way, with as much patience as it takes.
    pub async fn tell(self: Arc<Self>, link: Link) {
        let link = link.for_key(&self.key);
        let serving = Serving(&self);
        while let Some(names) = self.next() {
            let mut add = redis::cmd("SADD");
            add.arg(&self.key).arg(&names);
            // A user that may not do this does without; what else was refused is not for us to mend.
            if let Err(Error::Broker { .. }) = link.query(&add).await {
                self.put_back(names);
                connected(&link).await;
            }
        }
        std::mem::forget(serving);
    }

    /// Resolves when nothing is on its way to the server.
    pub async fn told(&self) {
        while self.waiting().is_sent {
            self.told.notified().await;
        }
    }

    fn next(&self) -> Option<BTreeSet<String>> {
        let mut waiting = self.waiting();
        let names: BTreeSet<_> = waiting.names.iter().take(MOST).cloned().collect();
        waiting.names.retain(|name| !names.contains(name));
        waiting.is_sent = !names.is_empty();
        if names.is_empty() {
            waiting.is_served = false;
            self.told.notify_one();
            return None;
        }
        Some(names)
    }

    fn put_back(&self, names: BTreeSet<String>) {
        let mut waiting = self.waiting();
        waiting.names.extend(names);
        waiting.is_sent = false;
        self.told.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who tells the names; ended in the middle, the next one does.
struct Serving<'a>(&'a Registry);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        (waiting.is_served, waiting.is_sent) = (false, false);
        self.0.told.notify_one();
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
