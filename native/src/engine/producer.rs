//! Batching: many records submitted one by one leave in few calls.
//!
//! Owns: how records are gathered, how many calls are under way, and what waits when the server does not answer; below, in
//! `chunk`, what leaves in one call. Must not know: which function it calls, nor what a record means.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;

use crate::call::args::Args;
use crate::call::dispatch::Dispatcher;
use crate::engine::events::{Event, Inbox, Unanswered};
use crate::lua::protocol::Function;
use crate::wire::clock::Instant;
use crate::wire::error::Error;

mod alone;
mod chunk;

pub use alone::Alone;
use chunk::{Answers, BYTES, tail, wrong_width};
pub use chunk::{Chunk, split};

/// Calls under way at once: while the server works on one, the next one travels.
const UNDER_WAY: usize = 2;
/// Bytes that may wait, and those of one batch more, while the server is silent: who submits more is told so at once.
const WAITING: usize = 64 << 20;
/// How long a server that is well may take for an answer.
const SILENT: Duration = Duration::from_secs(2);

/// Records that were submitted and not yet flushed.
#[derive(Default)]
pub struct Pending {
    chunks: Vec<Chunk>,
}

impl Pending {
    /// Adds one record, appended by `write`, whose answer goes to `ticket`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the function takes no records or the record is of another width; `write`'s own.
    pub fn submit<E: From<Error>>(
        &mut self,
        function: &'static Function,
        repeat: bool,
        ticket: u64,
        write: impl FnOnce(&mut Args) -> Result<(), E>,
    ) -> Result<(), E> {
        let width = tail(function)?.fields.len();
        let fits = |chunk: &Chunk| chunk.is_like(function, repeat) && !chunk.is_full();
        if !self.chunks.last().is_some_and(fits) {
            self.chunks.push(Chunk::new(function, repeat, Answers::Each(Vec::new())));
        }
        let chunk = self.chunks.last_mut().expect("one was just added");
        let before = chunk.records.len();
        let mut written = write(&mut chunk.records);
        if written.is_ok() && chunk.records.len() != before + width {
            written = Err(wrong_width(function, width).into());
        }
        match (&written, &mut chunk.answers) {
            (Ok(()), Answers::Each(tickets)) => tickets.push(ticket),
            _ => chunk.records.truncate(before),
        }
        written
    }

    /// What was gathered is not sent any more.
    pub fn discard(&mut self, inbox: &Inbox) {
        self.take().iter().for_each(|chunk| chunk.tell(Err(Error::closed(false)), inbox));
    }

    /// What was gathered, to be sent in this order.
    pub fn take(&mut self) -> Vec<Chunk> {
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks.retain(|chunk| !chunk.records.is_empty());
        chunks
    }
}

/// The chunks of one queue, sent in their order, a few at once.
pub struct Outgoing {
    dispatcher: Dispatcher,
    inbox: Arc<Inbox>,
    queue: Mutex<Queue>,
}

/// Chunks that wait for their call.
struct Queue {
    chunks: VecDeque<Chunk>,
    /// Who sends them at the moment.
    senders: usize,
    /// Of the chunks of all queues that share a server.
    bytes: Arc<AtomicUsize>,
    patience: Duration,
    /// When the server answered last, or had nothing to answer: who waits behind others that are answered is not late.
    moved_at: Instant,
}

impl Outgoing {
    pub fn new(dispatcher: Dispatcher, inbox: Arc<Inbox>) -> Self {
        let patience = dispatcher.link().connector().options().broker_timeout;
        let queue = Queue::new(patience, dispatcher.waiting_bytes().clone());
        Self { dispatcher, inbox, queue: Mutex::new(queue) }
    }

    /// Appends chunks; how many more should [`send`](Self::send) them now.
    #[must_use]
    pub fn line_up(&self, chunks: Vec<Chunk>) -> usize {
        let mut queue = lock(&self.queue);
        if queue.senders == 0 {
            queue.moved_at = Instant::now();
        }
        for chunk in chunks {
            match queue.refusal(&chunk, self.dispatcher.link().connector().describe()) {
                Some(error) => chunk.tell(Err(error), &self.inbox),
                None => queue.push(chunk),
            }
        }
        let more = queue.chunks.len().min(UNDER_WAY.saturating_sub(queue.senders));
        queue.senders += more;
        more
    }

    /// Whether nothing waits and nothing is under way.
    fn is_idle(&self) -> bool {
        let queue = lock(&self.queue);
        queue.senders == 0 && queue.chunks.is_empty()
    }

    /// The server has answered.
    fn moved(&self) {
        lock(&self.queue).moved_at = Instant::now();
    }

    /// Sends chunks until none waits.
    pub async fn send(self: Arc<Self>) {
        while let Some((chunk, deadline)) = self.next() {
            // Of its own, so that one that panics harms only itself.
            let sent = tokio::spawn(deliver(self.dispatcher.clone(), self.inbox.clone(), chunk, deadline)).await;
            if matches!(sent, Ok(true)) {
                self.moved();
            }
        }
    }

    /// The next chunk, for one of the senders, and until when it has time; the sender ends where there is none.
    fn next(&self) -> Option<(Chunk, Instant)> {
        let mut queue = lock(&self.queue);
        let next = queue.pop();
        if next.is_none() {
            queue.senders -= 1;
        }
        next
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut queue = lock(&self.queue);
        while let Some((chunk, _)) = queue.pop() {
            chunk.tell(Err(Error::closed(false)), &self.inbox);
        }
    }
}

/// Sends the chunks of one batch for somebody who waits for them, and replies the batch's one event.
pub async fn send(dispatcher: Dispatcher, inbox: Arc<Inbox>, chunks: Vec<Chunk>) -> Result<Event, Error> {
    let outgoing = Arc::new(Outgoing::new(dispatcher, inbox.clone()));
    let mut senders = JoinSet::new();
    for _ in 0..outgoing.line_up(chunks) {
        senders.spawn(outgoing.clone().send());
    }
    senders.join_all().await;
    let answer = inbox.take().pop();
    answer.map(|(_, event)| event).ok_or_else(|| Error::broker("the batch was not answered", true))
}

impl Queue {
    fn new(patience: Duration, bytes: Arc<AtomicUsize>) -> Self {
        Self { chunks: VecDeque::new(), senders: 0, bytes, patience, moved_at: Instant::now() }
    }

    /// Why a chunk may not wait, too.
    fn refusal(&self, chunk: &Chunk, server: &str) -> Option<Error> {
        if let Some(error) = chunk.left_out() {
            return Some(error);
        }
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes < WAITING || !chunk.is_first() || self.moved_at.elapsed() < SILENT {
            return None;
        }
        let (mebibytes, silent_s) = (bytes >> 20, self.moved_at.elapsed().as_secs());
        Some(Error::broker(
            format!(
                "{mebibytes} MiB of tasks wait for {server} already, which has not answered for {silent_s} s: this \
                 call was not sent, enqueue it again when the server answers"
            ),
            false,
        ))
    }

    /// Appends a chunk; to the last one where both fit into one call, and have about the same time left.
    fn push(&mut self, chunk: Chunk) {
        self.bytes.fetch_add(chunk.records.bytes(), Ordering::Relaxed);
        if let Some(last) = self.chunks.back_mut()
            && chunk.since.saturating_duration_since(last.since) < self.patience / 8
            && last.is_like(chunk.function, chunk.repeat)
            && last.count() + chunk.count() <= last.most()
            && last.records.bytes() + chunk.records.bytes() <= BYTES
            && let (Answers::Each(tickets), Answers::Each(more)) = (&mut last.answers, &chunk.answers)
        {
            tickets.extend(more);
            last.records.append(&chunk.records);
            return;
        }
        self.chunks.push_back(chunk);
    }

    /// The next one, and until when it has time.
    fn pop(&mut self) -> Option<(Chunk, Instant)> {
        let chunk = self.chunks.pop_front()?;
        self.bytes.fetch_sub(chunk.records.bytes(), Ordering::Relaxed);
        let deadline = chunk.since.max(self.moved_at) + self.patience;
        Some((chunk, deadline))
    }
}

/// Sends one chunk and hands out its answers; replies whether there were any.
async fn deliver(dispatcher: Dispatcher, inbox: Arc<Inbox>, chunk: Chunk, deadline: Instant) -> bool {
    let answers = async {
        match chunk.left_out() {
            Some(error) => Err(error),
            None => chunk.send(&dispatcher, deadline).await,
        }
    };
    hand_out(&chunk, &inbox, answers).await
}

/// Hands out the answers of a chunk when they come; replies whether there were any.
async fn hand_out(chunk: &Chunk, inbox: &Inbox, answers: impl Future<Output = Result<Vec<Value>, Error>>) -> bool {
    let unanswered = Unanswered::new(|error| chunk.tell(Err(error), inbox));
    let answers = answers.await;
    unanswered.answered();
    let answered = !matches!(answers, Err(Error::Broker { .. }));
    chunk.tell(answers, inbox);
    answered
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
