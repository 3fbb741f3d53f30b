//! The slots that the queues of one process share.
//!
//! Owns: how many slots each queue may use. Each is guaranteed its share; what one does not need goes to those that can
//! use it, and comes back to it as their tasks end. Must not know: which tasks there are, connections, Python.

use std::fmt::{Debug, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// The worker of one of the queues, as the pool calls it. Called without a lock of the pool's being held.
pub trait PoolListener: Send + Sync {
    /// There may be room where there was none.
    fn room(&self);
    /// Something may have come since it last looked.
    fn look(&self);
    /// No queue has anything left to do.
    fn idle(&self);
}

pub struct Pool {
    concurrency: usize,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Queues {
    members: Vec<Member>,
    /// When any of them last had something to do.
    busy_at: Option<Instant>,
}

#[derive(Default)]
struct Member {
    /// Slots that are its own.
    guaranteed: usize,
    used: usize,
    /// Slots it would use if it had them.
    demand: usize,
    /// It found no room, and is to be told of any.
    is_short: bool,
    /// When the step was sent that found nothing.
    idle_at: Option<Instant>,
    listener: Option<Weak<dyn PoolListener>>,
}

impl Member {
    /// Slots that the others must leave to it.
    fn reserved(&self) -> usize {
        self.used.max(self.guaranteed.min(self.demand))
    }

    fn listener(&self) -> Option<Arc<dyn PoolListener>> {
        self.listener.as_ref().and_then(Weak::upgrade)
    }
}

impl Pool {
    /// Slots for as many queues as there are shares. Each is guaranteed one at least: there must be enough for that.
    pub fn new(concurrency: usize, shares: &[usize]) -> Arc<Self> {
        let members =
            apportion(concurrency, shares).into_iter().map(|guaranteed| Member { guaranteed, ..Member::default() });
        let queues = Queues { members: members.collect(), busy_at: None };
        Arc::new(Self { concurrency, queues: Mutex::new(queues) })
    }

    /// How many slots each queue is guaranteed.
    pub fn guaranteed(&self) -> Vec<usize> {
        self.lock().members.iter().map(|member| member.guaranteed).collect()
    }

    /// The place of one of the queues.
    pub fn share(self: &Arc<Self>, at: usize) -> Option<PoolShare> {
        (at < self.lock().members.len()).then(|| PoolShare { pool: self.clone(), at })
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One queue's place at the pool.
#[derive(Clone)]
pub struct PoolShare {
    pool: Arc<Pool>,
    at: usize,
}

impl Debug for PoolShare {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "PoolShare({})", self.at)
    }
}

impl PoolShare {
    /// Whom to call when something changes for this queue.
    pub fn join(&self, listener: Weak<dyn PoolListener>) {
        self.pool.lock().members[self.at].listener = Some(listener);
    }

    /// Slots it may use beyond those that it uses. Where there are none it is told of the next.
    pub fn room(&self) -> usize {
        let mut queues = self.pool.lock();
        let room = queues.room(self.at, self.pool.concurrency);
        queues.members[self.at].is_short |= room == 0;
        room
    }

    /// Uses up to `count` slots more; how many it got.
    pub fn take(&self, count: usize) -> usize {
        let mut queues = self.pool.lock();
        let taken = count.min(queues.room(self.at, self.pool.concurrency));
        let member = &mut queues.members[self.at];
        member.used += taken;
        member.is_short |= taken < count;
        taken
    }

    /// It uses so many slots, and would use `demand` if it had them.
    pub fn tell(&self, used: usize, demand: usize) {
        let mut queues = self.pool.lock();
        let member = &mut queues.members[self.at];
        let before = member.reserved();
        (member.used, member.demand) = (used, demand);
        if member.reserved() < before {
            let others = queues.members.iter_mut().enumerate().filter(|(other, _)| *other != self.at);
            let short =
                others.filter_map(|(_, member)| std::mem::take(&mut member.is_short).then(|| member.listener())?);
            let short: Vec<_> = short.collect();
            drop(queues);
            short.iter().for_each(|listener| listener.room());
        }
    }

    /// Whether it has less than its share.
    pub fn is_owed(&self) -> bool {
        let queues = self.pool.lock();
        queues.members[self.at].used < queues.members[self.at].guaranteed
    }

    /// It had something to do.
    pub fn busy(&self) {
        self.pool.lock().busy_at = Some(Instant::now());
    }

    /// It has nothing to do: a step that was sent at that time found nothing. When that is true of all queues since
    /// any of them had something to do, which may have left work for another, all are told.
    pub fn idle(&self, sent: Instant) {
        let mut queues = self.pool.lock();
        queues.members[self.at].idle_at = Some(sent);
        let busy_at = queues.busy_at;
        let must_look = |member: &Member| member.idle_at.is_none() || member.idle_at <= busy_at;
        let mut calls: Vec<_> = queues.members.iter().filter(|member| must_look(member)).collect();
        let all_idle = calls.is_empty();
        if all_idle {
            calls = queues.members.iter().collect();
        }
        let calls: Vec<_> = calls.into_iter().filter_map(Member::listener).collect();
        drop(queues);
        calls.iter().for_each(|listener| if all_idle { listener.idle() } else { listener.look() });
    }
}

impl Queues {
    fn room(&self, at: usize, concurrency: usize) -> usize {
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != at);
        let reserved: usize = others.map(|(_, member)| member.reserved()).sum();
        concurrency.saturating_sub(reserved + self.members[at].used)
    }
}

/// Slots in proportion to shares, one at least each (D'Hondt's method).
fn apportion(concurrency: usize, shares: &[usize]) -> Vec<usize> {
    let mut slots = vec![1; shares.len()];
    for _ in shares.len()..concurrency {
        let next = (0..shares.len()).max_by(|&a, &b| {
            // The first one where two are equal.
            (shares[a] * (slots[b] + 1)).cmp(&(shares[b] * (slots[a] + 1))).then(b.cmp(&a))
        });
        next.into_iter().for_each(|at| slots[at] += 1);
    }
    slots
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[derive(Default)]
    struct Calls {
        room: AtomicUsize,
        look: AtomicUsize,
        idle: AtomicUsize,
    }

    impl PoolListener for Calls {
        fn room(&self) {
            self.room.fetch_add(1, Ordering::Relaxed);
        }
        fn look(&self) {
            self.look.fetch_add(1, Ordering::Relaxed);
        }
        fn idle(&self) {
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Calls {
        fn seen(&self) -> [usize; 3] {
            [&self.room, &self.look, &self.idle].map(|count| count.swap(0, Ordering::Relaxed))
        }
    }

    const ALL: usize = usize::MAX;

    fn two(concurrency: usize, shares: [usize; 2]) -> ([PoolShare; 2], [Arc<Calls>; 2]) {
        let pool = Pool::new(concurrency, &shares);
        let calls = [Arc::new(Calls::default()), Arc::new(Calls::default())];
        let members = [0, 1].map(|at| pool.share(at).unwrap());
        for (member, calls) in members.iter().zip(&calls) {
            let listener: Arc<dyn PoolListener> = calls.clone();
            member.join(Arc::downgrade(&listener));
        }
        (members, calls)
    }

    #[test]
    fn slots_are_apportioned_by_share_and_none_goes_without() {
        assert_eq!(apportion(16, &[3, 1]), [12, 4]);
        assert_eq!(apportion(10, &[1, 1, 1]), [4, 3, 3]);
        assert_eq!(apportion(2, &[100, 1]), [1, 1]);
        assert_eq!(apportion(5, &[1000, 1, 1]), [3, 1, 1]);
    }

    #[test]
    fn a_queue_alone_uses_all_slots() {
        let ([one, _], _) = two(4, [1, 1]);
        one.tell(0, ALL);
        assert_eq!((one.take(10), one.room()), (4, 0));
    }

    #[test]
    fn what_is_taken_comes_back_to_who_is_sure_of_it() {
        let ([one, other], [_, calls]) = two(4, [3, 1]);
        assert_eq!(one.take(4), 4);
        other.tell(0, ALL);
        assert_eq!((other.room(), other.is_owed()), (0, true));
        one.tell(3, ALL);
        assert_eq!(calls.seen(), [1, 0, 0], "it was told of the slot");
        assert_eq!(one.take(1), 0, "the slot is the other's");
        assert_eq!((other.take(3), other.is_owed()), (1, false));
    }

    #[test]
    fn a_single_task_reserves_one_slot() {
        let ([one, other], _) = two(4, [1, 1]);
        other.tell(0, 1);
        assert_eq!(one.take(4), 3);
        assert_eq!(other.take(1), 1);
    }

    #[test]
    fn what_is_not_needed_any_more_is_offered_to_who_is_short() {
        let ([one, other], [calls, _]) = two(4, [1, 1]);
        other.tell(0, ALL);
        assert_eq!(one.take(4), 2);
        other.tell(0, 0);
        assert_eq!(calls.seen(), [1, 0, 0]);
        assert_eq!(one.take(4), 2);
        other.tell(0, ALL);
        other.tell(0, 0);
        assert_eq!(calls.seen(), [1, 0, 0], "the last time it got less than it wanted");
        other.tell(0, ALL);
        other.tell(0, 0);
        assert_eq!(calls.seen(), [0, 0, 0], "it does not ask any more");
    }

    #[test]
    fn all_are_idle_when_none_was_busy_since() {
        let ([one, other], [calls, others]) = two(4, [1, 1]);
        let soon = || Instant::now() + Duration::from_millis(1);
        one.idle(soon());
        assert_eq!((calls.seen(), others.seen()), ([0, 0, 0], [0, 1, 0]), "the other never looked");
        std::thread::sleep(Duration::from_millis(2));
        other.busy();
        other.idle(soon());
        assert_eq!((calls.seen(), others.seen()), ([0, 1, 0], [0, 0, 0]), "it may have left work for the first");
        one.idle(soon());
        assert_eq!((calls.seen(), others.seen()), ([0, 0, 1], [0, 0, 1]));
    }
}
