//! What a call does where somebody wrote into the queue by hand: each fixture is told again with one of its keys
//! overwritten or deleted, or a field of it written, before its last call.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Value, pipe};

use crate::check;
use crate::fixture::{Fixture, Step};
use crate::keyspace::{Content, Keyspace};
use crate::render::short_name;
use crate::server::Server;
use crate::story::Story;

const MOST_KEYS: usize = 20;
const MOST_FIELDS: usize = 12;
/// Fields that say where a task lies.
const PLACE: [&str; 2] = ["lane", "pause"];

#[derive(Clone, PartialEq, Eq)]
enum Hand {
    Overwrites,
    Deletes,
    /// Into one field of a hash.
    Writes(String),
}

/// What went wrong, in sentences.
pub fn survive(server: &mut Server, fixture: &Fixture) -> Vec<String> {
    // Whatever a fixture changes of the server itself would be in the way.
    let by_hand = fixture.given.iter().any(|step| matches!(step, Step::Repeat(..) | Step::Redis(_)));
    if fixture.damaged || by_hand {
        return Vec::new();
    }
    let mut story = Story::begin(server, fixture);
    let given = Image::take(story.server);
    let mut keys = given.keys.clone();
    let refused = story.when(fixture).is_err();
    keys.0.extend(Keyspace::read(story.server).0);
    if refused || keys.0.len() > MOST_KEYS {
        return Vec::new();
    }
    let mut found = Vec::new();
    for key in one_of_each_kind(&keys) {
        let mut hands = vec![Hand::Overwrites, Hand::Deletes];
        if let Some(Content::Hash(fields)) = given.keys.0.get(&key).map(|entry| &entry.content) {
            hands.extend(fields.keys().take(MOST_FIELDS).cloned().map(Hand::Writes));
        }
        for hand in hands {
            given.put_back(story.server);
            found.extend(survive_one(&mut story, fixture, &key, &hand));
        }
    }
    found
}

fn survive_one(story: &mut Story, fixture: &Fixture, key: &str, hand: &Hand) -> Vec<String> {
    match hand {
        Hand::Overwrites => story.server.command(&["SET", key, "by hand"]),
        Hand::Deletes => story.server.command(&["DEL", key]),
        Hand::Writes(field) => story.server.command(&["HSET", key, field, "by hand"]),
    };
    let before = Keyspace::read(story.server);
    let reply = story.when(fixture);
    let after = Keyspace::read(story.server);

    let mut found = Vec::new();
    let known: BTreeSet<String> = check::problems(&before).into_iter().collect();
    found.extend(check::problems(&after).into_iter().filter(|problem| {
        // An entry too many is dropped by the claim that meets it; who belongs to whom nobody knows without `workers`.
        // A load is told of what was taken away by hand, too, until `repair` counts it anew.
        let harmless = problem.contains("lies in [\"")
            || short_name(key) == "workers" && problem.contains("worker")
            || *hand == Hand::Deletes && short_name(key).starts_with("running:") && problem.contains("has a load");
        // Where a task lies is said by its record: written there, it is misplaced, which `repair` mends.
        let misplaced =
            matches!(hand, Hand::Writes(field) if PLACE.contains(&field.as_str())) && problem.contains("lies in");
        !harmless
            && !misplaced
            && !is_miscounted(key, problem)
            && !is_forgotten(key, hand, problem)
            && !is_of_a_group(key, hand, problem)
            && !known.contains(problem)
    }));
    if let Err(refusal) = reply {
        let allowed = match hand {
            // As if the server had lost the worker's last steps: it joins anew.
            Hand::Writes(field) if field == "seq" => "ARDIQ_LEASE_LOST",
            Hand::Overwrites | Hand::Writes(_) => "ARDIQ_WRONG_TYPE",
            Hand::Deletes => "ARDIQ_LEASE_LOST",
        };
        // A limit that is gone is none, whatever else was put over it.
        let allowed = match (short_name(key).as_str(), refusal.code.as_str()) {
            ("limits" | "overrides", code @ ("ARDIQ_NO_LIMIT" | "ARDIQ_BAD_ARGUMENT")) => code,
            // What is left of a workflow without its record is in the way of another one.
            (_, code @ "ARDIQ_BAD_ARGUMENT")
                if *hand == Hand::Deletes && refusal.text.contains(" earlier workflow") =>
            {
                code
            }
            _ => allowed,
        };
        if refusal.code != allowed || refusal.text.starts_with("a key ") {
            found.push(format!("refused with {refusal}"));
        }
        let changed = after.changed_since(&before);
        if !changed.is_empty() {
            found.push(format!("refused with {refusal}, but it changed {changed:?}"));
        }
    }
    let done = match hand {
        Hand::Overwrites => "overwritten".to_owned(),
        Hand::Deletes => "deleted".to_owned(),
        Hand::Writes(field) => format!("with another {field}"),
    };
    found.into_iter().map(|problem| format!("{} {done}: {problem}", short_name(key))).collect()
}

/// A queue as it was, to be put back instead of telling how it came about again.
struct Image {
    keys: Keyspace,
    dumps: Vec<(String, Value)>,
}

impl Image {
    fn take(server: &mut Server) -> Self {
        let keys = Keyspace::read(server);
        let mut dump = pipe();
        for name in keys.0.keys() {
            dump.cmd("DUMP").arg(name);
        }
        let dumps = keys.0.keys().cloned().zip(server.pipeline(&dump)).collect();
        Self { keys, dumps }
    }

    fn put_back(&self, server: &mut Server) {
        server.command(&["FLUSHALL"]);
        let mut restore = pipe();
        for (name, dump) in &self.dumps {
            let Value::BulkString(dump) = dump else { continue };
            let expires_at = self.keys.0[name].expires_at.unwrap_or(0);
            restore.cmd("RESTORE").arg(name).arg(expires_at).arg(dump).arg("ABSTTL");
        }
        server.pipeline(&restore);
    }
}

fn one_of_each_kind(keys: &Keyspace) -> Vec<String> {
    let mut kinds = BTreeMap::new();
    for key in keys.0.keys() {
        let kind = short_name(key).split(':').next().unwrap_or_default().to_owned();
        kinds.entry(kind).or_insert_with(|| key.clone());
    }
    kinds.into_values().collect()
}

/// What of a workflow was there, and what of it has ended, is kept in keys of its own and counted in its record: what somebody
/// deleted of that, or wrote into it, is missing until the workflow has been aborted.
fn is_of_a_group(key: &str, hand: &Hand, problem: &str) -> bool {
    let about = |words: &[&str]| words.iter().any(|word| problem.contains(word));
    match (short_name(key).split(':').next().unwrap_or_default(), hand) {
        ("open" | "nodes" | "items" | "results" | "failed", _) => about(&[
            "open:",
            "failed:",
            " nodes",
            " items are left",
            " results of ",
            " counts ",
            " has not ended",
            " needs 0",
            " has a TTL",
            "no record",
            " has the compensations ",
            " is being undone",
        ]),
        // Its home asks again.
        ("outbox", _) => about(&["is not to be told"]),
        // What follows waits until it is mended.
        ("workflows" | "deadlines" | "chores" | "undo", _) => {
            about(&[" is in open:", " and open:", " counts ", " undone"])
        }
        ("task", Hand::Writes(_)) => {
            let of_compensations = about(&[" has the compensations ", " undone", ", of {"]);
            of_compensations
                || about(&[
                    " counts ",
                    " tasks, and ",
                    "workflows has ",
                    " items are left",
                    " waits for ",
                    " has a TTL",
                ])
        }
        _ => false,
    }
}

/// What a task keeps goes with its end if that looks for waiters, and finds `steps:` among them; else with `repair`.
fn is_forgotten(key: &str, hand: &Hand, problem: &str) -> bool {
    let is_kept = problem.starts_with("steps:") || problem.starts_with("signals:");
    let by_state = matches!(hand, Hand::Writes(field) if field == "state");
    is_kept && (by_state || short_name(key) == "meta" || short_name(key).starts_with("waiters:"))
}

/// What runs, and what waits in lines, is counted: a count or what it counts was changed by hand, until `repair` or a heartbeat
/// counts anew. A line that was deleted while it waited for its turn gets another one, until that comes.
fn is_miscounted(key: &str, problem: &str) -> bool {
    let name = short_name(key);
    let kind = name.split(':').next().unwrap_or_default();
    match kind {
        "busy" | "running" | "workers" | "task" => problem.starts_with("busy says"),
        "limited" => problem.starts_with("limited says"),
        "line" => problem.starts_with("limited says") || problem.starts_with("line "),
        "blocked" | "blocked_lanes" => problem.starts_with("blocked_lanes has"),
        _ => false,
    }
}
