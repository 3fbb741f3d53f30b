//! One step after the other: outcomes out, claims in, one under way at a time.
//!
//! Owns: the number of the step and its repetition until it is answered. Must not know: what to send and
//! when; [`slots`](super::slots) decides that.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use redis::Value;

use super::Shared;
use super::session::{End, Session, is_hopeless};
use super::slots::Next;
use crate::engine::claims::{Answer, Reply};
use crate::engine::events::{Event, Level};
use crate::engine::outcomes::{COMPLETE, Outcomes};
use crate::lua::protocol::Protocol;
use crate::wire::connection::Backoff;
use crate::wire::error::Error;

impl Session {
    pub async fn steps(&self) -> End {
        let shared = &self.shared;
        let (mut seq, mut unblocked) = (0, false);
        loop {
            shared.offer();
            let next = shared.slots().next(Instant::now());
            match next {
                Next::Step { outcomes, want, lanes } => {
                    seq += 1;
                    match self.step(seq, &outcomes, want, lanes.as_ref().unwrap_or(&self.lanes)).await {
                        Ok(()) => {}
                        Err(end) => return end,
                    }
                }
                Next::Wait { until, block } => {
                    if block && !self.blocked.swap(true, Ordering::Relaxed) {
                        self.block.notify_one();
                    } else if block && self.is_outdated() {
                        // What happens meanwhile is heard below.
                        self.unblock().await;
                    }
                    let woken = shared.wake.notified();
                    match until {
                        Some(until) => {
                            let _ = tokio::time::timeout_at(until.into(), woken).await;
                        }
                        None => woken.await,
                    }
                }
                Next::Leave if self.blocked.load(Ordering::Relaxed) && !unblocked => {
                    unblocked = true;
                    self.unblock().await;
                }
                Next::Leave => return End::Left,
            }
        }
    }

    /// One step, repeated under the same number until it is answered.
    async fn step(&self, seq: i64, outcomes: &Outcomes, want: usize, lanes: &str) -> Result<(), End> {
        let shared = &self.shared;
        let config = &shared.config;
        let mut request = shared.dispatcher.request("step").map_err(End::Failed)?;
        let args = [
            ("worker", self.identity.as_str().into()),
            ("seq", seq.into()),
            ("lease_ms", (config.lease.as_millis() as i64).into()),
            ("result_ttl_ms", config.result_ttl_ms.into()),
            ("lanes", lanes.into()),
            ("want", (want as i64).into()),
            ("hand_off", 1.into()),
        ];
        request.named(&args).map_err(End::Failed)?;
        request.records(outcomes.fields(), outcomes.bytes());
        let mut backoff = Backoff::default();
        loop {
            let sent = Instant::now();
            let answer = shared.dispatcher.send(&request).await;
            let now = Instant::now();
            match answer.and_then(|value| Reply::parse(value, now)) {
                Ok(reply) => return self.accept(reply, outcomes, sent, now),
                Err(error) if error.is("LEASE_LOST") || error.is("OLD_STEP") => {
                    return Err(End::Lost(error));
                }
                Err(error) if is_hopeless(&error) => return Err(End::Failed(error)),
                Err(error) => {
                    shared.trouble(&error);
                    shared.dispatcher.link().pause(&mut backoff).await;
                }
            }
        }
    }

    fn accept(&self, mut reply: Reply, outcomes: &Outcomes, sent: Instant, now: Instant) -> Result<(), End> {
        let shared = &self.shared;
        shared.renewed(sent);
        // Before the news: a task may be among the claims again.
        self.answer(outcomes, std::mem::take(&mut reply.answers));
        let (count, bytes) = (reply.claims.len(), reply.bytes());
        let news = {
            let mut slots = shared.slots();
            slots.prefetch.stepped(now, now.duration_since(sent), count, bytes);
            slots.accept(&mut reply, now)
        };
        let Some(news) = news else {
            return Err(End::Lost(Error::Server { code: "LEASE_LOST".to_owned(), message: String::new() }));
        };
        shared.pass_on(&news);
        match &shared.config.pool_share {
            Some(pool_share) if count > 0 => pool_share.busy(),
            Some(pool_share) if news.idle && shared.config.burst => pool_share.idle(sent),
            None if news.idle && shared.config.burst => shared.inbox.push(Event::Idle),
            _ => {}
        }
        Ok(())
    }

    /// Tells Python what its outcomes became: those that were refused, and all that are not simply `complete`.
    fn answer(&self, outcomes: &Outcomes, answers: Vec<Answer>) {
        let shared = &self.shared;
        let mut said: HashMap<(&[u8], &[u8]), &[u8]> = HashMap::new();
        for answer in &answers {
            if answer.token.is_empty() {
                shared.inbox.push(Event::Stuck { id: answer.id.clone(), reason: answer.what.clone() });
            }
            said.insert((&answer.id, &answer.token), &answer.what);
        }
        for record in outcomes.iter() {
            let instead = said.get(&(record.id(), record.token()));
            if instead.is_none() && record.outcome() == COMPLETE {
                continue;
            }
            let what = instead.map_or(record.outcome(), |what| *what);
            let refused = instead.is_some() && !Protocol::get().is_state(what);
            let token = shared.slots().token(record.token());
            shared.observe(|observer| match token {
                _ if refused => observer.refused(token, what),
                Some(token) => observer.became(token, what),
                None => {}
            });
            // Whoever lost its lease knows it.
            if let Some(token) = token {
                let id = record.id().to_vec();
                shared.inbox.push(Event::Settled { id, token, what: what.to_vec(), refused });
            }
        }
    }
}

impl Shared {
    /// Leaves; what the identity may still hold, in the server's eyes, is handed back.
    pub(super) async fn leave(&self, identity: &str) {
        let leave = || async {
            let mut request = self.dispatcher.request("leave")?;
            request.named(&[("worker", identity.into()), ("result_ttl_ms", self.config.result_ttl_ms.into())])?;
            self.dispatcher.deliver(&request, false).await
        };
        loop {
            match leave().await {
                Ok(Value::Int(1)) => {}
                Ok(_) => return,
                Err(error) => {
                    let line = format!("could not leave: {error}; the lease runs out by itself");
                    return self.inbox.log(Level::Warning, line);
                }
            }
        }
    }
}
