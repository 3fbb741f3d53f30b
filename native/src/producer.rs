//! Batching: many records submitted one by one leave in few calls.
//!
//! Owns: how records are gathered into calls, how many calls are under way, and what is repeated when a
//! connection breaks. Must not know: which function it calls, nor what a record means.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::Args;
use crate::bridge::{Event, InPanic, Inbox};
use crate::dispatch::Dispatcher;
use crate::error::Error;
use crate::protocol::{Function, Tail};

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

/// Chunks that wait for their call.
struct Queue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    patience: Duration,
    /// When the server answered last, or had nothing to answer: who waits behind others that are answered is not late.
    moved_at: Instant,
}

/// Sends chunks in their order until the sender of `chunks` is gone and all are answered.
pub async fn run(dispatcher: Dispatcher, inbox: Arc<Inbox>, mut chunks: mpsc::UnboundedReceiver<Chunk>) {
    let mut queue = Queue::new(dispatcher.link().connector().options().broker_timeout);
    let mut calls = JoinSet::new();
    let mut open = true;
    while open || !calls.is_empty() {
        let mut received = None;
        tokio::select! {
            chunk = chunks.recv(), if open => match chunk {
                Some(chunk) => received = Some(chunk),
                None => open = false,
            },
            Some(done) = calls.join_next() => {
                if matches!(done, Ok(true)) {
                    queue.moved_at = Instant::now();
                }
            }
        }
        if calls.is_empty() {
            queue.moved_at = Instant::now();
        }
        while let Some(chunk) = received.take().or_else(|| chunks.try_recv().ok()) {
            match queue.refusal(&chunk, dispatcher.link().connector().describe()) {
                Some(error) => chunk.tell(Err(error), &inbox),
                None => queue.push(chunk),
            }
        }
        while calls.len() < UNDER_WAY {
            let Some((chunk, deadline)) = queue.pop() else { break };
            calls.spawn(deliver(dispatcher.clone(), inbox.clone(), chunk, deadline));
        }
    }
}

/// Sends the chunks of one batch for somebody who waits for them, and replies the batch's one event.
pub async fn send(dispatcher: Dispatcher, inbox: Arc<Inbox>, chunks: Vec<Chunk>) -> Result<Event, Error> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for chunk in chunks {
        let _ = sender.send(chunk); // the receiver is below
    }
    drop(sender);
    run(dispatcher, inbox.clone(), receiver).await;
    inbox.take().pop().ok_or_else(|| Error::broker("the batch was not answered", true))
}

impl Queue {
    fn new(patience: Duration) -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, patience, moved_at: Instant::now() }
    }

    /// Why a chunk may not wait, too.
    fn refusal(&self, chunk: &Chunk, server: &str) -> Option<Error> {
        if let Some(error) = chunk.left_out() {
            return Some(error);
        }
        if self.bytes < WAITING || !chunk.is_first() || self.moved_at.elapsed() < SILENT {
            return None;
        }
        let (mebibytes, silent_s) = (self.bytes >> 20, self.moved_at.elapsed().as_secs());
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
        self.bytes += chunk.records.bytes();
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
        self.bytes -= chunk.records.bytes();
        let deadline = chunk.since.max(self.moved_at) + self.patience;
        Some((chunk, deadline))
    }
}

/// Sends one chunk and hands out its answers; replies whether there were any.
async fn deliver(dispatcher: Dispatcher, inbox: Arc<Inbox>, chunk: Chunk, deadline: Instant) -> bool {
    let answers = {
        let _told = InPanic(|error| chunk.tell(Err(error), &inbox));
        match chunk.left_out() {
            Some(error) => Err(error),
            None => chunk.send(&dispatcher, deadline).await,
        }
    };
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

fn lock(batch: &Mutex<Batch>) -> std::sync::MutexGuard<'_, Batch> {
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    #[tokio::test]
    async fn who_waits_for_a_call_that_panics_is_told() {
        let function = Protocol::get().function("enqueue").unwrap();
        let inbox = Arc::new(Inbox::new().unwrap());
        let chunk = Chunk::new(function, true, Answers::Each(vec![7]));
        let ended = tokio::spawn({
            let inbox = inbox.clone();
            async move {
                let _told = InPanic(|error| chunk.tell(Err(error), &inbox));
                panic!("on purpose");
            }
        });
        assert!(ended.await.is_err());
        let [Event::Failures { tickets, error }] = &inbox.take()[..] else { panic!("not told") };
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
