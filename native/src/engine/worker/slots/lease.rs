//! Until when what is held is this worker's, and under which tokens.

use std::time::Instant;

use super::{HandOffs, Phase, Slots};
use crate::engine::outcomes::Outcomes;
use crate::wire::values::number;

/// How long a worker that is to stop waits for a server that is away.
#[derive(Debug, PartialEq, Eq)]
pub enum Parting {
    /// Until its tasks have ended, at least.
    Busy,
    /// Not at all: it has nothing to tell.
    Now,
    /// Until then: the server is to be told of so many tasks that they have ended, or were not started.
    By(Instant, usize),
    /// No longer: so many belong to others by now.
    Late(usize),
}

impl Slots {
    /// How long a worker that is to stop waits, if the server is away now.
    pub fn parting(&self, now: Instant) -> Parting {
        let untold = self.held() + self.outbox.len() + self.sending;
        match self.lease_ends {
            _ if self.phase == Phase::Working || self.started > 0 => Parting::Busy,
            _ if untold == 0 => Parting::Now,
            Some(end) if now < end => Parting::By(end, untold),
            _ => Parting::Late(untold),
        }
    }

    /// What the server calls `token`; 0, which no attempt has, if the lease that it was held under is lost.
    pub fn lease_token(&self, token: i64) -> i64 {
        (token - self.shift).max(0)
    }

    /// What this process calls the attempt of that lease token; nothing where its lease was lost before.
    pub fn token(&self, lease_token: &[u8]) -> Option<i64> {
        number(lease_token).filter(|token| *token > 0).map(|token| token.saturating_add(self.shift))
    }

    /// The server has renewed the lease; whether tasks were withheld that may be started now.
    pub fn renewed(&mut self, until: Instant) -> bool {
        self.lease_ends = Some(self.lease_ends.map_or(until, |end| end.max(until)));
        std::mem::take(&mut self.withheld) && self.held() > 0
    }

    /// Which lease this is. What came for an earlier one is void: the event loop may read its mailbox for a moment longer.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// When, by this machine's clock, the server may take this worker for dead; nothing where it has no lease.
    pub fn lease_ends(&self) -> Option<Instant> {
        self.lease_ends
    }

    /// The lease is lost: what is held belongs to others, and outcomes that wait would be refused. The highest
    /// token that is void. What was started is settled later, as stale: its token is no longer the one.
    pub fn lose(&mut self) -> i64 {
        for queue in [&mut self.tasks, &mut self.thread_tasks_held] {
            queue.claims.drain(..).for_each(|claim| self.lanes.gone(claim.token));
        }
        self.outbox = Outcomes::default();
        self.sending = 0;
        self.hand_offs = HandOffs::default();
        self.session += 1;
        self.lease_ends = None;
        self.more = false;
        self.woken = true;
        self.look_at = None;
        self.tell();
        self.shift = self.last_token;
        self.last_token
    }
}
