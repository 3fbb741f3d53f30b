//! What must hold of limits: what runs is what the leases name, and each line has its turn in one place.

use std::collections::{BTreeMap, BTreeSet};

use crate::keyspace::{Content, Keyspace};
use crate::server::BASE;

type Counts = BTreeMap<String, usize>;

/// Everything that is wrong with them, in sentences.
pub fn check(keys: &Keyspace, found: &mut dyn FnMut(String)) {
    let (busy, leased) = (counted(keys, "busy"), leased(keys));
    if busy != leased {
        found(format!("busy says {busy:?}, and the leases name {leased:?}"));
    }
    let mut entries = Counts::new();
    for (lane, line, ids) in lines(keys) {
        *entries.entry(lane.to_owned()).or_default() += ids.len();
        let places = places(keys, lane, line);
        if places.len() != 1 {
            found(format!("line {line} of lane {lane} has its turn in {places:?}"));
        }
    }
    let limited = counted(keys, "limited");
    if limited != entries {
        found(format!("limited says {limited:?}, and the lines have {entries:?}"));
    }
    if !limited.is_empty() && !keys.hash(&key("meta")).is_some_and(|meta| meta.contains_key("limited")) {
        found("tasks wait in lines, and meta does not say so".to_owned());
    }
    let (named, blocked) = (named_lanes(keys), blocked_lanes(keys));
    // Or heartbeats look at it, because a key was damaged.
    let is_looked_at = keys.hash(&key("meta")).is_some_and(|meta| meta.contains_key("reopening"));
    for bucket in blocked.keys().filter(|bucket| bucket.starts_with('#') && named.get(*bucket) == blocked.get(*bucket))
    {
        if !is_looked_at && !keys.scores(&key("opens")).contains_key(bucket) {
            found(format!("what gathers for {bucket} would wait for ever"));
        }
    }
    if named != blocked {
        found(format!("blocked_lanes has {named:?}, and lines are blocked in {blocked:?}"));
    }
}

/// The entries of a line that are live: of a task that waits in it. What else is there is passed over by the claim that meets it.
pub fn live_entries<'a>(keys: &Keyspace, rest: &str, entries: &'a [String]) -> Vec<&'a String> {
    let Some((lane, line)) = rest.rsplit_once(':') else { return Vec::new() };
    let is_live = |id: &&String| {
        keys.hash(&key(&format!("task:{id}"))).is_some_and(|fields| {
            let field = |name: &str| fields.get(name).map_or("", String::as_str);
            field("state") == "limited" && field("lane") == lane && field("buckets") == line
        })
    };
    entries.iter().filter(is_live).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Lanes that got work into a line that may run, and no wake-up token.
pub fn unheard(before: &Keyspace, after: &Keyspace) -> Vec<String> {
    let mut unheard = Vec::new();
    for (lane, line, ids) in lines(after) {
        let name = key(&format!("line:{lane}:{line}"));
        let known: BTreeSet<&String> = before.list(&name).iter().collect();
        let runs = after.scores(&key(&format!("ring:{lane}"))).contains_key(line);
        if runs && ids.iter().any(|id| !known.contains(id)) && after.list(&key(&format!("wake:{lane}"))).is_empty() {
            unheard.push(format!("line {line} of lane {lane} got work and no wake-up token"));
        }
    }
    unheard
}

/// Entries of all lines, by lane.
pub fn entries(keys: &Keyspace) -> usize {
    lines(keys).map(|(_, _, ids)| ids.len()).sum()
}

/// The buckets of a line, without what a start costs.
fn buckets(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|part| part.split('*').next().unwrap_or_default())
}

fn lines(keys: &Keyspace) -> impl Iterator<Item = (&str, &str, &[String])> {
    keys.0.iter().filter_map(|(name, value)| {
        let (lane, line) = name.strip_prefix(BASE)?.strip_prefix("line:")?.rsplit_once(':')?;
        match &value.content {
            Content::List(ids) => Some((lane, line, ids.as_slice())),
            _ => None,
        }
    })
}

/// How many attempts of each bucket run, by the leases.
fn leased(keys: &Keyspace) -> Counts {
    let mut counts = Counts::new();
    for name in keys.0.keys().filter(|name| name.starts_with(&key("running:"))) {
        for lease in keys.hash(name).into_iter().flatten().map(|(_, lease)| lease) {
            // With yet another part it is of a later version.
            let parts: Vec<&str> = lease.split(' ').collect();
            let line = if parts.len() == 2 { parts[1] } else { "" };
            // One that follows another task of its batch has no slots.
            for bucket in buckets(line).filter(|bucket| !bucket.is_empty() && *bucket != "+") {
                *counts.entry(bucket.to_owned()).or_default() += 1;
            }
        }
    }
    counts
}

fn counted(keys: &Keyspace, name: &str) -> Counts {
    let fields = keys.hash(&key(name)).into_iter().flatten();
    fields.map(|(field, count)| (field.clone(), count.parse().unwrap_or(0))).collect()
}

fn places(keys: &Keyspace, lane: &str, line: &str) -> Vec<String> {
    let blocked = buckets(line).map(|bucket| format!("blocked:{lane}:{bucket}"));
    let places = std::iter::once(format!("ring:{lane}")).chain(blocked);
    places.filter(|place| keys.scores(&key(place)).contains_key(line)).collect()
}

/// bucket → lanes, as `blocked_lanes` has them.
fn named_lanes(keys: &Keyspace) -> BTreeMap<String, BTreeSet<String>> {
    let fields = keys.hash(&key("blocked_lanes")).into_iter().flatten();
    fields.map(|(bucket, lanes)| (bucket.clone(), serde_json::from_str(lanes).unwrap_or_default())).collect()
}

/// The same, as they are.
fn blocked_lanes(keys: &Keyspace) -> BTreeMap<String, BTreeSet<String>> {
    let mut lanes = BTreeMap::<String, BTreeSet<String>>::new();
    for name in keys.0.keys() {
        let rest = name.strip_prefix(BASE).and_then(|name| name.strip_prefix("blocked:"));
        if let Some((lane, bucket)) = rest.and_then(|rest| rest.rsplit_once(':')) {
            lanes.entry(bucket.to_owned()).or_default().insert(lane.to_owned());
        }
    }
    lanes
}

fn key(name: &str) -> String {
    format!("{BASE}{name}")
}
