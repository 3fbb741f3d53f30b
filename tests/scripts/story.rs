//! One fixture from its beginning to its end: the calls, what they changed, and what must hold afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use redis::Value;
use serde_json::Value as Json;

use _core::lua::protocol::TEXT;

use crate::check;
use crate::fixture::{Call, Fixture, Request, Step, Values, plain};
use crate::keyspace::{self, Content, Keyspace};
use crate::render;
use crate::server::{Refusal, Server, items, text};
use crate::times::Times;

/// Larger queues are checked at the end only.
const SMALL: usize = 300;

/// So many starts ahead a rate is used up.
const INTERVALS: i64 = 4;

pub struct Told {
    pub snapshot: String,
    pub problems: Vec<String>,
    /// From and to of each task that the call moved; `none` where there is no task.
    pub arrows: BTreeSet<(String, String)>,
    /// The code it was refused with.
    pub error: Option<String>,
    /// Those of single records of the call.
    pub refused: Vec<String>,
    pub outcome: Outcome,
}

/// What everybody may rely on, whichever version of the library wrote the data.
#[derive(PartialEq, Eq)]
pub struct Outcome {
    pub reply: String,
    /// Of each task.
    pub states: BTreeMap<String, String>,
}

pub struct Story<'a> {
    pub server: &'a mut Server,
    tokens: HashMap<String, Vec<String>>,
    due_ms: i64,
    times: Times,
    /// Of the rates that were declared so far: a start is counted up to some of them ahead.
    intervals: Vec<i64>,
    problems: Vec<String>,
    /// Nobody asks which call wrote which time.
    hurried: bool,
}

pub fn tell(server: &mut Server, fixture: &Fixture) -> Told {
    clearly(server, |story| story.tell(fixture))
}

/// Only what came of it, and what is wrong by then.
///
/// # Errors
/// Says which of the calls before the last one was refused.
pub fn outline(server: &mut Server, fixture: &Fixture) -> Result<(Outcome, Vec<String>), String> {
    clearly(server, |story| story.outline(fixture))
}

fn clearly<T>(server: &mut Server, tell: impl Fn(&mut Story) -> T) -> T {
    let mut attempts = 0;
    loop {
        let minute = server.now_us() / 60_000_000;
        let mut story = Story::new(server, false);
        let told = tell(&mut story);
        attempts += 1;
        // What the clock made unclear is told again; statistics are kept by the minute.
        let clear = !story.times.clash && server.now_us() / 60_000_000 == minute;
        if clear || attempts == 5 {
            return told;
        }
    }
}

impl<'a> Story<'a> {
    fn new(server: &'a mut Server, hurried: bool) -> Self {
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        server.command(&["FLUSHALL"]);
        let (tokens, times, intervals, problems) = Default::default();
        Self { server, tokens, due_ms: 0, times, intervals, problems, hurried }
    }

    /// What is given, and no more.
    pub fn begin(server: &'a mut Server, fixture: &Fixture) -> Self {
        let mut story = Self::new(server, true);
        for (index, step) in fixture.given.iter().enumerate() {
            story.step(&format!("given {}", index + 1), step).unwrap_or_else(|refusal| panic!("{refusal}"));
        }
        story
    }

    /// The call itself; it may be made again from the same state.
    pub fn when(&mut self, fixture: &Fixture) -> Result<Value, Refusal> {
        let tokens = self.tokens.clone();
        let request = self.request("when", &fixture.when);
        let reply = self.call("now", &fixture.when, &request);
        self.tokens = tokens;
        reply
    }

    fn outline(&mut self, fixture: &Fixture) -> Result<(Outcome, Vec<String>), String> {
        for (index, step) in fixture.given.iter().enumerate() {
            self.step(&format!("given {}", index + 1), step)?;
        }
        self.pause();
        let request = self.request("when", &fixture.when);
        let reply = self.call("now", &fixture.when, &request);
        let keys = Keyspace::read(self.server);
        if !fixture.damaged {
            self.check("when", &keys);
            self.problems.extend(check::fsck(self.server, &keys).iter().map(|finding| format!("fsck: {finding}")));
        }
        Ok((self.outcome(fixture, &reply, &keys), std::mem::take(&mut self.problems)))
    }

    fn outcome(&self, fixture: &Fixture, reply: &Result<Value, Refusal>, after: &Keyspace) -> Outcome {
        // An occurrence's id has its time in it.
        let states = check::states(after).into_iter().map(|(id, state)| (self.times.normalise(&id), state)).collect();
        Outcome { reply: render::reply(fixture, reply, &self.times), states }
    }

    fn tell(&mut self, fixture: &Fixture) -> Told {
        for (index, step) in fixture.given.iter().enumerate() {
            let name = format!("given {}", index + 1);
            self.step(&name, step).unwrap_or_else(|refusal| panic!("{refusal}"));
            // By hand something may come about in several commands.
            let by_hand = matches!(step, Step::Redis(_));
            if !fixture.damaged && !by_hand && self.server.size() < SMALL {
                let keys = Keyspace::read(self.server);
                self.check(&name, &keys);
            }
        }

        self.pause();
        let before = Keyspace::read(self.server);
        let request = self.request("when", &fixture.when);
        let reply = self.call("now", &fixture.when, &request);
        let after = Keyspace::read(self.server);
        let mut snapshot = format!("why: {}\ncall: {}\n", fixture.why, self.times.normalise(&request.shown));
        let outcome = self.outcome(fixture, &reply, &after);
        let _ = writeln!(snapshot, "{}", outcome.reply);
        let _ = writeln!(snapshot, "{}", render::changes(&before, &after, &self.times));

        let error = reply.as_ref().err().map(|refusal| {
            if refusal.code == "ARDIQ_WRONG_TYPE" && !refusal.text.starts_with("key ") {
                self.problems.push(format!("{refusal}: which key?"));
            }
            if !after.changed_since(&before).is_empty() {
                self.problems.push(format!("{refusal}, but it changed {:?}", after.changed_since(&before)));
            }
            match refusal.code.strip_prefix("ARDIQ_") {
                Some(code) => code.to_owned(),
                None => {
                    if refusal.code != "OOM" {
                        self.problems.push(format!("{refusal}: no refusal of the library's"));
                    }
                    String::new()
                }
            }
        });
        let findings = check::fsck(self.server, &after);
        if fixture.damaged {
            let _ = writeln!(snapshot, "fsck: {}", if findings.is_empty() { "-".into() } else { findings.join(", ") });
        } else {
            self.check("when", &after);
            self.problems.extend(findings.iter().map(|finding| format!("fsck: {finding}")));
            self.problems.extend(check::miscounted(self.server, &after));
            if error.is_none() {
                self.problems.extend(check::unheard(&before, &after));
                self.problems.extend(check::unnoted(&after));
            }
        }
        let _ = writeln!(snapshot, "{}", self.repeat(fixture, &request, &reply, &after));
        Told {
            snapshot: snapshot.trim_end().to_owned(),
            problems: std::mem::take(&mut self.problems),
            arrows: arrows(&before, &after, fixture),
            error,
            refused: reply.iter().flat_map(items).filter_map(refused).collect(),
            outcome,
        }
    }

    /// The very same call once more: refused or harmless, as the protocol says.
    fn repeat(
        &mut self,
        fixture: &Fixture,
        request: &Request,
        first: &Result<Value, Refusal>,
        before: &Keyspace,
    ) -> String {
        self.pause();
        let reply = self.call("repeated", &fixture.when, request);
        let after = Keyspace::read(self.server);
        let changed: Vec<String> =
            after.changed_since(before).into_iter().map(|name| render::short_name(name)).collect();
        let shown = render::reply(fixture, &reply, &self.times);
        if !fixture.damaged {
            self.check("repeated", &after);
        }
        if let Err(problem) = self.is_harmless(fixture, first, &reply, before, &after) {
            self.problems.push(format!("repeated: {problem}"));
        }
        let changed = match changed.len() {
            0 => "unchanged".to_owned(),
            1..=12 => changed.join(", "),
            many => format!("{many} changed"),
        };
        let reason = fixture.repeat.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("repeated{reason}: {}\n  keys: {changed}", shown.trim_start_matches("reply: "))
    }

    fn is_harmless(
        &self,
        fixture: &Fixture,
        first: &Result<Value, Refusal>,
        reply: &Result<Value, Refusal>,
        before: &Keyspace,
        after: &Keyspace,
    ) -> Result<(), String> {
        let protocol: Json = serde_json::from_str(TEXT).unwrap();
        let declared = protocol["functions"][&fixture.when.function.name]["repeat"].as_str().unwrap();
        if let Err(first) = first {
            let changed = after.changed_since(before);
            return match reply {
                Err(again) if again == first && changed.is_empty() => Ok(()),
                _ => Err(format!("refused with {first}, then answered otherwise; changed {changed:?}")),
            };
        }
        let Ok(reply) = reply else {
            return Err(format!("{reply:?}"));
        };
        if fixture.repeat.is_some() {
            return Ok(());
        }
        if let Some(literal) = declared.strip_prefix('`').and_then(|text| text.split('`').next()) {
            let answers: Vec<String> = items(reply).iter().map(text).collect();
            let fits = |answer: &String| answer == literal || answer.starts_with("ARDIQ_");
            if !answers.iter().all(fits) {
                return Err(format!("declared {literal:?}, answered {answers:?}"));
            }
        }
        if !declared.contains("further") && !declared.contains("more") && tasks(before) != tasks(after) {
            return Err(format!("it moved tasks: {:?}", after.changed_since(before)));
        }
        Ok(())
    }

    /// # Errors
    /// Says what a call was refused with.
    fn step(&mut self, name: &str, step: &Step) -> Result<(), String> {
        self.pause();
        match step {
            Step::Wait(ms) => {
                keyspace::age(self.server, *ms);
                self.times.pass(*ms);
                self.due_ms -= ms;
            }
            Step::Redis(words) => {
                let values = self.values(1);
                let durations: Vec<i64> =
                    words.iter().filter_map(|word| word.as_str()?.strip_prefix("$now")?.parse().ok()).collect();
                if !durations.is_empty() {
                    self.times.add(name.to_owned(), values.now_ms, values.now_ms, &durations);
                }
                let words: Vec<String> = words.iter().map(|word| plain(&values.fill(word).unwrap())).collect();
                self.server.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
            }
            Step::Call(call) => {
                let request = self.request(name, call);
                if let Err(refusal) = self.call(name, call, &request) {
                    return Err(format!("{name} ({}) was refused: {refusal}", request.shown));
                }
            }
            Step::Repeat(times, call) => {
                let from = self.server.now_us();
                let mut durations = Vec::new();
                let calls: Vec<_> = (1..=*times)
                    .map(|index| {
                        let request =
                            call.resolve(&self.values(index)).unwrap_or_else(|error| panic!("{name}: {error}"));
                        durations = request.durations;
                        request.args
                    })
                    .collect();
                if call.is_foreign() {
                    for args in &calls {
                        let reply = self.server.call_by_hand(call.function, &[crate::server::BASE], args);
                        reply.map_err(|refusal| format!("{name} was refused: {refusal}"))?;
                    }
                } else {
                    self.server.call_all(&call.function.name, &calls);
                }
                let to = self.server.now_us();
                self.times.add(name.to_owned(), from / 1000, to / 1000, &durations);
            }
        }
        Ok(())
    }

    fn request(&mut self, name: &str, call: &Call) -> Request {
        call.resolve(&self.values(1)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn call(&mut self, name: &str, call: &Call, request: &Request) -> Result<Value, Refusal> {
        let (from, to, reply) = if call.by_hand() {
            let keys: Vec<&str> = match &call.keys {
                Some(keys) => keys.iter().map(String::as_str).collect(),
                None => vec![crate::server::BASE],
            };
            let from = self.server.now_us() / 1000;
            let reply = self.server.call_by_hand(call.function, &keys, &request.args);
            (from, self.server.now_us() / 1000, reply)
        } else {
            self.server.call_timed(&call.function.name, &request.args)
        };
        self.intervals.extend(&request.intervals);
        let ahead = self.intervals.iter().flat_map(|ms| (1..=INTERVALS).map(move |count| count * ms));
        let durations: Vec<i64> = request.durations.iter().copied().chain(ahead).collect();
        self.times.add(name.to_owned(), request.since.unwrap_or(from), to, &durations);
        match &reply {
            Ok(_) if call.function.name == "enqueue" => self.remember_hand_offs(),
            Ok(reply) => self.remember(&call.function.name, reply),
            Err(_) => {}
        }
        reply
    }

    /// What an enqueue claimed for workers that had nothing to do.
    fn remember_hand_offs(&mut self) {
        if self.server.size() >= SMALL {
            return;
        }
        for (name, key) in Keyspace::read(self.server).0 {
            let Content::Hash(claims) = key.content else { continue };
            if !name.contains(":running:") {
                continue;
            }
            for (id, token) in claims {
                let token = token.split(['/', ' ']).next().unwrap_or_default().to_owned();
                let tokens = self.tokens.entry(id).or_default();
                if !tokens.contains(&token) {
                    tokens.push(token);
                }
            }
        }
    }

    /// Claims of a reply: each begins with id and token, as the protocol says. And when a schedule falls due.
    fn remember(&mut self, function: &str, reply: &Value) {
        if function == "schedule_put" {
            self.due_ms = text(reply).parse().unwrap_or(0);
        }
        let reply: Vec<String> = items(reply).iter().map(text).collect();
        let claims = match function {
            "claim" => 1,
            "step" => 3 + 3 * reply[2].parse::<usize>().unwrap_or(0),
            _ => return,
        };
        for claim in reply[claims..].chunks(10) {
            let tokens = self.tokens.entry(claim[0].clone()).or_default();
            // With a `+` in front where it belongs to the batch of the claim before it.
            let token = claim[1].trim_start_matches('+');
            if tokens.last().is_none_or(|last| last != token) {
                tokens.push(token.to_owned());
            }
        }
    }

    fn values(&mut self, index: usize) -> Values {
        let now_ms = self.server.now_us() / 1000;
        Values { tokens: self.tokens.clone(), due_ms: self.due_ms, now_ms, index }
    }

    /// Lets a moment pass, so that the next call's time is no other call's.
    fn pause(&mut self) {
        while !self.hurried && {
            let now_ms = self.server.now_us() / 1000;
            self.times.is_taken(now_ms)
        } {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    fn check(&mut self, when: &str, keys: &Keyspace) {
        self.problems.extend(check::problems(keys).into_iter().map(|problem| format!("{when}: {problem}")));
    }
}

/// Every task's record, and the letters written: what a repeated call must leave alone.
fn tasks(keys: &Keyspace) -> Vec<(&String, &crate::keyspace::Content)> {
    let mine = |name: &str| name.contains("}:task:") || name.contains("}:running:") || name.contains("}:ready:");
    keys.0.iter().filter(|(name, _)| mine(name)).map(|(name, key)| (name, &key.content)).collect()
}

fn arrows(before: &Keyspace, after: &Keyspace, fixture: &Fixture) -> BTreeSet<(String, String)> {
    let (old, new) = (check::states(before), check::states(after));
    let changed: BTreeSet<&String> = after.changed_since(before).into_iter().collect();
    let mut arrows = BTreeSet::new();
    for id in old.keys().chain(new.keys()) {
        let key = format!("{}task:{id}", crate::server::BASE);
        let wants_none = before.hash(&key).is_some_and(|task| task.get("result_ttl_ms").is_some_and(|ttl| ttl == "0"));
        let dropped = !new.contains_key(id) && (wants_none || fixture.when.keeps_nothing());
        // What is damaged is in no place to move from, except to be repaired.
        let damaged = fixture.damaged && fixture.when.function.name != "repair";
        if !changed.contains(&key) || damaged || dropped {
            continue;
        }
        let state = |states: &std::collections::BTreeMap<String, String>| {
            states.get(id).cloned().unwrap_or_else(|| "none".to_owned())
        };
        let (from, to) = (state(&old), state(&new));
        // What follows of a workflow's other tasks: counts of what they wait for, how long they are kept, and the calls of a map,
        // which leave no record.
        let is_call = id.rsplit_once('~').is_some_and(|(_, index)| index.parse::<u32>().is_ok());
        let is_part =
            is_call || before.hash(&key).is_some_and(|task| task.contains_key("needs") || task.contains_key("kind"));
        let is_noted = from == to && !matches!(from.as_str(), "queued" | "limited" | "scheduled" | "held" | "running");
        let is_made = is_call && from == "none" && fixture.when.function.name != "workflow_add";
        if is_noted || is_part && (from == to || to == "none") || is_made {
            continue;
        }
        arrows.insert((from, to));
    }
    arrows
}

/// The error that one record of a call was answered with.
fn refused(answer: &Value) -> Option<String> {
    text(answer).strip_prefix("ARDIQ_")?.split(' ').next().map(str::to_owned)
}
