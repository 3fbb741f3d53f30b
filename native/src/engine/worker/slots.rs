//! What this worker holds; below, in `next`, what to do with it next, in `lease`, until when it is its own, in `abandoned`, who
//! takes slots without a task.
//!
//! Owns: the accounting of held and started tasks, the outcomes that wait to be sent, and every decision
//! of the loop that needs no connection. Must not know: connections, Python, what an outcome means; the
//! one outcome it makes itself is `release`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::lanes::Lanes;
use super::pool::PoolShare;
use super::prefetch::{BATCH, Prefetch};
use crate::engine::claims::{Claim, Reply};
use crate::engine::outcomes::{Outcome, Outcomes, RELEASE, Record};
use crate::wire::values::number;

mod abandoned;
mod batches;
mod hand_offs;
mod lease;
mod next;

use abandoned::Abandoned;
use batches::Batches;
use hand_offs::HandOffs;
pub use lease::Parting;
pub use next::Next;

/// After a claim the next step may wait that long: the tasks just claimed may be settled with it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A due time is never waited for in steps shorter than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Working,
    /// Claims no more; ends when what was started is settled.
    Draining,
    Ended,
}

/// Whether the loop waits, and for what it is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    No,
    /// For a full batch of outcomes, or for tasks to become scarce.
    ForBatch,
    ForAnything,
}

/// Tasks that are held and not started, in the order of their claims.
struct Queue {
    claims: VecDeque<Claim>,
    /// When somebody last asked for tasks.
    asked: Instant,
}

pub struct Slots {
    pub phase: Phase,
    concurrency: usize,
    /// Where other queues of this process share the slots.
    pool_share: Option<PoolShare>,
    /// The event loop left tasks here for want of slots, or does not come for them.
    starved: bool,
    thread_tasks: HashSet<Vec<u8>>,
    /// Names of the tasks whose batches are one execution here; the tasks in a batch of others run one by one.
    pub batch_tasks: HashSet<Vec<u8>>,
    /// For the event loop.
    tasks: Queue,
    /// For the threads.
    thread_tasks_held: Queue,
    /// Threads that wait for a task.
    pub waiting_threads: usize,
    started: usize,
    /// Of what was started, what takes a slot together.
    batches: Batches,
    /// Threads that cannot be stopped and outlast their task, by its token.
    abandoned: HashMap<i64, Abandoned>,
    /// Slots of tasks that are settled, and of which somebody is still told.
    occupied: usize,
    outbox: Outcomes,
    pub prefetch: Prefetch,
    lanes: Lanes,
    /// The last step left ready work behind.
    more: bool,
    /// Something happened that a step must follow.
    pub woken: bool,
    /// When to step although nothing happened.
    look_at: Option<Instant>,
    /// Whoever gives the loop what it waits for wakes it.
    waiting: Waiting,
    /// Until when outcomes gather.
    gather_until: Option<Instant>,
    /// When, by this machine's clock, the server may take this worker for dead.
    lease_ends: Option<Instant>,
    /// Tasks were not handed out because the lease may be over.
    withheld: bool,
    /// The event loop did not come for its tasks: none are claimed until it does.
    stalled: bool,
    /// The highest token of any claim so far.
    last_token: i64,
    hand_offs: HandOffs,
    /// How many leases were lost before this one.
    session: u64,
    /// How many tasks the step that is under way claims at most.
    asked: usize,
    /// How many outcomes it carries.
    sending: usize,
    /// What [`Claim::token`] is above the server's. A server that lost its data gives its tokens out anew, while
    /// threads and tasks of before may still run: each session's are shifted above all of those before.
    shift: i64,
}

impl Slots {
    pub fn new(
        concurrency: usize,
        prefetch: Option<usize>,
        thread_tasks: HashSet<Vec<u8>>,
        lanes: Lanes,
        pool_share: Option<PoolShare>,
        now: Instant,
    ) -> Self {
        let queue = || Queue { claims: VecDeque::new(), asked: now };
        Self {
            phase: Phase::Working,
            concurrency,
            pool_share,
            starved: false,
            thread_tasks,
            batch_tasks: HashSet::new(),
            tasks: queue(),
            thread_tasks_held: queue(),
            waiting_threads: 0,
            started: 0,
            batches: Batches::default(),
            abandoned: HashMap::new(),
            occupied: 0,
            outbox: Outcomes::default(),
            prefetch: Prefetch::new(prefetch, now),
            lanes,
            more: false,
            woken: true,
            look_at: None,
            waiting: Waiting::No,
            gather_until: None,
            lease_ends: None,
            withheld: false,
            stalled: false,
            last_token: 0,
            hand_offs: HandOffs::default(),
            session: 0,
            asked: 0,
            sending: 0,
            shift: 0,
        }
    }

    /// Up to `limit` tasks for the event loop to start now; whether to wake the I/O loop.
    pub fn take(&mut self, limit: usize, now: Instant) -> (Vec<Claim>, bool) {
        self.tasks.asked = now;
        let came_back = std::mem::take(&mut self.stalled);
        let wanted = limit.min(self.tasks.claims.len());
        let count = self.start(wanted, now);
        self.starved = count < wanted;
        let claims: Vec<Claim> = self.tasks.claims.drain(..count).collect();
        claims.iter().for_each(|claim| self.batches.started(claim));
        // Steps while it was away asked for nothing: neither offers nor due times stand.
        (claims, if came_back { self.poke() } else { self.wake_when_scarce() })
    }

    /// One task for a thread to start now; whether to wake the I/O loop.
    pub fn take_for_thread(&mut self, now: Instant) -> (Option<Claim>, bool) {
        self.thread_tasks_held.asked = now;
        let wanted = self.thread_tasks_held.claims.len().min(1);
        if self.start(wanted, now) == 0 {
            return (None, false);
        }
        (self.thread_tasks_held.claims.pop_front(), self.wake_when_scarce())
    }

    /// Fills up to `wanted` slots; how many.
    fn start(&mut self, wanted: usize, now: Instant) -> usize {
        let mut count = wanted.min(self.free(now));
        if let Some(pool_share) = &self.pool_share {
            count = pool_share.take(count);
        }
        self.started += count;
        count
    }

    /// Tells the other queues of this process what this one uses and could use.
    pub fn tell(&self) {
        if let Some(pool_share) = &self.pool_share {
            let used = self.used();
            match self.phase {
                Phase::Working if self.more => pool_share.tell(used, usize::MAX),
                Phase::Working => pool_share.tell(used, used + self.held()),
                Phase::Draining => pool_share.tell(used, used),
                Phase::Ended => pool_share.tell(0, 0),
            }
        }
    }

    /// Whether to call the event loop: for tasks that it left here and may start now, because a thread or another queue
    /// of this process gave a slot back, or because it did not come.
    pub fn calls_loop(&mut self) -> bool {
        let calls = self.starved && self.room() > 0;
        self.starved &= !calls;
        calls && (self.has_tasks() || self.stalled)
    }

    /// Slots that may be filled now: none while the server may have given away what is held here.
    fn free(&mut self, now: Instant) -> usize {
        if self.phase != Phase::Working {
            return 0;
        }
        if self.lease_ends.is_none_or(|end| now >= end) {
            self.withheld = true;
            return 0;
        }
        self.room()
    }

    /// Slots that neither a task nor a thread that was left behind takes, nor another queue of this process.
    fn room(&self) -> usize {
        let own = self.concurrency.saturating_sub(self.used());
        self.pool_share.as_ref().map_or(own, |pool_share| own.min(pool_share.room()))
    }

    /// Slots that are not free.
    fn used(&self) -> usize {
        self.started + self.abandoned_threads() + self.occupied
    }

    /// Tasks have ended that ran for so long together; whether to wake the I/O loop.
    pub fn settle(&mut self, outcomes: Outcomes, run_ms: i64) -> bool {
        let count = self.batches.settled(&outcomes);
        self.stalled = false;
        self.started = self.started.saturating_sub(count);
        self.prefetch.completed(count, run_ms * count as i64 / outcomes.len().max(1) as i64);
        if self.lanes.is_limited() || !self.abandoned.is_empty() {
            let tokens = outcomes.iter().map(Record::token).filter_map(number);
            tokens.for_each(|token| self.settled_token(token));
        }
        self.outbox.append(outcomes);
        self.pool_share.iter().for_each(PoolShare::busy);
        self.tell();
        self.wake_for_batch()
    }

    /// The task of that lease token is asked to stop: if it was not started, it goes back, which carries the wish out.
    /// Its token if it was not one of those, and whether to wake the I/O loop.
    pub fn abort(&mut self, lease_token: i64, session: u64) -> (Option<i64>, bool) {
        if session != self.session {
            return (None, false);
        }
        let token = lease_token.saturating_add(self.shift);
        let mut found = false;
        for queue in [&mut self.tasks, &mut self.thread_tasks_held] {
            if let Some(at) = queue.claims.iter().position(|claim| claim.batch().any(|one| one.token == token)) {
                queue.claims.remove(at).iter().for_each(|claim| release(&mut self.outbox, &mut self.lanes, claim));
                found = true;
            }
        }
        ((!found).then_some(token), found && self.wake())
    }

    /// Whether more may be claimed of each lane; nothing where no lane has a limit.
    pub fn open_lanes(&self) -> Option<Vec<bool>> {
        self.lanes.is_limited().then(|| self.lanes.open().collect())
    }

    /// Claim no more; whether to wake the I/O loop.
    pub fn drain(&mut self) -> bool {
        if self.phase == Phase::Working {
            self.phase = Phase::Draining;
            // What still runs may take long, and others may claim for this worker until it steps.
            self.woken |= self.started > 0;
        }
        self.wake()
    }

    /// Whether to wake the I/O loop because of what may lie here unattended.
    pub fn look_after(&mut self) -> bool {
        self.held() > 0 && self.wake()
    }

    /// The event loop has not come for its mail: it gets no tasks until it comes for those. What it was handed is told by
    /// the step that follows, and goes back. Whether to wake the I/O loop.
    pub fn leaves_mail(&mut self) -> bool {
        self.stalled = true;
        self.poke()
    }

    /// Something happened that a step must follow; whether to wake the I/O loop.
    pub fn poke(&mut self) -> bool {
        self.woken = true;
        self.wake()
    }

    fn wake(&mut self) -> bool {
        std::mem::replace(&mut self.waiting, Waiting::No) != Waiting::No
    }

    /// Whether to wake the I/O loop because tasks were started: it may wait for them to become scarce, no more could be
    /// claimed for that.
    fn wake_when_scarce(&mut self) -> bool {
        (self.waiting == Waiting::ForBatch || self.pool_share.is_some()) && self.wake_for_batch()
    }

    /// As [`wake`](Self::wake), unless the loop waits for more than there is.
    fn wake_for_batch(&mut self) -> bool {
        let wait_on = self.waiting == Waiting::ForBatch && self.outbox.len() < BATCH && self.is_well_supplied();
        !wait_on && self.wake()
    }

    /// Whether so much is held, and so quickly used up, that the next step can wait for a full batch.
    fn is_well_supplied(&self) -> bool {
        let target = self.prefetch.target();
        self.phase == Phase::Working && target >= BATCH && self.held() > target / 2
    }

    pub fn held(&self) -> usize {
        self.tasks.claims.len() + self.thread_tasks_held.claims.len()
    }

    /// A step was answered; the news there is for Python. What was handed over meanwhile, or before without its message, the
    /// step did not reckon with: what is more than there is room for goes back, the newest claims first. None: the server has
    /// lost what was handed over, and its tokens name other tasks now.
    pub fn accept(&mut self, reply: &mut Reply, now: Instant) -> Option<News> {
        if self.hand_offs.contradict(&reply.claims) {
            return None;
        }
        self.sending = 0;
        let claimed = reply.claims.len();
        self.more = reply.more;
        self.look_at = match (claimed, reply.more) {
            (_, true) => None,
            (0, false) if reply.wait_ms < 0 => None,
            (0, false) => Some(now + Duration::from_millis(reply.wait_ms.unsigned_abs()).max(SHORTEST_WAIT)),
            // Only a step that claims nothing tells when the next task falls due.
            (_, false) => Some(now + LOOK_AGAIN),
        };
        let before = self.tasks.claims.len();
        let mut room = self.asked.saturating_sub(self.hand_offs.stepped(&mut reply.claims));
        for claim in reply.claims.drain(..) {
            if room > 0 && self.lanes.has_room(&claim) {
                room -= 1;
                self.keep(claim);
            } else {
                self.give_back(claim);
            }
        }
        self.tell();
        let nothing_held = self.held() + self.started == 0 && self.outbox.is_empty();
        Some(News {
            tasks: before == 0 && !self.tasks.claims.is_empty(),
            threads: self.threads_to_wake(),
            idle: claimed == 0 && !reply.more && nothing_held,
        })
    }

    /// What somebody claimed for this worker; the news there is for Python, and whether to wake the I/O loop: it may have to
    /// go back, at once where other queues of this process have taken the slots since this one offered itself. `by_loop`: the
    /// event loop brings them and comes for them next, unless its tasks keep it from that.
    pub fn take_over(&mut self, mut claims: Vec<Claim>, session: u64, by_loop: bool) -> (News, bool) {
        if session != self.session {
            claims.clear();
        }
        let before = self.tasks.claims.len();
        self.hand_offs.handed_over(&mut claims);
        let room = self.pool_share.as_ref().map_or(usize::MAX, |_| self.room().saturating_sub(self.held()));
        let late = claims.split_off(claims.len().min(room));
        claims.into_iter().for_each(|claim| self.keep(claim));
        late.into_iter().for_each(|claim| self.give_back(claim));
        self.pool_share.iter().for_each(PoolShare::busy);
        self.tell();
        let tasks = before == 0 && !self.tasks.claims.is_empty();
        let at_once = by_loop && self.phase == Phase::Working && self.used() == 0;
        (News { tasks, threads: self.threads_to_wake(), idle: false }, !at_once && self.wake())
    }

    fn give_back(&mut self, claim: Claim) {
        release(&mut self.outbox, &mut self.lanes, &claim.shifted(self.shift));
    }

    fn keep(&mut self, claim: Claim) {
        let mut claim = claim.shifted(self.shift);
        self.last_token = self.last_token.max(claim.last_token());
        let is_whole = claim.others.is_empty() || self.batch_tasks.contains(&claim.name);
        let others = if is_whole { Vec::new() } else { std::mem::take(&mut claim.others) };
        let queue = match self.thread_tasks.contains(&claim.name) {
            true => &mut self.thread_tasks_held,
            false => &mut self.tasks,
        };
        for claim in std::iter::once(claim).chain(others) {
            self.lanes.claimed(&claim);
            queue.claims.push_back(claim);
        }
    }

    /// Tasks that were started and are not settled.
    pub fn started(&self) -> usize {
        self.started
    }

    /// Whether there is something for the event loop to start.
    pub fn has_tasks(&self) -> bool {
        !self.tasks.claims.is_empty()
    }

    /// The loop is about to wait.
    pub fn listen(&mut self) {
        self.waiting = Waiting::ForAnything;
    }

    /// How many of the waiting threads have a task to start and a slot for it.
    pub fn threads_to_wake(&self) -> usize {
        self.waiting_threads.min(self.thread_tasks_held.claims.len()).min(self.room())
    }

    /// Whether everything that was started has been settled; if not, settling wakes the I/O loop.
    pub fn is_quiet(&mut self) -> bool {
        if self.started > 0 {
            self.listen();
        }
        self.started == 0
    }
}

/// What an answered step means for Python.
#[derive(Debug, PartialEq, Eq)]
pub struct News {
    /// The event loop has tasks where it had none.
    pub tasks: bool,
    /// How many of the waiting threads may go on.
    pub threads: usize,
    /// Nothing is ready, nothing is held, everything is settled.
    pub idle: bool,
}

fn release(outbox: &mut Outcomes, lanes: &mut Lanes, claim: &Claim) {
    lanes.gone(claim.token);
    for Claim { id, token, .. } in claim.batch() {
        outbox.push(&Outcome { id, token: *token, outcome: RELEASE, run_ms: 0, value: b"", details: b"" });
    }
}

#[cfg(test)]
mod tests;
