//! Who reads the mailboxes of clients, all of a server on one connection.
//!
//! Owns: which are open, the name that each has on each connection. Must not know: what a message says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{split, sweep, take};
use crate::call::dispatch::Dispatcher;
use crate::engine::events::{Event, Inbox, Level};
use crate::lua::protocol::Protocol;
use crate::wire::clock::sleep;
use crate::wire::connection::{Backoff, Connection, Link};
use crate::wire::error::Error;

/// How long a client blocks before it asks again.
const CLIENT_BLOCK: Duration = Duration::from_secs(10);
/// A connection that lived shorter did not end the trouble before it.
const STABLE: Duration = Duration::from_secs(2);
/// More than so many mailboxes are not blocked on without a pause, of so long for each of them.
const MANY: usize = 100;
const PER_MAILBOX: Duration = Duration::from_micros(10);
/// Pause between two lines about the same outage.
const SAY_AGAIN: Duration = Duration::from_secs(2);

/// Reads the mailboxes of clients on one connection: those of all queues of a server, or of one slot of a cluster. Each
/// connection reads mailboxes of its own, `<name>:<generation>`: a half-open one before it may still swallow what is sent
/// to the old ones.
#[derive(Default)]
pub struct Reader {
    mailboxes: Mutex<Mailboxes>,
    /// The last mailbox was closed.
    emptied: Notify,
}

#[derive(Default)]
struct Mailboxes {
    open: BTreeMap<u64, Mailbox>,
    /// How often one was opened or closed.
    changes: u64,
    is_read: bool,
    /// A list that the reader blocks on, too: what comes there ends the block. No mailbox, whose messages are also taken
    /// in other ways.
    wake: Option<String>,
    /// The reader was told of new ones, and has not looked yet.
    is_told: bool,
}

struct Mailbox {
    base: String,
    name: String,
    inbox: Arc<Inbox>,
    /// The name it has on the connection of that generation.
    generation: u64,
}

impl Mailbox {
    fn full_name(&self) -> String {
        format!("{}:{}", self.name, self.generation)
    }

    fn key(&self) -> String {
        Protocol::get().key("mailbox", &self.base, &self.full_name())
    }
}

/// A mailbox that is read while this lives.
struct Joined {
    reader: Arc<Reader>,
    number: u64,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut mailboxes = self.reader.mailboxes();
        mailboxes.open.remove(&self.number);
        mailboxes.changes += 1;
        if mailboxes.open.is_empty() {
            self.reader.emptied.notify_one();
        }
    }
}

/// Has a client's mailbox read for ever: by the reader of all, where the server lets one connection read all.
pub async fn listen(dispatcher: Dispatcher, inbox: Arc<Inbox>, name: String, of_all: Arc<Reader>) {
    let (link, mut backoff) = (dispatcher.link(), Backoff::default());
    let reader = loop {
        match link.connection().await {
            Ok(connection) if connection.server().cluster => break Arc::default(),
            Ok(_) => break of_all,
            Err(_) => link.pause(&mut backoff).await,
        }
    };
    let mailbox = Mailbox { base: dispatcher.base().to_owned(), name, inbox, generation: 0 };
    let _joined = reader.clone().join(mailbox, link).await;
    std::future::pending().await
}

impl Reader {
    async fn join(self: Arc<Self>, mailbox: Mailbox, link: &Link) -> Joined {
        let (joined, wake) = {
            let mut mailboxes = self.mailboxes();
            let number = mailboxes.changes;
            mailboxes.changes += 1;
            mailboxes.open.insert(number, mailbox);
            if !std::mem::replace(&mut mailboxes.is_read, true) {
                tokio::spawn(self.clone().run(link.clone()));
            }
            let is_told = std::mem::replace(&mut mailboxes.is_told, true);
            (Joined { reader: self.clone(), number }, mailboxes.wake.clone().filter(|_| !is_told))
        };
        if let Some(key) = wake {
            // Where this fails the block ends by itself.
            let (mut push, mut expire) = (redis::cmd("RPUSH"), redis::cmd("PEXPIRE"));
            push.arg(&key).arg("");
            expire.arg(&key).arg(CLIENT_BLOCK.as_millis() as u64);
            let _ = tokio::join!(link.query(&push), link.query(&expire));
        }
        joined
    }

    /// Reads until no mailbox is open.
    async fn run(self: Arc<Self>, link: Link) {
        let mut backoff = Backoff::default();
        let mut generation = 0u64;
        let mut said_at: Option<Instant> = None;
        loop {
            let error = match link.connector().dedicated().await {
                Ok(connection) => {
                    generation += 1;
                    let since = Instant::now();
                    let error = tokio::select! {
                        error = self.read(&connection, generation) => Some(error),
                        () = self.emptied.notified() => None,
                    };
                    if since.elapsed() > STABLE {
                        backoff.reset();
                    }
                    error
                }
                Err(error) => Some(error),
            };
            let inboxes = {
                let mut mailboxes = self.mailboxes();
                mailboxes.is_read = !mailboxes.open.is_empty();
                if !mailboxes.is_read {
                    return;
                }
                mailboxes.open.values().map(|mailbox| mailbox.inbox.clone()).collect::<Vec<_>>()
            };
            let Some(error) = error else { continue };
            if said_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                said_at = Some(Instant::now());
                for inbox in inboxes {
                    let line = format!("waiting for results was interrupted: {error}; trying again");
                    inbox.log(Level::Warning, line);
                }
            }
            link.pause(&mut backoff).await;
        }
    }

    /// Hands out messages until the connection fails.
    async fn read(&self, connection: &Connection, generation: u64) -> Error {
        let (mut changes, mut keys, mut inboxes) = (None, Vec::new(), HashMap::new());
        let mut last: Option<String> = None;
        loop {
            if let Some(open) = self.look(generation, &mut changes) {
                keys = open.iter().map(|(key, _)| key.clone()).chain(self.mailboxes().wake.clone()).collect();
                inboxes = open.into_iter().collect();
            }
            if inboxes.is_empty() {
                return std::future::pending().await;
            }
            if let Some(at) = last.as_ref().and_then(|last| keys.iter().position(|key| key == last)) {
                // The first that has something is read: each is first in turn.
                keys.rotate_left(at + 1);
            }
            let told = |key: &str, message: &[u8]| {
                if let Some(inbox) = inboxes.get(key) {
                    deliver(inbox, message);
                }
            };
            let first = last.as_deref().filter(|key| inboxes.contains_key(*key));
            let since = Instant::now();
            match take(connection, first, &keys, CLIENT_BLOCK, told).await {
                Ok(from) => last = from,
                Err(error) => return error,
            }
            if keys.len() <= MANY {
                continue;
            }
            // A block on very many costs the server something: what comes meanwhile is read together, where much does.
            let pause = PER_MAILBOX * keys.len() as u32;
            let much = since.elapsed() < pause;
            sleep(pause).await;
            if much && let Err(error) = sweep(connection, inboxes.keys(), told).await {
                return error;
            }
        }
    }

    /// The mailboxes to read, by their keys, where they are others than after so many changes; those that are new on this
    /// connection are told their names.
    fn look(&self, generation: u64, changes: &mut Option<u64>) -> Option<Vec<(String, Arc<Inbox>)>> {
        let mut mailboxes = self.mailboxes();
        mailboxes.is_told = false;
        if changes.is_none() {
            let one = mailboxes.open.values().next();
            mailboxes.wake = one.map(|one| format!("{}:{generation}:wake", one.key()));
        }
        if changes.replace(mailboxes.changes) == Some(mailboxes.changes) {
            return None;
        }
        let look = |mailbox: &mut Mailbox| {
            if mailbox.generation != generation {
                mailbox.generation = generation;
                mailbox.inbox.push(Event::Listening(mailbox.full_name()));
            }
            (mailbox.key(), mailbox.inbox.clone())
        };
        Some(mailboxes.open.values_mut().map(look).collect())
    }

    fn mailboxes(&self) -> MutexGuard<'_, Mailboxes> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver(inbox: &Inbox, message: &[u8]) {
    match split(message) {
        Some(fields) => inbox.push(Event::Message(fields)),
        None => inbox.log(Level::Warning, "a message in the mailbox is malformed and was dropped"),
    }
}
