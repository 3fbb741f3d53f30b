//! What one worker does, counted where Python cannot hold it up: attempts by task and lane, how long they ran and
//! had waited, what was lost or refused.
//!
//! Owns: the counters and histograms. Must not know: what an outcome means, apart from those that are no attempt, and
//! `complete`, which the server only speaks of where it refuses it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engine::claims::Claim;
use crate::engine::outcomes::{COMPLETE, Outcomes, RELEASE};
use crate::wire::values::number;

/// Upper bounds of the histograms' buckets, in milliseconds.
pub const BOUNDS_MS: [u64; 14] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000];

/// The outcomes of what was handed back unstarted or untried.
const UNTRIED: [&[u8]; 2] = [RELEASE, b"unknown"];

/// How often something took how long.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// At or under each bound and over the one before; the last is for the rest.
    pub buckets: [u64; BOUNDS_MS.len() + 1],
    pub sum: Duration,
}

impl Histogram {
    fn observe(&mut self, took: Duration) {
        let at = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < took);
        self.buckets[at] += 1;
        self.sum += took;
    }
}

/// One task in one lane.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Empty for all tasks that nobody registered: there is no end to such names.
    pub task: String,
    pub lane: String,
    /// Attempts that ended, by outcome.
    pub outcomes: BTreeMap<String, u64>,
    pub run: Histogram,
    /// How long tasks were ready before their first attempt.
    pub wait: Histogram,
}

/// Everything that was counted.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub series: Vec<Series>,
    pub leases_lost: u64,
    /// Attempts that were under way when the lease was lost.
    pub attempts_lost: u64,
    /// Outcomes that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// Counts for one worker. From any thread.
#[derive(Debug)]
pub struct Observer {
    /// Names that are shown.
    tasks: HashSet<Vec<u8>>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    seen: Seen,
    /// Where in `seen.series`, by task and lane.
    places: HashMap<(Vec<u8>, Vec<u8>), usize>,
    /// What is under way: its series, by its token.
    open: HashMap<i64, usize>,
    /// Has ended, and the server has not said yet what it became.
    settling: HashMap<i64, usize>,
}

impl Observer {
    /// `tasks`: the registered ones.
    pub fn new(tasks: HashSet<Vec<u8>>) -> Self {
        Self { tasks, counts: Mutex::default() }
    }

    /// These were handed to Python to be started.
    pub fn started(&self, claims: &[Claim]) {
        if claims.is_empty() {
            return;
        }
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let mut counts = self.counts();
        for claim in claims.iter().flat_map(Claim::batch) {
            let at = counts.place(self.tasks.get(&claim.name).map_or(&[], Vec::as_slice), &claim.lane);
            counts.open.insert(claim.token, at);
            if claim.tries == 1 {
                // By two clocks, so it may seem negative.
                let waited = Duration::from_millis(now_ms.saturating_sub(claim.enqueued_at).max(0) as u64);
                counts.seen.series[at].wait.observe(waited);
            }
        }
    }

    /// These have ended.
    pub fn settled(&self, outcomes: &Outcomes) {
        let mut counts = self.counts();
        for record in outcomes.iter() {
            let Some(token) = number(record.token()) else { continue };
            let Some(at) = counts.open.remove(&token) else { continue };
            let outcome = record.outcome();
            let series = &mut counts.seen.series[at];
            if outcome == COMPLETE {
                count(&mut series.outcomes, outcome);
            } else {
                counts.settling.insert(token, at);
            }
            let series = &mut counts.seen.series[at];
            if !UNTRIED.contains(&outcome) {
                // Whole milliseconds, rounded down: the middle is nearer to the truth.
                let run_ms = number(record.run_ms()).unwrap_or(0).max(0) as u64;
                series.run.observe(Duration::from_millis(run_ms) + Duration::from_micros(500));
            }
        }
    }

    /// This is what the attempt of that token became, in the server's word.
    pub fn became(&self, token: i64, outcome: &[u8]) {
        let mut counts = self.counts();
        if let Some(at) = counts.settling.remove(&token) {
            count(&mut counts.seen.series[at].outcomes, outcome);
        }
    }

    /// The lease is lost, and with it what is under way.
    pub fn lease_lost(&self) {
        let mut counts = self.counts();
        counts.seen.leases_lost += 1;
        counts.seen.attempts_lost += (counts.open.len() + counts.settling.len()) as u64;
        // However they end, it is not theirs to tell any more.
        counts.open.clear();
        counts.settling.clear();
    }

    /// An outcome was refused: of the attempt of that token, if it is under way under this lease.
    pub fn refused(&self, token: Option<i64>, reason: &[u8]) {
        let mut counts = self.counts();
        token.and_then(|token| counts.settling.remove(&token));
        count(&mut counts.seen.refused, reason);
    }

    /// All that was counted so far.
    pub fn seen(&self) -> Seen {
        self.counts().seen.clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn place(&mut self, task: &[u8], lane: &[u8]) -> usize {
        let key = (task.to_vec(), lane.to_vec());
        *self.places.entry(key).or_insert_with(|| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.seen.series.push(Series { task: text(task), lane: text(lane), ..Series::default() });
            self.seen.series.len() - 1
        })
    }
}

fn count(counters: &mut BTreeMap<String, u64>, what: &[u8]) {
    let what = String::from_utf8_lossy(what);
    match counters.get_mut(what.as_ref()) {
        Some(counter) => *counter += 1,
        None => {
            counters.insert(what.into_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outcomes::Outcome;

    fn claim(token: i64, name: &str, tries: i64) -> Claim {
        Claim { tries, ..Claim::example(token, name) }
    }

    fn outcome(token: i64, kind: &str, run_ms: i64) -> Outcomes {
        let mut outcomes = Outcomes::default();
        outcomes.push(&Outcome { id: b"t", token, outcome: kind.as_bytes(), run_ms, value: b"", details: b"" });
        outcomes
    }

    #[test]
    fn attempts_count_by_task_and_outcome() {
        let observer = Observer::new(HashSet::from([b"work".to_vec()]));
        observer.started(&[claim(1, "work", 1), claim(2, "work", 2), claim(3, "made up", 1), claim(4, "other", 1)]);
        observer.settled(&outcome(1, "complete", 4));
        observer.settled(&outcome(2, "complete", 5));
        observer.settled(&outcome(2, "complete", 5));
        observer.settled(&outcome(3, "retry", 0));
        assert!(observer.seen().series[1].outcomes.is_empty(), "nobody knows yet what it became");
        observer.became(3, b"failed");
        observer.became(3, b"failed");
        let seen = observer.seen();
        assert_eq!(seen.series.len(), 2, "what nobody registered counts together");
        let (work, others) = (&seen.series[0], &seen.series[1]);
        assert_eq!((work.task.as_str(), work.lane.as_str(), others.task.as_str()), ("work", "default", ""));
        assert_eq!(work.outcomes, BTreeMap::from([("complete".to_owned(), 2)]), "each is settled once");
        assert_eq!(work.run.buckets[..3], [1, 1, 0], "5 ms and a bit are more than 5 ms");
        assert_eq!(others.outcomes, BTreeMap::from([("failed".to_owned(), 1)]));
        assert_eq!(work.wait.buckets.iter().sum::<u64>(), 1, "only a first attempt tells how long it waited");
    }

    #[test]
    fn what_is_handed_back_ran_not() {
        let observer = Observer::new(HashSet::new());
        observer.started(&[claim(1, "work", 1)]);
        observer.settled(&outcome(1, "release", 0));
        observer.became(1, b"release");
        let seen = observer.seen();
        assert_eq!(seen.series[0].outcomes["release"], 1);
        assert_eq!(seen.series[0].run.buckets.iter().sum::<u64>(), 0);
    }

    #[test]
    fn what_was_under_way_is_lost_with_the_lease() {
        let observer = Observer::new(HashSet::new());
        observer.started(&[claim(1, "work", 1), claim(2, "work", 1)]);
        observer.settled(&outcome(1, "complete", 1));
        observer.lease_lost();
        observer.settled(&outcome(2, "complete", 1));
        observer.lease_lost();
        observer.refused(None, b"stale");
        let seen = observer.seen();
        assert_eq!((seen.leases_lost, seen.attempts_lost, seen.refused["stale"]), (2, 1, 1));
        assert_eq!(seen.series[0].outcomes["complete"], 1);
    }
}
