//! The invariants, checked from the keyspace alone and then against what the library says of itself.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use crate::groups;
use crate::keyspace::{Content, Keyspace, same_expiry};
use crate::lines;
use crate::server::{BASE, Server, items, text};

/// Where a task's id lies: `ready:default`, `running:w:1` …
type Places = BTreeMap<String, Vec<String>>;

/// Everything that is wrong with a queue, in sentences.
pub fn problems(keys: &Keyspace) -> Vec<String> {
    let mut problems = Vec::new();
    let mut found = |what: String| problems.push(what);
    let places = places(keys, &mut found);
    for (id, places) in &places {
        if keys.hash(&record(id)).is_none() {
            found(format!("{id} lies in {} and has no record", places.join(" and ")));
        }
    }
    for (id, fields) in records(keys) {
        let places = places.get(&id).map_or(&[] as &[String], Vec::as_slice);
        check_record(keys, &id, fields, places, &mut found);
    }
    lines::check(keys, &mut found);
    groups::check(keys, &mut found);
    let workers = keys.sorted(&key("workers"));
    for (name, value) in &keys.0 {
        let Some(name) = name.strip_prefix(BASE) else {
            found(format!("key {name} does not begin with the queue's base"));
            continue;
        };
        let (kind, rest) = name.split_once(':').unwrap_or((name, ""));
        let expected = match (kind, rest) {
            ("lanes", "") => "set",
            ("scheduled" | "quarantined" | "workers" | "loads" | "dead" | "unknown_tasks" | "schedule_due", "") => {
                "zset"
            }
            ("workflows" | "deadlines", "") => "zset",
            ("open" | "failed", _) => "set",
            ("chores" | "outbox" | "audit", "") | ("nodes" | "items" | "undo", _) => "list",
            ("results" | "steps" | "signals", _) => "hash",
            ("rates" | "opens", "") | ("held" | "idle" | "ring" | "blocked", _) => "zset",
            ("meta" | "stats" | "schedules" | "pauses" | "unique", "") => "hash",
            ("window" | "slowed" | "saving", _) => "string",
            ("limits" | "overrides" | "busy" | "limited" | "turns" | "blocked_lanes", "") => "hash",
            ("task" | "running" | "worker" | "stats" | "task_stats", _) => "hash",
            ("ready" | "line" | "wake" | "mailbox" | "log" | "stream", _) => "list",
            ("tombstones" | "aborts" | "waiters", _) => "set",
            _ => {
                found(format!("key {name} is not in the protocol"));
                continue;
            }
        };
        if value.content.kind() != expected {
            found(format!("{name} is a {}, not a {expected}", value.content.kind()));
        }
        let ends = value.expires_at.is_some();
        match kind {
            "mailbox" | "waiters" | "log" | "stream" | "audit" | "unknown_tasks" | "window" | "slowed" | "saving"
                if !ends =>
            {
                found(format!("{name} has no TTL"))
            }
            "stats" if ends == rest.is_empty() => found(format!("{name}: TTL {ends}")),
            "running" | "worker" | "aborts" if !workers.iter().any(|worker| worker == rest) => {
                found(format!("{name} belongs to no worker"));
            }
            "task_stats" if !ends => found(format!("{name} has no TTL")),
            "task" | "mailbox" | "waiters" | "log" | "stream" | "audit" | "stats" | "task_stats" | "unknown_tasks"
            | "window" | "slowed" | "saving" => {}
            "steps" | "signals" => {
                let fields = keys.hash(&record(rest));
                let state = fields.and_then(|fields| fields.get("state")).map_or("", String::as_str);
                if matches!(state, "" | "complete" | "aborted" | "expired" | "discarded") {
                    found(format!("{name} belongs to no task that may go on"));
                }
                let task = keys.0.get(&record(rest)).and_then(|record| record.expires_at);
                if !same_expiry(task, value.expires_at) {
                    found(format!("{name} does not end when its task does"));
                }
            }
            // Kept as long as their group's record.
            "open" | "nodes" | "items" | "results" | "failed" if ends => {
                let group = keys.0.get(&record(rest)).and_then(|record| record.expires_at);
                if !same_expiry(group, value.expires_at) {
                    found(format!("{name} does not end when its group does"));
                }
            }
            _ if ends => found(format!("{name} has a TTL")),
            _ => {}
        }
    }
    for (worker, load) in keys.scores(&key("loads")) {
        let held = keys.hash(&key(&format!("running:{worker}"))).map_or(0, BTreeMap::len);
        if load != held.to_string() || !workers.contains(&worker) {
            found(format!("worker {worker} has a load of {load}, and holds {held}"));
        }
    }
    for worker in &workers {
        if keys.hash(&key(&format!("worker:{worker}"))).is_none() {
            found(format!("worker {worker} has no row"));
        }
    }
    problems
}

fn check_record(
    keys: &Keyspace,
    id: &str,
    fields: &BTreeMap<String, String>,
    places: &[String],
    found: &mut dyn FnMut(String),
) {
    let field = |name: &str| fields.get(name).map_or("", String::as_str);
    let state = field("state");
    let is_group = fields.contains_key("kind");
    let expected = match state {
        "blocked" | "away" | "skipped" => String::new(),
        "failed" if is_group || fields.contains_key("home") => String::new(),
        "queued" if places == ["quarantined"] => "quarantined".to_owned(),
        "queued" => format!("ready:{}", field("lane")),
        "limited" => format!("line:{}:{}", field("lane"), field("buckets")),
        "scheduled" => "scheduled".to_owned(),
        "held" => format!("held:{}", field("pause")),
        "running" => format!("running:{}", field("worker")),
        "failed" => "dead".to_owned(),
        "complete" | "aborted" | "expired" | "discarded" => String::new(),
        _ => return found(format!("{id} is in the unknown state {state:?}")),
    };
    let expected: &[String] = if expected.is_empty() { &[] } else { &[expected] };
    if places != expected {
        found(format!("{id} is {state} but lies in {places:?}"));
    }
    let ends = keys.0[&record(id)].expires_at.is_some();
    let is_over = matches!(state, "complete" | "aborted" | "expired" | "discarded" | "skipped");
    if ends && !is_over && !((is_group || fields.contains_key("home")) && state == "failed") {
        found(format!("{id} is {state} and its record has a TTL"));
    }
    let times: Vec<&str> =
        ["enqueued_at", "started_at", "finished_at"].into_iter().filter(|time| fields.contains_key(*time)).collect();
    let fits = match state {
        "queued" | "limited" | "scheduled" | "held" | "blocked" | "away" => times == ["enqueued_at"],
        "running" => times == ["enqueued_at", "started_at"],
        _ => times.starts_with(&["enqueued_at"]) && times.ends_with(&["finished_at"]),
    };
    if !fits {
        found(format!("{id} is {state} and has {times:?}"));
    }
    if fields.contains_key("home") && !is_waiting(state) && state != "running" && !ends {
        let entry = format!("ended {id}");
        if !keys.list(&key("outbox")).contains(&entry) {
            found(format!("{id} is {state}, and its home is not to be told"));
        }
    }
    if (state == "away") && !(fields.contains_key("queue") && fields.contains_key("life")) {
        found(format!("{id} is away, and it is not said where"));
    }
    if fields.contains_key("waits_for") && state != "scheduled" {
        found(format!("{id} is {state} and waits for {:?}", field("waits_for")));
    }
    if (state == "held") != fields.contains_key("pause") {
        found(format!("{id} is {state} and held by {:?}", field("pause")));
    }
    if state != "running" && fields.contains_key("worker") && is_waiting(state) {
        found(format!("{id} is {state} and still names a worker"));
    }
    // A claim asks for these only where there is `tries`; from a line for the last two anyway.
    let asked = [
        "codec",
        "headers",
        "expires_at",
        "watched_until",
        "result_ttl_ms",
        "unique",
        "weight",
        "needs_version",
        "buckets",
    ];
    for name in &asked[..if state == "limited" { 7 } else { 9 }] {
        if is_waiting(state) && fields.contains_key(*name) && !fields.contains_key("tries") {
            found(format!("{id} is {state} and has {name}, but no tries"));
        }
    }
}

fn is_waiting(state: &str) -> bool {
    matches!(state, "queued" | "limited" | "scheduled" | "held")
}

fn places(keys: &Keyspace, found: &mut dyn FnMut(String)) -> Places {
    let mut places = Places::new();
    for (name, value) in &keys.0 {
        let Some(name) = name.strip_prefix(BASE) else {
            continue;
        };
        let ids: Vec<&String> = match (&value.content, name.split_once(':').unwrap_or((name, ""))) {
            (Content::Sorted(members), ("scheduled" | "quarantined" | "dead", "")) => members.keys().collect(),
            (Content::Sorted(members), ("held", _)) => members.keys().collect(),
            (Content::Hash(fields), ("running", _)) => fields.keys().collect(),
            (Content::List(entries), ("ready", lane)) => live_entries(keys, lane, entries, found),
            (Content::List(entries), ("line", rest)) => lines::live_entries(keys, rest, entries),
            _ => continue,
        };
        for id in ids {
            places.entry(id.clone()).or_default().push(name.to_owned());
        }
    }
    places
}

/// The entries of a lane without one for each tombstone, which must be there.
fn live_entries<'a>(
    keys: &Keyspace,
    lane: &str,
    entries: &'a [String],
    found: &mut dyn FnMut(String),
) -> Vec<&'a String> {
    let mut marks: BTreeSet<&String> = keys.list(&key(&format!("tombstones:{lane}"))).iter().collect();
    let live = entries.iter().filter(|id| !marks.remove(id)).collect();
    for id in marks {
        found(format!("the tombstone of {id} in lane {lane} has no entry"));
    }
    live
}

pub fn records(keys: &Keyspace) -> impl Iterator<Item = (String, &BTreeMap<String, String>)> {
    keys.0.iter().filter_map(|(name, value)| match (name.strip_prefix(BASE)?.strip_prefix("task:"), &value.content) {
        (Some(id), Content::Hash(fields)) => Some((id.to_owned(), fields)),
        _ => None,
    })
}

/// id → state of every task.
pub fn states(keys: &Keyspace) -> BTreeMap<String, String> {
    records(keys).map(|(id, fields)| (id, fields.get("state").cloned().unwrap_or_default())).collect()
}

/// Who waits for a task is looked for only as long as `meta` says that somebody waits for any.
pub fn unnoted(keys: &Keyspace) -> Vec<String> {
    let meta = keys.hash(&key("meta"));
    let waited_until: i64 = meta.and_then(|meta| meta.get("waited_until")?.parse().ok()).unwrap_or(0);
    let waiters = keys.0.iter().filter(|(name, _)| name.starts_with(&key("waiters:")));
    let unnoted = waiters.filter(|(_, value)| value.expires_at > Some(waited_until));
    unnoted.map(|(name, _)| format!("{name} is kept for longer than anybody waits, by meta")).collect()
}

/// A worker that may be asleep must have been woken for what a call made ready, and no more than there are.
pub fn unheard(before: &Keyspace, after: &Keyspace) -> Vec<String> {
    let mut unheard = Vec::new();
    let workers = after.sorted(&key("workers")).len();
    for name in after.0.keys().filter(|name| name.starts_with(&key("wake:"))) {
        let tokens = after.list(name).len();
        if tokens > before.list(name).len() && tokens > workers {
            unheard.push(format!("{name} holds {tokens} tokens for {workers} workers"));
        }
    }
    let paused = after.hash(&key("meta")).and_then(|meta| meta.get("paused"));
    if workers == 0 || paused.is_some_and(|what| what == "queue") {
        return unheard;
    }
    unheard.extend(lines::unheard(before, after));
    for (name, value) in &after.0 {
        let (Some(lane), Content::List(entries)) =
            (name.strip_prefix(BASE).and_then(|name| name.strip_prefix("ready:")), &value.content)
        else {
            continue;
        };
        let known: BTreeSet<&String> = before.list(name).iter().collect();
        let added = entries.iter().any(|id| !known.contains(id));
        if added && after.list(&key(&format!("wake:{lane}"))).is_empty() {
            unheard.push(format!("lane {lane} got work and no wake-up token"));
        }
    }
    unheard
}

/// What `fsck_page` finds in all sections, as `kind id detail`; and whether `counts` agrees with the keyspace.
pub fn fsck(server: &mut Server, keys: &Keyspace) -> Vec<String> {
    let mut sections: Vec<String> =
        ["records", "scheduled", "quarantined", "dead", "workflows", "workers", "loads", "busy", "schedules"]
            .map(str::to_owned)
            .to_vec();
    sections.push("schedule_due".to_owned());
    for name in keys.0.keys() {
        let name = name.strip_prefix(BASE).unwrap_or(name);
        if ["running:", "ready:", "tombstones:", "held:", "open:"].iter().any(|kind| name.starts_with(kind)) {
            sections.push(name.to_owned());
        }
    }
    let mut findings = Vec::new();
    let mut queued = BTreeSet::new();
    let mut entries = BTreeSet::new();
    while let Some(section) = sections.pop() {
        let mut cursor = "0".to_owned();
        loop {
            let args = [section.as_bytes().to_vec(), cursor.into_bytes(), b"1000".to_vec()];
            let page = match server.call("fsck_page", &args) {
                Ok(page) => page,
                Err(refusal) => {
                    findings.push(format!("{section}: {}", refusal.code));
                    break;
                }
            };
            let page: Vec<String> = items(&page).iter().map(text).collect();
            for finding in page[2..].chunks(3) {
                match finding[0].as_str() {
                    "queued" => drop(queued.insert((finding[1].clone(), finding[2].clone()))),
                    "group" | "away_without_outbox" => {}
                    "ended" => sections.push(format!("recount:{}", finding[1])),
                    "entry" => drop(entries.insert((finding[1].clone(), finding[2].clone()))),
                    _ => findings.push(finding.join(" ").trim_end().to_owned()),
                }
            }
            cursor = page[0].clone();
            if cursor == "0" {
                break;
            }
        }
    }
    for (id, lane) in queued.symmetric_difference(&entries) {
        findings.push(format!("not_in_ready {id} {lane}"));
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Where `counts` does not agree with the records.
pub fn miscounted(server: &mut Server, keys: &Keyspace) -> Vec<String> {
    let reply = match server.call("counts", &[]) {
        Ok(Value::Array(reply)) => reply.iter().map(text).collect::<Vec<_>>(),
        other => return vec![format!("counts: {other:?}")],
    };
    let states = states(keys);
    let count = |state: &str| states.values().filter(|found| *found == state).count();
    // A workflow and a map are no dead letters: what failed in them is; nor is a guest: its home has it.
    let is_dead = |fields: &BTreeMap<String, String>| {
        fields.get("state").is_some_and(|state| state == "failed")
            && !fields.contains_key("kind")
            && !fields.contains_key("home")
    };
    let dead = records(keys).filter(|(_, fields)| is_dead(fields)).count();
    let expected = [
        ("scheduled", count("scheduled")),
        ("queued", count("queued")),
        ("limited", lines::entries(keys)),
        ("running", count("running")),
        ("held", count("held")),
        ("dead", dead),
        ("workers", keys.sorted(&key("workers")).len()),
    ];
    expected
        .into_iter()
        .filter(|(name, number)| {
            let told = reply.chunks(2).find(|pair| pair[0] == *name).map(|pair| pair[1].clone());
            told != Some(number.to_string())
        })
        .map(|(name, number)| format!("counts tells other than {name} {number}: {reply:?}"))
        .collect()
}

fn key(name: &str) -> String {
    format!("{BASE}{name}")
}

fn record(id: &str) -> String {
    key(&format!("task:{id}"))
}
