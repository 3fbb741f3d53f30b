//! Batching: many records submitted one by one leave in few calls.
//!
//! Owns: how records are gathered into calls, how many calls are under way, and what is repeated when a
//! connection breaks. Must not know: which function it calls, nor what a record means.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::call::args::Args;
use crate::call::dispatch::Dispatcher;
use crate::engine::events::{Event, Inbox, Unanswered};
use crate::lua::protocol::{Function, Tail};
use crate::wire::error::Error;

/// Records a call carries at most; more would keep the server from others for too long.
const RECORDS: usize = 250;
/// Bytes after which a call takes no further record.
const BYTES: usize = 1 << 20;
/// Calls under way at once: while the server works on one, the next one travels.
const UNDER_WAY: usize = 2;
/// Bytes that may wait, and those of one batch more, while the server is silent: who submits more is told so at once.
const WAITING: usize = 64 << 20;
/// How long a server that is well may take for an answer.
const SILENT: Duration = Duration::from_secs(2);
/// The answer to a record that was certainly not carried out; no function answers so.
const NOT_SENT: Value = Value::Boolean(false);

/// Records for one call and where their answers go.
pub struct Chunk {
    function: &'static Function,
    /// Whether it may be sent again when its reply was lost.
    repeat: bool,
    records: Args,
    answers: Answers,
    since: Instant,
}

enum Answers {
    /// One event for each record.
    Each(Vec<u64>),
    /// One event for the whole batch of which this is the part that starts at record `from`.
    Part { batch: Arc<Mutex<Batch>>, from: usize },
}

/// A batch that is answered by one event.
struct Batch {
    ticket: u64,
    values: Vec<Option<Value>>,
    open_chunks: usize,
    error: Option<Error>,
}

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

/// Cuts a large batch into chunks; all of them answer to `ticket`.
///
/// # Errors
/// [`Error::Argument`] if the function takes no records or the number of fields is not a multiple of their width.
pub fn split(function: &'static Function, repeat: bool, ticket: u64, records: &Args) -> Result<Vec<Chunk>, Error> {
    let width = tail(function)?.fields.len();
    if !records.len().is_multiple_of(width) || records.is_empty() {
        return Err(wrong_width(function, width));
    }
    let batch =
        Arc::new(Mutex::new(Batch { ticket, values: vec![None; records.len() / width], open_chunks: 0, error: None }));
    let mut chunks = Vec::new();
    let mut from = 0;
    while from < records.len() {
        let part = Answers::Part { batch: batch.clone(), from: from / width };
        let mut chunk = Chunk::new(function, repeat, part);
        while from < records.len() && !chunk.is_full() {
            chunk.records.append_range(records, from, from + width);
            from += width;
        }
        chunks.push(chunk);
    }
    lock(&batch).open_chunks = chunks.len();
    Ok(chunks)
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

    /// Sends chunks until none waits.
    pub async fn send(self: Arc<Self>) {
        while let Some((chunk, deadline)) = self.next() {
            // Of its own, so that one that panics harms only itself.
            let sent = tokio::spawn(deliver(self.dispatcher.clone(), self.inbox.clone(), chunk, deadline)).await;
            if matches!(sent, Ok(true)) {
                lock(&self.queue).moved_at = Instant::now();
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
                "{mebibytes} MiB of tasks wait for {server} already, which has not answered for {silent_s} s: this was not \
                 sent, enqueue it again when others are through"
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
    let unanswered = Unanswered::new(|error| chunk.tell(Err(error), &inbox));
    let answers = match chunk.left_out() {
        Some(error) => Err(error),
        None => chunk.send(&dispatcher, deadline).await,
    };
    unanswered.answered();
    let answered = !matches!(answers, Err(Error::Broker { .. }));
    chunk.tell(answers, &inbox);
    answered
}

impl Chunk {
    fn new(function: &'static Function, repeat: bool, answers: Answers) -> Self {
        Self { function, repeat, records: Args::default(), answers, since: Instant::now() }
    }

    fn is_like(&self, function: &'static Function, repeat: bool) -> bool {
        std::ptr::eq(self.function, function) && self.repeat == repeat
    }

    /// Records it may hold.
    fn most(&self) -> usize {
        self.function.tail.as_ref().map_or(0, |tail| tail.max.min(RECORDS))
    }

    fn count(&self) -> usize {
        self.function.tail.as_ref().map_or(0, |tail| self.records.len() / tail.fields.len())
    }

    fn is_full(&self) -> bool {
        self.count() >= self.most() || self.records.bytes() >= BYTES
    }

    /// Whether it does not belong to a batch of which a part waits already.
    fn is_first(&self) -> bool {
        !matches!(self.answers, Answers::Part { from, .. } if from > 0)
    }

    /// Why it is not sent any more: it belongs to a batch that failed already.
    fn left_out(&self) -> Option<Error> {
        let Answers::Part { batch, .. } = &self.answers else { return None };
        lock(batch).error.is_some().then(|| Error::broker("not sent: others of its batch failed", false))
    }

    /// One value a record.
    async fn send(&self, dispatcher: &Dispatcher, deadline: Instant) -> Result<Vec<Value>, Error> {
        let mut request = dispatcher.request(&self.function.name)?;
        for field in self.records.iter() {
            request.arg(field);
        }
        match dispatcher.deliver_until(deadline, &request, self.repeat).await? {
            Value::Array(values) if values.len() == self.count() => Ok(values),
            _ => Err(Error::Script(format!("{}: the reply has not one answer a record", self.function.name))),
        }
    }

    fn tell(&self, answers: Result<Vec<Value>, Error>, inbox: &Inbox) {
        match (&self.answers, answers) {
            (Answers::Each(tickets), Ok(values)) => inbox.push(Event::Replies { tickets: tickets.clone(), values }),
            (Answers::Each(tickets), Err(error)) => inbox.push(Event::Failures { tickets: tickets.clone(), error }),
            (Answers::Part { batch, from }, answers) => {
                if let Some(event) = lock(batch).answer(*from..*from + self.count(), answers) {
                    inbox.push(event);
                }
            }
        }
    }
}

impl Batch {
    /// Notes the answers of one chunk; the batch's own when it was the last.
    fn answer(&mut self, places: Range<usize>, answers: Result<Vec<Value>, Error>) -> Option<Event> {
        match answers {
            Ok(values) => {
                for (place, value) in self.values[places].iter_mut().zip(values) {
                    *place = Some(value);
                }
            }
            Err(error) => {
                if error.is_refusal() {
                    self.values[places].fill(Some(NOT_SENT));
                }
                // One that may have been enqueued counts more than others that were not.
                if error.maybe_sent() || self.error.is_none() {
                    self.error = Some(error);
                }
            }
        }
        self.open_chunks -= 1;
        if self.open_chunks > 0 {
            return None;
        }
        let (ticket, values) = (self.ticket, std::mem::take(&mut self.values));
        Some(match self.error.take() {
            None => Event::Reply { ticket, value: Value::Array(values.into_iter().flatten().collect()) },
            Some(error) => Event::Partly { ticket, error, accepted: values },
        })
    }
}

fn tail(function: &Function) -> Result<&Tail, Error> {
    let message = || Error::Argument(format!("{} takes no records", function.name));
    function.tail.as_ref().ok_or_else(message)
}

fn wrong_width(function: &Function, width: usize) -> Error {
    Error::Argument(format!("{}: a record has {width} fields", function.name))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::protocol::Protocol;

    #[tokio::test]
    async fn who_waits_for_a_call_that_panics_is_told() {
        let function = Protocol::get().function("enqueue").unwrap();
        let inbox = Arc::new(Inbox::new().unwrap());
        let chunk = Chunk::new(function, true, Answers::Each(vec![7]));
        let ended = tokio::spawn({
            let inbox = inbox.clone();
            async move {
                let _unanswered = Unanswered::new(|error| chunk.tell(Err(error), &inbox));
                panic!("on purpose");
            }
        });
        assert!(ended.await.is_err());
        let [(_, Event::Failures { tickets, error })] = &inbox.take()[..] else { panic!("not told") };
        assert_eq!(tickets, &[7]);
        assert!(error.maybe_sent());
    }

    #[test]
    fn of_several_failures_the_one_that_may_have_been_carried_out_is_told() {
        for order in [[false, true], [true, false]] {
            let mut batch = Batch { ticket: 1, values: vec![None; 2], open_chunks: 2, error: None };
            let mut fail = |at: usize| batch.answer(at..at + 1, Err(Error::broker("gone", order[at])));
            assert!(fail(0).is_none());
            let Some(Event::Partly { error, accepted, .. }) = fail(1) else { panic!("not told") };
            assert!(error.maybe_sent(), "{order:?}");
            assert_eq!(accepted, order.map(|maybe_sent| (!maybe_sent).then_some(NOT_SENT)));
        }
    }
}
