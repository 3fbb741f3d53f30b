//! Slots that are taken although no task is: by threads that outlast theirs, and while somebody is told of one.

use super::Slots;

/// The threads that outlast the task of one token: several, where a middleware called it again.
#[derive(Default)]
pub(super) struct Abandoned {
    /// Below 0: one had ended before it was known to run on.
    threads: isize,
    /// Whether the task itself is settled.
    settled: bool,
}

impl Slots {
    /// How many threads run on although nobody waits for them. Each keeps a slot.
    pub fn abandoned_threads(&self) -> usize {
        self.abandoned.values().map(|stay| usize::try_from(stay.threads).unwrap_or(0)).sum()
    }

    /// A thread runs on although its task was, or will be, settled; or it has ended. Both are said, in either order.
    /// Whether to wake the I/O loop.
    pub fn thread_runs_on(&mut self, token: i64, runs_on: bool) -> bool {
        let stay = self.abandoned.entry(token).or_default();
        stay.threads += if runs_on { 1 } else { -1 };
        if stay.threads == 0 {
            if stay.settled {
                self.lanes.gone(token);
            }
            self.abandoned.remove(&token);
        }
        !runs_on && self.wake()
    }

    pub(super) fn settled_token(&mut self, token: i64) {
        match self.abandoned.get_mut(&token) {
            Some(stay) => stay.settled = true,
            None => self.lanes.gone(token),
        }
    }

    /// A slot is taken by code outside any task any more, or given back; whether to wake the I/O loop.
    pub fn occupy(&mut self, takes: bool) -> bool {
        self.occupied = if takes { self.occupied + 1 } else { self.occupied.saturating_sub(1) };
        self.tell();
        !takes && self.wake()
    }
}
