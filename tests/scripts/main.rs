//! Every function of the library against a real server. A fixture tells one story; its snapshot shows what
//! the call answered and changed; what must hold after any call is asserted here for each of them.

mod across;
mod check;
mod damage;
mod fixture;
mod groups;
mod keyspace;
mod lines;
mod misfits;
mod render;
mod server;
mod story;
mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use _core::lua::protocol::TEXT;
use serde_json::{Value as Json, json};

use crate::across::Before;
use crate::fixture::{Fixture, folder, names};
use crate::server::{Server, items, text};
use crate::story::Told;

/// So many fixtures run side by side.
const SERVERS: usize = 4;

/// All fixtures, told once for all tests here.
fn told() -> &'static BTreeMap<String, Told> {
    static TOLD: OnceLock<BTreeMap<String, Told>> = OnceLock::new();
    TOLD.get_or_init(|| for_each_fixture(story::tell))
}

fn for_each_fixture<T: Send>(tell: impl Fn(&mut Server, &Fixture) -> T + Sync) -> BTreeMap<String, T> {
    let names = names("json");
    let next = AtomicUsize::new(0);
    let work = || {
        let mut server = Server::start();
        let mut told = Vec::new();
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let fixture = Fixture::load(name).unwrap_or_else(|error| panic!("fixtures/{name}.json: {error}"));
            told.push((name.clone(), tell(&mut server, &fixture)));
        }
        told
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SERVERS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of fixtures")).collect()
    })
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// And no snapshot is left of a fixture that is gone.
#[test]
fn each_fixture_matches_its_snapshot() {
    let failed: Vec<String> = told()
        .iter()
        .filter(|(name, told)| {
            let (function, case) = name.split_once('/').unwrap();
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path(folder().join(function));
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            let compare = || settings.bind(|| insta::assert_snapshot!(case, &told.snapshot));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(compare)).is_err()
        })
        .map(|(name, _)| name.clone())
        .collect();
    assert_none("fixtures that do not match their snapshots (INSTA_UPDATE=always rewrites them)", &failed);
    assert_eq!(names("json"), names("snap"));
}

#[test]
fn each_fixture_keeps_the_invariants() {
    let problems: Vec<String> = told()
        .iter()
        .flat_map(|(name, told)| told.problems.iter().map(move |problem| format!("{name}: {problem}")))
        .collect();
    assert_none("after a call", &problems);
}

/// Both ways: what is declared happens in some fixture, and what happens is declared.
#[test]
fn the_fixtures_take_every_arrow_and_meet_every_error() {
    let protocol: Json = serde_json::from_str(TEXT).unwrap();
    let mut wrong = Vec::new();
    for (function, entry) in protocol["functions"].as_object().unwrap() {
        let mine =
            || told().iter().filter(move |(name, _)| name.split('/').next() == Some(function)).map(|(_, told)| told);
        let mut compare = |what: &str, seen: BTreeSet<String>| {
            let declared: BTreeSet<String> =
                entry[what].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            for name in declared.symmetric_difference(&seen) {
                let how = if declared.contains(name) { "declared, but in no fixture" } else { "not declared" };
                wrong.push(format!("{function}: {what} {name} is {how}"));
            }
        };
        compare("from", mine().flat_map(|told| &told.arrows).map(|(from, _)| from.clone()).collect());
        compare("to", mine().flat_map(|told| &told.arrows).map(|(_, to)| to.clone()).collect());
        let refused = mine().flat_map(|told| told.refused.clone());
        compare(
            "errors",
            mine().filter_map(|told| told.error.clone()).filter(|code| !code.is_empty()).chain(refused).collect(),
        );
    }
    assert_none("protocol.json and the fixtures", &wrong);
}

#[test]
fn a_key_that_somebody_overwrote_or_deleted_harms_nothing_else() {
    let found: Vec<String> = for_each_fixture(damage::survive)
        .iter()
        .flat_map(|(name, found)| found.iter().map(move |problem| format!("{name}: {problem}")))
        .collect();
    assert_none("with a key", &found);
}

/// While a fleet is of two versions, each finds what the other wrote.
#[test]
fn what_the_version_before_wrote_is_understood_and_the_reverse() {
    let found: Vec<String> = for_each_fixture(|server, fixture| {
        // Scripts and the emulation are of this version, whoever calls them.
        if !Before::get().is_spoken_by(server) {
            return Vec::new();
        }
        across::misunderstood(server, fixture, &told()[&fixture.name].outcome)
    })
    .iter()
    .flat_map(|(name, found)| found.iter().map(move |problem| format!("{name}: {problem}")))
    .collect();
    assert_none("data of two versions", &found);
}

#[test]
fn a_call_that_does_not_fit_its_declaration_is_refused() {
    assert_none("answered", &misfits::accepted(&mut Server::start()));
}

/// What a step costs is its number of commands: two to settle a task, two to claim one, a few for the call.
#[test]
fn a_step_costs_four_commands_a_task() {
    let mut server = Server::start();
    let mut commands = |tasks: usize| {
        server.command(&["FLUSHALL"]);
        server.run("enqueue", json!({"tasks": [{"id": "t$i", "times": 2 * tasks}]}));
        server.run("join", json!({"worker": "w:1"}));
        let claimed = server.run("step", json!({"worker": "w:1", "seq": 1, "want": tasks}));
        let outcomes: Vec<Json> = items(&claimed)[3..]
            .chunks(10)
            .map(|claim| json!({"id": text(&claim[0]), "token": text(&claim[1]), "outcome": "complete"}))
            .collect();
        server.command(&["CONFIG", "RESETSTAT"]);
        server.run("step", json!({"worker": "w:1", "seq": 2, "want": tasks, "outcomes": outcomes}));
        server.commands()
    };
    let (one, many) = (commands(1), commands(101));
    assert_eq!((many - one) / 100, 4, "{one} commands for one task, {many} for 101");
    assert!(one <= 30, "{one} commands for a step of one task");
}
