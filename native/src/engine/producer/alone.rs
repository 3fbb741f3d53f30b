//! A chunk that leaves an event loop while nothing else is under way: sent by hand, and its answer read so, without a task
//! of the loop's runtime. Whatever comes of it but a plain answer in time, the usual way goes on with.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::chunk::Chunk;
use super::{Outgoing, hand_out, lock};
use crate::call::dispatch::Request;
use crate::wire::clock::{Deadlines, Instant, Noted};
use crate::wire::connection::Direct;
use crate::wire::error::Error;
use crate::wire::reactor::Reactor;

/// The chunk of one event loop that is under way alone.
#[derive(Default)]
pub struct Alone(Mutex<Option<Flight>>);

struct Flight {
    direct: Direct,
    chunk: Chunk,
    request: Request,
    outgoing: Arc<Outgoing>,
    /// Of the runtime on which the usual way goes on.
    handle: Handle,
    closed: watch::Receiver<bool>,
    deadline: Instant,
    /// When it has to be looked after if nothing comes.
    due: Instant,
    _noted: Noted,
}

impl Alone {
    /// Sends a chunk, where it may leave so; gives when it has to be looked after.
    ///
    /// # Errors
    /// What has to go the usual way.
    pub fn send(
        &self,
        mut chunks: Vec<Chunk>,
        outgoing: &Arc<Outgoing>,
        reactor: &Arc<Reactor>,
        handle: &Handle,
        closed: watch::Receiver<bool>,
    ) -> Result<Instant, Vec<Chunk>> {
        let mut flight = lock(&self.0);
        let [chunk] = &chunks[..] else { return Err(chunks) };
        if flight.is_some() || *closed.borrow() || !outgoing.is_idle() || chunk.left_out().is_some() {
            return Err(chunks);
        }
        let Ok(request) = chunk.request(&outgoing.dispatcher) else { return Err(chunks) };
        let Some(mut direct) = outgoing.dispatcher.direct(&request).filter(|direct| reactor.watches(direct.socket()))
        else {
            return Err(chunks);
        };
        let sent = direct.send(&request.packed());
        let deadline = outgoing.dispatcher.deadline(Duration::MAX);
        let due = direct.limit().map_or(deadline, |limit| deadline.min(direct.sent_at() + limit));
        let _noted = Deadlines::note(reactor.deadlines(), due);
        let chunk = chunks.pop().expect("there is one");
        let (outgoing, handle) = (outgoing.clone(), handle.clone());
        let sent_one = Flight { direct, chunk, request, outgoing, handle, closed, deadline, due, _noted };
        if let Err(error) = sent {
            sent_one.land(Some(Err(error)));
            return Ok(Instant::now());
        }
        *flight = Some(sent_one);
        Ok(due)
    }

    /// The loop found the socket readable; whether it is that of the chunk under way.
    pub fn readable(&self, descriptor: RawFd) -> bool {
        let mut slot = lock(&self.0);
        let Some(flight) = slot.as_mut().filter(|flight| flight.direct.socket() == descriptor) else { return false };
        if let Some(answer) = flight.direct.receive()
            && let Some(flight) = slot.take()
        {
            flight.land(Some(answer));
        }
        true
    }

    /// Something else is to be sent, which is not to wait for the answer.
    pub fn join(&self) {
        if let Some(flight) = lock(&self.0).take() {
            flight.land(None);
        }
    }

    /// Ends what is late, or was closed.
    pub fn look_after(&self) {
        let mut slot = lock(&self.0);
        let Some(flight) = slot.as_mut() else { return };
        if *flight.closed.borrow() {
            flight.chunk.tell(Err(Error::closed(true)), &flight.outgoing.inbox);
            *slot = None;
        } else if flight.due <= Instant::now() {
            // After a busy time the answer may be there, of which the loop has not told yet.
            let answer = flight.direct.receive();
            let is_over = answer.is_some() || flight.deadline <= Instant::now();
            if let Some(flight) = slot.take_if(|_| is_over) {
                flight.land(answer);
            }
        }
    }
}

impl Flight {
    /// Hands out the answer; None: the usual way waits for it.
    fn land(self, answer: Option<Result<Value, Error>>) {
        let Self { direct, chunk, request, outgoing, handle, mut closed, deadline, .. } = self;
        let begun = match outgoing.dispatcher.conclude_direct(&request, direct, answer) {
            Ok(reply) => {
                outgoing.moved();
                return chunk.tell(reply.and_then(|reply| chunk.answers(reply)), &outgoing.inbox);
            }
            Err(begun) => begun,
        };
        handle.spawn(async move {
            let answers = async {
                tokio::select! {
                    reply = outgoing.dispatcher.deliver_begun(deadline, &request, chunk.repeat, Some(begun)) => {
                        reply.and_then(|reply| chunk.answers(reply))
                    }
                    _ = closed.wait_for(|closed| *closed) => Err(Error::closed(true)),
                }
            };
            if hand_out(&chunk, &outgoing.inbox, answers).await {
                outgoing.moved();
            }
        });
    }
}
