//! How much work to hold ahead of free slots, learnt from how it goes.
//!
//! Owns: the measured rate of completions, the round trip of a step, how long tasks run and how large they
//! are. Must not know: the connection, nor which tasks there are.

use std::time::{Duration, Instant};

/// Tasks held ahead at most.
const MOST: f64 = 2000.0;
/// Tasks that run longer on average are held ahead only where slots come free so often that the wait is short: another
/// worker would start them sooner.
const SLOW_MS: f64 = 50.0;
/// At least so much work is held ahead, so that a step carries a full batch at high rates.
const HORIZON_S: f64 = 0.003;
/// Tasks that started together end together: a share of their run time is held ahead, so that slots do not wait.
const SHARE_OF_RUN: f64 = 0.2;
const LONGEST_SHARE_S: f64 = 0.02;
/// How quickly the measured rate follows the real one: no slower than it changes, no faster than tasks end.
const MEMORY_S: f64 = 0.02;
const LONGEST_MEMORY_S: f64 = 1.0;
/// How much one task counts in the averages of run time and size; one step in that of the round trip.
const WEIGHT: f64 = 0.1;
/// Tasks a step claims at most, and outcomes worth waiting for where there is plenty to start: larger batches cost
/// the server more a task, smaller ones the worker.
pub const BATCH: usize = 100;
/// Outcomes a step carries at most, so that it does not keep the server from others for long.
pub const STEP_RECORDS: usize = 250;
/// Bytes a step carries at most each way, except for a single record that is larger.
pub const STEP_BYTES: usize = 1 << 20;

pub struct Prefetch {
    cap: f64,
    /// Completions a second.
    rate: f64,
    round_trip_s: f64,
    run_ms: f64,
    claim_bytes: f64,
    completed: usize,
    since: Instant,
}

impl Prefetch {
    /// `cap`: never hold more ahead than that.
    pub fn new(cap: Option<usize>, now: Instant) -> Self {
        Self {
            cap: cap.map_or(MOST, |cap| cap as f64),
            rate: 0.0,
            round_trip_s: 0.0,
            run_ms: 0.0,
            claim_bytes: 0.0,
            completed: 0,
            since: now,
        }
    }

    /// Tasks have ended that ran for `run_ms` in all.
    pub fn completed(&mut self, count: usize, run_ms: i64) {
        if count > 0 {
            self.completed += count;
            let share = average_weight(count);
            self.run_ms += share * (run_ms.max(0) as f64 / count as f64 - self.run_ms);
        }
    }

    /// A step that took `round_trip` brought tasks of `bytes` in all.
    pub fn stepped(&mut self, now: Instant, round_trip: Duration, claims: usize, bytes: usize) {
        self.round_trip_s += WEIGHT * (round_trip.as_secs_f64() - self.round_trip_s);
        if claims > 0 {
            self.claim_bytes += average_weight(claims) * (bytes as f64 / claims as f64 - self.claim_bytes);
        }
        let elapsed = now.duration_since(self.since).as_secs_f64();
        if elapsed > 0.0 {
            let memory = (self.run_ms / 500.0).clamp(MEMORY_S, LONGEST_MEMORY_S);
            let share = 1.0 - (-elapsed / memory).exp();
            self.rate += share * (self.completed as f64 / elapsed - self.rate);
            self.completed = 0;
            self.since = now;
        }
    }

    /// What was held ahead could not be started: begin anew, carefully.
    pub fn reset(&mut self) {
        self.rate = 0.0;
    }

    /// How many tasks to hold ahead of the slots.
    pub fn target(&self) -> usize {
        if self.rate < 1.0 {
            return 0;
        }
        let share_s = (SHARE_OF_RUN * self.run_ms / 1000.0).min(LONGEST_SHARE_S);
        let ahead = self.rate * (2.0 * self.round_trip_s).max(HORIZON_S).max(share_s);
        // Not even one where it would wait longer than that.
        let whole = if self.run_ms > SLOW_MS { ahead.floor() } else { ahead.ceil() };
        whole.min(self.cap).min(MOST) as usize
    }

    /// How many tasks a step may claim so that its reply stays small.
    pub fn most_claims(&self) -> usize {
        let by_size = STEP_BYTES as f64 / self.claim_bytes.max(1.0);
        (by_size as usize).clamp(1, BATCH)
    }
}

fn average_weight(count: usize) -> f64 {
    1.0 - (1.0 - WEIGHT).powi(count.min(1000) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `steps` steps of `round_trip`, each with `completed` tasks that ran for `run_ms` each.
    fn after(cap: Option<usize>, steps: u32, round_trip: Duration, completed: usize, run_ms: i64) -> Prefetch {
        every(round_trip, cap, steps, round_trip, completed, run_ms)
    }

    /// One such step in each `period`.
    fn every(
        period: Duration,
        cap: Option<usize>,
        steps: u32,
        round_trip: Duration,
        completed: usize,
        run_ms: i64,
    ) -> Prefetch {
        let start = Instant::now();
        let mut prefetch = Prefetch::new(cap, start);
        for step in 1..=steps {
            prefetch.completed(completed, run_ms * completed as i64);
            prefetch.stepped(start + period * step, round_trip, completed, completed * 100);
        }
        prefetch
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_is_held_ahead_before_anything_was_measured() {
        assert_eq!(after(None, 0, MS, 0, 0).target(), 0);
    }

    #[test]
    fn fast_tasks_are_held_ahead_by_time() {
        let target = after(None, 200, MS, 90, 0).target();
        assert!((250..=300).contains(&target), "{target}");
    }

    #[test]
    fn a_long_round_trip_is_covered_twice() {
        let target = after(None, 200, 20 * MS, 1000, 0).target();
        assert!((1900..=2000).contains(&target), "{target}");
    }

    #[test]
    fn slow_tasks_are_not_held_ahead() {
        assert_eq!(every(60 * MS, None, 200, MS, 1, 60).target(), 0);
        assert_eq!(every(5000 * MS, None, 200, MS, 16, 5000).target(), 0);
        assert!(every(40 * MS, None, 200, MS, 1, 40).target() > 0);
    }

    #[test]
    fn slow_tasks_of_many_slots_are_held_ahead_a_short_while() {
        let target = after(None, 2000, 2 * MS, 10, 100).target();
        assert!((90..=100).contains(&target), "{target}");
    }

    #[test]
    fn a_cap_is_kept() {
        assert_eq!(after(Some(7), 200, MS, 90, 0).target(), 7);
        assert_eq!(after(Some(0), 200, MS, 90, 0).target(), 0);
    }

    #[test]
    fn large_tasks_come_in_small_numbers() {
        let start = Instant::now();
        let mut prefetch = Prefetch::new(None, start);
        assert_eq!(prefetch.most_claims(), BATCH);
        for _ in 0..10 {
            prefetch.stepped(start, MS, 100, 100 * 512 * 1024);
        }
        assert_eq!(prefetch.most_claims(), 2);
    }
}
