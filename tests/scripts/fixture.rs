//! A fixture: `why` (a sentence), `given` (calls that reach the state), `when` (one call). README.md in
//! `fixtures/` says how one is written; this reads it and turns named arguments into positions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use _core::lua::protocol::{Argument, Function, Protocol};
use serde_json::{Map, Value as Json, json};

use crate::server::BASE;

#[derive(Clone)]
pub struct Fixture {
    /// `<function>/<case>`
    pub name: String,
    pub why: String,
    pub given: Vec<Step>,
    pub when: Call,
    /// Something other than Ardiq wrote into this queue: tasks may be out of place.
    pub damaged: bool,
    /// The records of the reply come in whatever order.
    pub unordered: bool,
    /// The repeated call is allowed to do more than the first one did: why.
    pub repeat: Option<String>,
    /// The version of the library that brought what it tells of; earlier ones answer otherwise.
    pub since: u32,
}

#[derive(Clone)]
pub enum Step {
    Call(Call),
    /// The same call many times, `$i` being 1, 2, 3 …
    Repeat(usize, Call),
    /// Milliseconds that pass, though nobody waits for them.
    Wait(i64),
    /// A command of the server's own.
    Redis(Vec<Json>),
}

#[derive(Clone)]
pub struct Call {
    pub function: &'static Function,
    arguments: Arguments,
    /// In place of the queue's base.
    pub keys: Option<Vec<String>>,
}

#[derive(Clone)]
enum Arguments {
    Named(Map<String, Json>),
    /// As they are, however few or many.
    ByHand(Vec<Json>),
}

/// What placeholders stand for.
#[derive(Clone)]
pub struct Values {
    /// id → its lease tokens, oldest first.
    pub tokens: HashMap<String, Vec<String>>,
    /// When the schedule that was put last falls due.
    pub due_ms: i64,
    pub now_ms: i64,
    pub index: usize,
}

/// A call ready to send.
pub struct Request {
    pub args: Vec<Vec<u8>>,
    /// What the fixture named, for people.
    pub shown: String,
    /// Every duration in it: a time that the call writes is its own time and one of these.
    pub durations: Vec<i64>,
    /// The time between two starts, of each rate that it declares: later calls count with it.
    pub intervals: Vec<i64>,
    /// What `$now` was, where it counts.
    pub since: Option<i64>,
    now_ms: i64,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// `<function>/<case>` of every file below `fixtures/` that ends so.
pub fn names(extension: &str) -> Vec<String> {
    let mut names = Vec::new();
    for function in std::fs::read_dir(folder()).expect("fixtures/").flatten() {
        for file in std::fs::read_dir(function.path()).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_some_and(|found| found == extension) {
                let case = path.file_stem().unwrap().to_string_lossy().into_owned();
                names.push(format!("{}/{case}", function.file_name().to_string_lossy()));
            }
        }
    }
    // A part of them, while one works on these.
    if let Ok(part) = std::env::var("ARDIQ_FIXTURES") {
        names.retain(|name| name.contains(&part));
    }
    names.sort();
    names
}

impl Fixture {
    pub fn load(name: &str) -> Result<Self, String> {
        let path = folder().join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let Json::Object(mut root) = serde_json::from_str(&text).map_err(|error| error.to_string())? else {
            return Err("not an object".to_owned());
        };
        let mut take = |field: &str| root.remove(field);
        let why = take("why").and_then(|why| why.as_str().map(str::to_owned)).ok_or("why: a sentence")?;
        let given = match take("given") {
            None => Vec::new(),
            Some(Json::Array(steps)) => steps.into_iter().map(Step::parse).collect::<Result<_, _>>()?,
            Some(_) => return Err("given: a list of calls".to_owned()),
        };
        let when = Call::parse(take("when").ok_or("when: a call")?)?;
        let damaged = take("damaged").is_some_and(|flag| flag == true);
        let unordered = take("unordered").is_some_and(|flag| flag == true);
        let repeat = take("repeat").and_then(|text| text.as_str().map(str::to_owned));
        let since = take("since").map_or(Some(0), |version| version.as_u64()?.try_into().ok());
        let since = since.ok_or("since: the number of a version")?;
        if let Some(field) = root.keys().next() {
            return Err(format!("unknown field {field:?}"));
        }
        if name.split('/').next() != Some(when.function.name.as_str()) {
            return Err(format!("`when` calls {}: the file belongs into its folder", when.function.name));
        }
        Ok(Self { name: name.to_owned(), why, given, when, damaged, unordered, repeat, since })
    }

    /// The same story, with what is given and the last call told to other versions of the library.
    ///
    /// # Errors
    /// Names what a version does not have.
    pub fn told_to(&self, given: &'static Protocol, when: &'static Protocol) -> Result<Self, String> {
        let given = self.given.iter().map(|step| {
            Ok(match step {
                Step::Call(call) => Step::Call(call.to(given)?),
                Step::Repeat(times, call) => Step::Repeat(*times, call.to(given)?),
                other => other.clone(),
            })
        });
        Ok(Self { given: given.collect::<Result<_, String>>()?, when: self.when.to(when)?, ..self.clone() })
    }
}

impl Step {
    fn parse(json: Json) -> Result<Self, String> {
        match json[0].as_str() {
            // There is a function of that name, too.
            Some("wait") if json[1].is_number() => Ok(Self::Wait(json[1].as_i64().ok_or("wait: milliseconds")?)),
            Some("redis") => Ok(Self::Redis(json[1].as_array().cloned().ok_or("redis: a list of words")?)),
            Some("repeat") => {
                let times = json[1].as_u64().ok_or("repeat: how often")?;
                Ok(Self::Repeat(times as usize, Call::parse(json[2].clone())?))
            }
            _ => Call::parse(json).map(Self::Call),
        }
    }
}

impl Call {
    pub fn parse(json: Json) -> Result<Self, String> {
        let name = json[0].as_str().ok_or_else(|| format!("not a call: {json}"))?;
        let function = Protocol::get().function(name).map_err(|error| error.to_string())?;
        let arguments = match &json[1] {
            Json::Object(named) => Arguments::Named(named.clone()),
            Json::Array(values) => Arguments::ByHand(values.clone()),
            other => {
                return Err(format!("{name}: neither named arguments nor a list: {other}"));
            }
        };
        let keys = json[2]["keys"].as_array().map(|keys| keys.iter().map(plain).collect());
        Ok(Self { function, arguments, keys })
    }

    fn to(&self, protocol: &'static Protocol) -> Result<Self, String> {
        let function = protocol.function(&self.function.name).map_err(|error| error.to_string())?;
        Ok(Self { function, ..self.clone() })
    }

    /// Whether it is for another version of the library than this build's.
    pub fn is_foreign(&self) -> bool {
        !Protocol::get().functions().any(|function| std::ptr::eq(function, self.function))
    }

    /// Whether it asks for what it finishes not to be kept.
    pub fn keeps_nothing(&self) -> bool {
        matches!(&self.arguments, Arguments::Named(named) if named.get("result_ttl_ms") == Some(&json!(0)))
    }

    /// Whether the crate's own check of the call is to be passed by.
    pub fn by_hand(&self) -> bool {
        self.keys.is_some() || matches!(self.arguments, Arguments::ByHand(_)) || self.is_foreign()
    }

    /// # Errors
    /// Names the argument that the protocol does not have, or that is missing.
    pub fn resolve(&self, values: &Values) -> Result<Request, String> {
        let mut request = Request {
            args: Vec::new(),
            shown: self.function.name.clone(),
            durations: Vec::new(),
            intervals: Vec::new(),
            since: None,
            now_ms: values.now_ms,
        };
        match &self.arguments {
            Arguments::ByHand(list) => {
                for value in list {
                    request.push("", &values.fill(value)?);
                    request.shown += &format!(" {value}");
                }
                if let Some(keys) = &self.keys {
                    request.shown += &format!(" keys={keys:?}");
                }
            }
            Arguments::Named(named) => {
                let mut named = named.clone();
                for argument in &self.function.args {
                    request.named(argument, &mut named, values, " ")?;
                }
                if let Some(tail) = &self.function.tail {
                    let records = named.remove(&tail.name).unwrap_or_else(|| json!([]));
                    for record in records.as_array().ok_or("the tail is a list of records")? {
                        request.records(&tail.fields, record, values)?;
                    }
                }
                if let Some(name) = named.keys().next() {
                    return Err(format!("{} has no argument {name:?}", self.function.name));
                }
            }
        }
        Ok(request)
    }
}

impl Request {
    fn push(&mut self, name: &str, value: &Json) {
        self.measure(name, value);
        self.args.push(plain(value).into_bytes());
    }

    /// Durations, and times as the distance from now: what is named so.
    fn measure(&mut self, name: &str, value: &Json) {
        match value {
            // For how long: until now.
            Json::Number(number) if matches!(name, "run_ms" | "stalled_ms") => {
                self.durations.extend(number.as_i64().map(|past_ms| -past_ms));
            }
            Json::Number(number) if name.ends_with("_ms") => {
                self.durations.extend(number.as_f64().map(|duration| duration as i64));
            }
            Json::Number(number) if name.ends_with("_at") => {
                self.since = Some(self.now_ms);
                self.durations.extend(number.as_i64().map(|time| time - self.now_ms));
            }
            Json::Object(fields) => {
                if let (Some(rate), Some(per_ms)) = (number_of(fields, "rate"), number_of(fields, "per_ms")) {
                    self.intervals.push((per_ms / rate) as i64);
                }
                self.intervals.extend(number_of(fields, "batch_wait_ms").map(|wait_ms| wait_ms as i64));
                fields.iter().for_each(|(name, value)| self.measure(name, value));
            }
            _ => {}
        }
    }

    /// One argument by its name, or what it is when nobody says.
    fn named(
        &mut self,
        argument: &Argument,
        named: &mut Map<String, Json>,
        values: &Values,
        space: &str,
    ) -> Result<(), String> {
        match named.remove(&argument.name) {
            Some(value) => {
                let value = values.fill(&value)?;
                self.shown += &format!("{space}{}={}", argument.name, shortened(&plain(&value)));
                self.push(&argument.name, &value);
            }
            None => self.push(&argument.name, &default(&argument.name)?),
        }
        Ok(())
    }

    /// A record of the tail; with `times`, as many of them.
    fn records(&mut self, fields: &[Argument], record: &Json, values: &Values) -> Result<(), String> {
        let mut record = record.as_object().ok_or("a record is an object")?.clone();
        let times = record.remove("times").and_then(|times| times.as_u64());
        let shown = self.shown.len();
        for index in 1..=times.unwrap_or(1) as usize {
            let index = if times.is_some() { index } else { values.index };
            let values = Values { index, ..values.clone() };
            let mut record = record.clone();
            self.shown += "\n ";
            for field in fields {
                self.named(field, &mut record, &values, " ")?;
            }
            if let Some(name) = record.keys().next() {
                return Err(format!("a record has no field {name:?}"));
            }
        }
        if let Some(times) = times {
            let first = self.shown[shown..].lines().nth(1).unwrap_or_default().to_owned();
            self.shown.truncate(shown);
            self.shown += &format!("\n{first} … {times} like it");
        }
        Ok(())
    }
}

impl Values {
    /// Placeholders replaced: `$i`, `$now+1000`, `$token:t1` (its newest lease token; `$token:t1@1` its first), `$due`.
    pub fn fill(&self, value: &Json) -> Result<Json, String> {
        Ok(match value {
            Json::String(text) => {
                let text = text.replace("$i", &self.index.to_string());
                if let Some(offset) = text.strip_prefix("$now") {
                    let offset: i64 = if offset.is_empty() { 0 } else { offset.parse().map_err(|_| offset)? };
                    json!(self.now_ms + offset)
                } else if let Some(id) = text.strip_prefix("$token:") {
                    json!(self.token(id)?)
                } else if text == "$due" {
                    // As text: it is no time of this call, but of the one that put the schedule.
                    json!(self.due_ms.to_string())
                } else if let Some(key) = text.strip_prefix("$key:") {
                    json!(format!("{BASE}{key}"))
                } else if let Some(count) = text.strip_prefix("$bytes:") {
                    json!("x".repeat(count.parse().map_err(|_| "$bytes:<how many>")?))
                } else {
                    json!(text)
                }
            }
            Json::Array(items) => Json::Array(items.iter().map(|item| self.fill(item)).collect::<Result<_, _>>()?),
            Json::Object(fields) => Json::Object(
                fields
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), self.fill(value)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => other.clone(),
        })
    }

    fn token(&self, text: &str) -> Result<&str, String> {
        let (id, nth) = match text.rsplit_once('@').map(|(id, nth)| (id, nth.parse::<usize>())) {
            Some((id, Ok(nth))) => (id, Some(nth)),
            _ => (text, None),
        };
        let tokens = self.tokens.get(id).ok_or_else(|| format!("{id} was never claimed"))?;
        let nth = nth.unwrap_or(tokens.len());
        tokens.get(nth - 1).map(String::as_str).ok_or_else(|| format!("{id} was claimed {} times", tokens.len()))
    }
}

/// What an argument is when a fixture does not name it.
pub fn default(name: &str) -> Result<Json, String> {
    Ok(match name {
        "lease_ms" => json!(100_000),
        "result_ttl_ms" => json!(60_000),
        "waiter_ttl_ms" => json!(30_000),
        "lanes" => json!(["default"]),
        "signals" => json!([]),
        "info" | "positions" => json!({}),
        "args" => json!([]),
        "generation" => json!(1),
        "max_lost" => json!(3),
        "run_ms" | "delay_ms" | "max_age_ms" | "offset" | "number" | "abandoned_threads" | "stalled_ms"
        | "resuming" | "hand_off" => json!(0),
        "paused" | "due_at" | "starting" => json!(1),
        "version" => json!("v1"),
        "completed" | "failed" | "retried" | "aborted" | "waits" | "wait_ms" | "minutes_ago" => json!(0),
        "minutes" => json!(1),
        "next_due_at" => json!(2),
        "following_at" => json!(9_000_000_030_000_i64),
        "definition" => json!({"task": "work", "lane": "default"}),
        "limit" => json!(100),
        "slots" => json!(8),
        "dead_ttl_ms" => json!(0),
        "dead_limit" => json!(-1),
        "lane" => json!("default"),
        "name" => json!("work"),
        "value" | "result" => json!("null"),
        "cursor" => json!("0"),
        "since_at" | "before_at" | "after_token" | "after_number" => json!(0),
        "kwargs" | "options" | "codec" | "headers" | "traceback" | "details" | "which" | "reason" | "progress"
        | "note" | "text" | "task" | "error" | "argument" | "detail" | "key" | "nonce" => json!(""),
        _ => return Err(format!("{name}: the fixture must say")),
    })
}

/// A value as it travels: text as it is, anything else as JSON.
pub fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number_of(fields: &Map<String, Json>, name: &str) -> Option<f64> {
    fields.get(name)?.as_f64().filter(|number| *number > 0.0)
}

fn shortened(text: &str) -> String {
    if text.len() <= 100 { text.to_owned() } else { format!("<{} bytes>", text.len()) }
}
