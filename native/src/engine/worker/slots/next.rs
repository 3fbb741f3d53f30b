//! What to do next with what this worker holds.
//!
//! Owns: whether to step now, with which outcomes and for how many tasks, to wait or to leave; what goes back unstarted.
//! Must not know: how what is held comes and goes.

use std::time::{Duration, Instant};

use super::super::prefetch::{BATCH, STEP_BYTES, STEP_RECORDS};
use super::{Phase, PoolShare, Queue, Slots, Waiting, release};
use crate::engine::outcomes::Outcomes;

/// What lies here longer and cannot be started goes back for others.
pub(super) const HELD_TOO_LONG: Duration = Duration::from_millis(500);
/// While there is plenty to start, outcomes gather that long for a full batch.
pub(super) const GATHER: Duration = Duration::from_millis(2);

/// What the loop is to do.
#[derive(Debug, PartialEq)]
pub enum Next {
    Step {
        outcomes: Outcomes,
        want: usize,
        /// The lanes to claim from, where that changes from step to step.
        lanes: Option<String>,
    },
    Wait {
        until: Option<Instant>,
        /// Whether to block on the wake lists meanwhile.
        block: bool,
    },
    /// Everything is settled and nothing is to be claimed any more.
    Leave,
}

impl Slots {
    /// What the loop is to do now.
    pub fn next(&mut self, now: Instant) -> Next {
        self.waiting = Waiting::No;
        if self.phase == Phase::Working {
            self.release_stuck(now);
        } else {
            self.release_all();
        }
        self.tell();
        let want = self.want();
        let looks = want > 0 || self.is_owed();
        let due = looks && self.look_at.is_some_and(|at| now >= at);
        let useful = !self.outbox.is_empty() || (want > 0 && self.more);
        if self.woken || due || (useful && !self.gathers(now)) {
            self.woken = false;
            self.look_at = None;
            self.gather_until = None;
            self.hand_offs.stepping();
            self.asked = want;
            let lanes = self.lanes.is_limited().then(|| self.lanes.to_json());
            let outcomes = self.outcomes();
            self.sending = outcomes.len();
            return Next::Step { outcomes, want, lanes };
        }
        if self.phase != Phase::Working && self.started == 0 {
            return Next::Leave;
        }
        self.waiting = if self.gather_until.is_some() { Waiting::ForBatch } else { Waiting::ForAnything };
        let look_at = self.look_at.filter(|_| looks);
        let until = [self.gather_until, look_at, self.tasks.stuck_at(), self.thread_tasks_held.stuck_at()];
        Next::Wait { until: until.into_iter().flatten().min(), block: looks && !self.more }
    }

    /// Whether the next step waits for a full batch of outcomes.
    fn gathers(&mut self, now: Instant) -> bool {
        if self.outbox.len() >= BATCH || !self.is_well_supplied() {
            return false;
        }
        now < *self.gather_until.get_or_insert(now + GATHER)
    }

    /// How many tasks to claim.
    fn want(&self) -> usize {
        if self.phase != Phase::Working || self.stalled {
            return 0;
        }
        if self.used() - self.started >= self.concurrency {
            return 0;
        }
        let room = self.concurrency + self.prefetch.target();
        let mut room = room.saturating_sub(self.held() + self.used()).min(self.prefetch.most_claims());
        if let Some(pool_share) = &self.pool_share {
            room = room.min((pool_share.room() + self.prefetch.target()).saturating_sub(self.held()));
        }
        self.lanes.room().map_or(room, |of_lanes| room.min(of_lanes))
    }

    /// Whether to look for work although there is no room for it: others must know of it to leave some.
    fn is_owed(&self) -> bool {
        self.phase == Phase::Working && !self.stalled && self.pool_share.as_ref().is_some_and(PoolShare::is_owed)
    }

    /// As many outcomes as one step carries, with the server's tokens.
    fn outcomes(&mut self) -> Outcomes {
        let outcomes = self.outbox.take_front(STEP_RECORDS, STEP_BYTES);
        if self.shift == 0 {
            return outcomes;
        }
        outcomes.under(|token| token.map_or(0, |token| self.lease_token(token)))
    }

    /// Give back what lies here and cannot be started soon: all slots are taken, or nobody comes for it.
    fn release_stuck(&mut self, now: Instant) {
        let full = self.room() == 0;
        let mut stuck = |queue: &mut Queue| {
            let too_long = |at: Instant| now.duration_since(at) >= HELD_TOO_LONG;
            let unattended = too_long(queue.asked);
            let mut released = false;
            while (full || unattended) && queue.claims.front().is_some_and(|claim| too_long(claim.received)) {
                queue.claims.pop_front().iter().for_each(|claim| release(&mut self.outbox, &mut self.lanes, claim));
                released = true;
            }
            (released, unattended)
        };
        let (from_loop, loop_unattended) = stuck(&mut self.tasks);
        let (from_threads, _) = stuck(&mut self.thread_tasks_held);
        if from_loop || from_threads {
            self.prefetch.reset();
        }
        if from_loop && loop_unattended && !full {
            (self.stalled, self.starved) = (true, true);
        }
    }

    fn release_all(&mut self) {
        for queue in [&mut self.tasks, &mut self.thread_tasks_held] {
            queue.claims.drain(..).for_each(|claim| release(&mut self.outbox, &mut self.lanes, &claim));
        }
    }
}

impl Queue {
    /// When what lies here may have to be given back.
    fn stuck_at(&self) -> Option<Instant> {
        self.claims.front().map(|claim| claim.received.max(self.asked) + HELD_TOO_LONG)
    }
}
