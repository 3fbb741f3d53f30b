//! Records that leave in one call, and who is answered for them.
//!
//! Owns: how much one call carries, and the one answer of a batch that left in several. Must not know: when it leaves.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use redis::Value;

use super::lock;
use crate::call::args::Args;
use crate::call::dispatch::{Dispatcher, Request};
use crate::engine::events::{Event, Inbox};
use crate::lua::protocol::{Function, Tail};
use crate::wire::clock::Instant;
use crate::wire::error::Error;

/// Records a call carries at most; more would keep the server from others for too long.
const RECORDS: usize = 250;
/// Bytes after which a call takes no further record.
pub(super) const BYTES: usize = 1 << 20;
/// The answer to a record that was certainly not carried out; no function answers so.
const NOT_SENT: Value = Value::Boolean(false);

/// Records for one call and where their answers go.
pub struct Chunk {
    pub(super) function: &'static Function,
    /// Whether it may be sent again when its reply was lost.
    pub(super) repeat: bool,
    pub(super) records: Args,
    pub(super) answers: Answers,
    pub(super) since: Instant,
}

pub(super) enum Answers {
    /// One event for each record.
    Each(Vec<u64>),
    /// One event for the whole batch of which this is the part that starts at record `from`.
    Part { batch: Arc<Mutex<Batch>>, from: usize },
}

/// A batch that is answered by one event.
pub(super) struct Batch {
    ticket: u64,
    values: Vec<Option<Value>>,
    open_chunks: usize,
    error: Option<Error>,
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
        let (start, bytes_before) = (from, records.bytes_of(from));
        while from < records.len()
            && from - start < chunk.most() * width
            && records.bytes_of(from) - bytes_before < BYTES
        {
            from += width;
        }
        chunk.records.append_range(records, start, from);
        chunks.push(chunk);
    }
    lock(&batch).open_chunks = chunks.len();
    Ok(chunks)
}

impl Chunk {
    pub(super) fn new(function: &'static Function, repeat: bool, answers: Answers) -> Self {
        Self { function, repeat, records: Args::default(), answers, since: Instant::now() }
    }

    pub(super) fn is_like(&self, function: &'static Function, repeat: bool) -> bool {
        std::ptr::eq(self.function, function) && self.repeat == repeat
    }

    /// Records it may hold.
    pub(super) fn most(&self) -> usize {
        self.function.tail.as_ref().map_or(0, |tail| tail.max.min(RECORDS))
    }

    pub(super) fn count(&self) -> usize {
        self.function.tail.as_ref().map_or(0, |tail| self.records.len() / tail.fields.len())
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() >= self.most() || self.records.bytes() >= BYTES
    }

    /// Whether it does not belong to a batch of which a part waits already.
    pub(super) fn is_first(&self) -> bool {
        !matches!(self.answers, Answers::Part { from, .. } if from > 0)
    }

    /// Why it is not sent any more: it belongs to a batch that failed already.
    pub(super) fn left_out(&self) -> Option<Error> {
        let Answers::Part { batch, .. } = &self.answers else { return None };
        lock(batch).error.is_some().then(|| Error::broker("not sent: other tasks of its batch failed", false))
    }

    /// One value a record.
    pub(super) async fn send(&self, dispatcher: &Dispatcher, deadline: Instant) -> Result<Vec<Value>, Error> {
        let request = self.request(dispatcher)?;
        self.answers(dispatcher.deliver_until(deadline, &request, self.repeat).await?)
    }

    pub(super) fn request(&self, dispatcher: &Dispatcher) -> Result<Request, Error> {
        let mut request = dispatcher.request(&self.function.name)?;
        request.records(self.records.iter(), self.records.bytes());
        Ok(request)
    }

    /// One value a record, of the reply.
    pub(super) fn answers(&self, reply: Value) -> Result<Vec<Value>, Error> {
        match reply {
            Value::Array(values) if values.len() == self.count() => Ok(values),
            _ => Err(Error::Script(format!("{}: the reply has not one answer a record", self.function.name))),
        }
    }

    pub(super) fn tell(&self, answers: Result<Vec<Value>, Error>, inbox: &Inbox) {
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

pub(super) fn tail(function: &Function) -> Result<&Tail, Error> {
    let message = || Error::Argument(format!("{} takes no records", function.name));
    function.tail.as_ref().ok_or_else(message)
}

pub(super) fn wrong_width(function: &Function, width: usize) -> Error {
    Error::Argument(format!("{}: a record has {width} fields", function.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::events::Unanswered;
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
