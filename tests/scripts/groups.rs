//! What must hold of workflows and maps: what has not ended is waited for, and the counts are those of the states.

use std::collections::{BTreeMap, BTreeSet};

use crate::check;
use crate::keyspace::Keyspace;
use crate::server::BASE;

const OVER: [&str; 6] = ["complete", "failed", "aborted", "expired", "discarded", "skipped"];

/// Everything that is wrong with them, in sentences.
pub fn check(keys: &Keyspace, found: &mut dyn FnMut(String)) {
    let records: BTreeMap<String, &BTreeMap<String, String>> = check::records(keys).collect();
    let chores: BTreeSet<&String> = keys.list(&key("chores")).iter().collect();
    let mut unfinished = BTreeSet::new();
    for (id, fields) in &records {
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        if field("kind") == "workflow" && field("state") == "blocked" {
            unfinished.insert(id.clone());
        }
        if fields.contains_key("kind") {
            check_group(keys, id, fields, &records, &chores, found);
        }
        // One that has begun waits for its own.
        let has_begun = fields.contains_key("kind") || fields.contains_key("building") || chores.contains(id);
        if field("state") == "blocked" && number(fields, "needs") <= 0 && !has_begun && !is_building(&records, id) {
            found(format!("{id} is blocked, and needs {}", number(fields, "needs")));
        }
    }
    let listed: BTreeSet<String> = keys.sorted(&key("workflows")).into_iter().collect();
    if listed != unfinished {
        found(format!("workflows has {listed:?}, and {unfinished:?} have not ended"));
    }
    for name in keys.0.keys().filter_map(|name| name.strip_prefix(BASE)) {
        let (kind, group) = name.split_once(':').unwrap_or((name, ""));
        if matches!(kind, "open" | "nodes" | "items" | "results" | "failed" | "undo") && !records.contains_key(group) {
            found(format!("{name} belongs to no group"));
        }
    }
}

fn check_group(
    keys: &Keyspace,
    id: &str,
    fields: &BTreeMap<String, String>,
    records: &BTreeMap<String, &BTreeMap<String, String>>,
    chores: &BTreeSet<&String>,
    found: &mut dyn FnMut(String),
) {
    let is_map = fields["kind"] == "map";
    let (goes_on, is_aborted) = (fields["state"] == "blocked", fields.contains_key("abort_requested"));
    let open: BTreeSet<&String> = keys.list(&key(&format!("open:{id}"))).iter().collect();
    let failed: BTreeSet<&String> = keys.list(&key(&format!("failed:{id}"))).iter().collect();
    let names: Vec<String> = if is_map {
        (0..number(fields, "made")).map(|index| index.to_string()).collect()
    } else {
        keys.list(&key(&format!("nodes:{id}"))).to_vec()
    };
    let (compensations, names): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| is_compensation(records, &format!("{id}~{name}")));
    check_compensations(keys, id, &compensations, records, chores, found);
    // One that runs is the only one that is open.
    let open: BTreeSet<&String> = open.into_iter().filter(|name| !compensations.contains(name)).collect();
    let is_undoing = fields.get("undoing").is_some_and(|undoing| undoing == "1");
    let mut counts = BTreeMap::<&str, i64>::new();
    for name in &names {
        let member = format!("{id}~{name}");
        let record = records.get(&member);
        let state = record.map_or("", |record| record.get("state").map_or("", String::as_str));
        let is_open = open.contains(name);
        let is_over = OVER.contains(&state) || state.is_empty();
        // A call of a map that completed has no record; of one that ended otherwise, and may not run again, it ends by itself.
        let may_be_gone = is_map && !is_open;
        if state.is_empty() && !may_be_gone {
            found(format!("{member} has no record"));
        }
        if goes_on && !is_aborted && !is_undoing && !is_over && !is_open {
            found(format!("{member} is {state}, and not in open:{id}"));
        }
        if is_open && is_over && !chores.contains(&member) && !chores.contains(&id.to_owned()) {
            found(format!("{member} is in open:{id}, but {}", if state.is_empty() { "has no record" } else { state }));
        }
        if is_open && failed.contains(name) {
            found(format!("{member} is in open:{id} and in failed:{id}"));
        }
        if !is_open {
            let counted = match state {
                "expired" | "discarded" => "failed",
                // What runs again to no effect is counted as what it was.
                _ if !is_over || state == "complete" && failed.contains(name) => "failed",
                state => state,
            };
            let is_failed = !matches!(counted, "complete" | "");
            if goes_on && is_failed != failed.contains(name) && !(counted.is_empty() && is_map) {
                found(format!("{member} is {state}, and failed:{id} has {failed:?}"));
            }
            *counts.entry(counted).or_default() += 1;
        }
    }
    for name in open.iter().filter(|name| !names.contains(**name)) {
        found(format!("open:{id} has {name}, which is no member"));
    }
    let told: i64 = ["complete", "failed", "skipped", "aborted"].iter().map(|count| number(fields, count)).sum();
    if goes_on && told + open.len() as i64 != names.len() as i64 && !is_aborted {
        found(format!("{id} counts {told} that have ended, and {} of {} are open", open.len(), names.len()));
    }
    if goes_on && !is_map {
        for count in ["complete", "failed", "skipped", "aborted"] {
            let states = counts.get(count).copied().unwrap_or(0);
            if number(fields, count) != states {
                found(format!("{id} counts {} {count}, and {states} are", number(fields, count)));
            }
        }
        if number(fields, "tasks") != names.len() as i64 {
            found(format!("{id} has {} tasks, and {} nodes", number(fields, "tasks"), names.len()));
        }
    }
    if !goes_on && !open.is_empty() {
        found(format!("{id} has ended, and waits for {open:?}"));
    }
    if is_map {
        let items = keys.list(&key(&format!("items:{id}"))).len() as i64;
        if goes_on && !is_aborted && items + names.len() as i64 != number(fields, "size") {
            found(format!("{id} has {} calls, and {items} items are left of {}", names.len(), number(fields, "size")));
        }
        let results = keys.hash(&key(&format!("results:{id}"))).map_or(0, BTreeMap::len) as i64;
        let keeps = !fields.contains_key("keep_results");
        if keeps && goes_on && !is_aborted && results != number(fields, "complete") {
            found(format!("{id} has {results} results of {} that completed", number(fields, "complete")));
        }
    }
    let begun = goes_on && number(fields, "needs") <= 0 && !chores.contains(&id.to_owned());
    let is_building = fields.contains_key("building") || is_building(records, id);
    // A task that is no part of it has the id of its next call.
    let next = format!("{id}~{}", names.len());
    let waits = is_map && records.get(&next).is_some_and(|record| !OVER.contains(&record["state"].as_str()));
    let is_open = fields.get("is_open").is_some_and(|open| open == "1");
    if begun && open.is_empty() && !is_building && !is_undoing && !is_open && !waits {
        found(format!("{id} waits for nothing, and has not ended"));
    }
    if !is_map {
        // Or one that runs again to no effect: all is kept until it has ended.
        let dead = records.iter().filter(|(member, record)| {
            let state = record.get("state").map_or("", String::as_str);
            let (group, name) = member.rsplit_once('~').unwrap_or_default();
            let has = |kind: &str| keys.list(&key(&format!("{kind}:{group}"))).iter().any(|other| other == name);
            member.starts_with(&format!("{id}~"))
                && (state == "failed" || !OVER.contains(&state) && has("failed") && !has("open"))
                && !record.contains_key("kind")
                // In another queue it is one of the chores until it has ended.
                && (state == "away" || !chores.contains(member))
        });
        let dead = dead.count() as i64;
        if number(fields, "dead") != dead {
            found(format!("{id} counts {} dead letters, and has {dead}", number(fields, "dead")));
        }
    }
}

/// Each is blocked until it is its turn; they run one after the other, and nothing else of the workflow does then.
fn check_compensations(
    keys: &Keyspace,
    id: &str,
    names: &[String],
    records: &BTreeMap<String, &BTreeMap<String, String>>,
    chores: &BTreeSet<&String>,
    found: &mut dyn FnMut(String),
) {
    let fields = records[id];
    if fields.contains_key("undoing") == names.is_empty() {
        found(format!("{id} has the compensations {names:?}: {fields:?}"));
    }
    let undoing = fields.get("undoing").is_some_and(|undoing| undoing == "1");
    let (goes_on, due) = (fields["state"] == "blocked", keys.list(&key(&format!("undo:{id}"))));
    let open = keys.list(&key(&format!("open:{id}")));
    if OVER.contains(&fields["state"].as_str()) && !due.is_empty() {
        found(format!("{id} has ended, and {due:?} are due"));
    }
    if undoing && open.iter().any(|name| Some(name) != due.first()) {
        found(format!("{id} is being undone, {due:?} are due, and open are {open:?}"));
    }
    for name in names {
        let member = format!("{id}~{name}");
        let state = records[&member].get("state").map_or("", String::as_str);
        let (is_open, is_over) = (open.contains(name), OVER.contains(&state));
        let has_begun = !is_over && (state != "blocked" || number(records[&member], "needs") <= 0);
        if goes_on && has_begun != is_open && !chores.contains(&member) {
            found(format!("{member} is {state}, and open:{id} has {open:?}"));
        }
        if is_open && !undoing || !goes_on && state == "blocked" {
            found(format!("{member} is {state}, of {fields:?}"));
        }
    }
    let waits = due.first().and_then(|name| records.get(&format!("{id}~{name}"))).map_or("", |record| &record["state"]);
    if goes_on && undoing && open.is_empty() && waits != "failed" && !chores.contains(&id.to_owned()) {
        found(format!("{id} is being undone, and waits for nothing: {due:?}"));
    }
}

fn is_compensation(records: &BTreeMap<String, &BTreeMap<String, String>>, member: &str) -> bool {
    records.get(member).and_then(|record| record.get("after")).is_some_and(|after| after.ends_with("?undo"))
}

/// Whether it is a part of a workflow that is being created.
fn is_building(records: &BTreeMap<String, &BTreeMap<String, String>>, id: &str) -> bool {
    let root = id.split('~').next().unwrap_or_default();
    records.get(root).is_some_and(|fields| fields.contains_key("building"))
}

fn number(fields: &BTreeMap<String, String>, name: &str) -> i64 {
    fields.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn key(name: &str) -> String {
    format!("{BASE}{name}")
}
