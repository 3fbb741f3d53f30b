//! Everything the server holds, as values to compare.

use std::collections::BTreeMap;

use redis::{Value, pipe};

use crate::server::{Server, items, text};
use crate::times;

/// How far two readings of the same expiry may lie apart: they are told relative to the clock.
const EXPIRY_TOLERANCE_MS: i64 = 3;

#[derive(Clone, Debug, Default)]
pub struct Keyspace(pub BTreeMap<String, Key>);

#[derive(Clone, Debug)]
pub struct Key {
    pub content: Content,
    /// When it ends by itself, by the server's clock.
    pub expires_at: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    String(String),
    List(Vec<String>),
    Set(Vec<String>),
    /// Fields and values of a hash, members and scores of a sorted set.
    Hash(BTreeMap<String, String>),
    Sorted(BTreeMap<String, String>),
}

impl Keyspace {
    pub fn read(server: &mut Server) -> Self {
        let names: Vec<String> = items(&server.command(&["KEYS", "*"])).iter().map(text).collect();
        if names.is_empty() {
            return Self::default();
        }
        let mut kinds = pipe();
        for name in &names {
            kinds.cmd("TYPE").arg(name);
        }
        let kinds: Vec<String> = server.pipeline(&kinds).iter().map(text).collect();
        let mut reads = pipe();
        for (name, kind) in names.iter().zip(&kinds) {
            match kind.as_str() {
                "list" => reads.cmd("LRANGE").arg(name).arg(0).arg(-1),
                "set" => reads.cmd("SMEMBERS").arg(name),
                "hash" => reads.cmd("HGETALL").arg(name),
                "zset" => reads.cmd("ZRANGE").arg(name).arg(0).arg(-1).arg("WITHSCORES"),
                _ => reads.cmd("GET").arg(name),
            };
        }
        let contents = server.pipeline(&reads);
        let expiries = expiries(server, &names);
        let mut keys = BTreeMap::new();
        for (((name, kind), content), expires_at) in names.into_iter().zip(kinds).zip(contents).zip(expiries) {
            // A key may have ended while it was read.
            if kind != "none" && expires_at != Some(0) {
                keys.insert(name, Key { content: Content::of(&kind, &content), expires_at });
            }
        }
        Self(keys)
    }

    /// Names of the keys that are not as they were in `before`.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> Vec<&'a String> {
        let mut names: Vec<&String> = self.0.keys().chain(before.0.keys()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| match (before.0.get(*name), self.0.get(*name)) {
            (Some(before), Some(after)) => !before.is_same(after),
            _ => true,
        });
        names
    }

    pub fn hash(&self, key: &str) -> Option<&BTreeMap<String, String>> {
        match &self.0.get(key)?.content {
            Content::Hash(fields) => Some(fields),
            _ => None,
        }
    }

    pub fn sorted(&self, key: &str) -> Vec<String> {
        match self.0.get(key).map(|key| &key.content) {
            Some(Content::Sorted(members)) => members.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    pub fn scores(&self, key: &str) -> BTreeMap<String, String> {
        match self.0.get(key).map(|key| &key.content) {
            Some(Content::Sorted(members)) => members.clone(),
            _ => BTreeMap::new(),
        }
    }

    pub fn list(&self, key: &str) -> &[String] {
        match self.0.get(key).map(|key| &key.content) {
            Some(Content::List(list) | Content::Set(list)) => list,
            _ => &[],
        }
    }
}

/// When each key ends by itself; 0: it has.
fn expiries(server: &mut Server, names: &[String]) -> Vec<Option<i64>> {
    let number = |value: &Value| text(value).parse::<i64>().expect("a number");
    if server.is_modern() {
        let mut reads = pipe();
        for name in names {
            reads.cmd("PEXPIRETIME").arg(name);
        }
        return server.pipeline(&reads).iter().map(|time| Some(number(time)).filter(|time| *time >= 0)).collect();
    }
    let clock = |time: &Value| {
        let parts: Vec<i64> = items(time).iter().map(number).collect();
        parts[0] * 1000 + parts[1] / 1000
    };
    // The time that is left, between two looks at the clock: once more where the server was held up meanwhile.
    let mut found = vec![None; names.len()];
    let mut unclear: Vec<usize> = (0..names.len()).collect();
    while !unclear.is_empty() {
        let mut reads = pipe();
        for index in &unclear {
            reads.cmd("TIME").cmd("PTTL").arg(&names[*index]).cmd("TIME");
        }
        let read = server.pipeline(&reads);
        let mut answers = read.chunks(3);
        unclear.retain(|index| {
            let answer = answers.next().expect("an answer for each");
            let (before, left, after) = (clock(&answer[0]), number(&answer[1]), clock(&answer[2]));
            found[*index] = match left {
                -2 => Some(0),
                -1 => None,
                left => Some(before + left),
            };
            left >= 0 && after > before + 1
        });
    }
    found
}

/// Lets time pass without waiting for it: every time that the server holds becomes earlier by as much, and what ends
/// by itself meanwhile is gone.
pub fn age(server: &mut Server, ms: i64) {
    let now_ms = server.now_us() / 1000;
    let earlier = |value: &String| {
        let aged = times::replace(value, now_ms, |time| (time - ms).to_string());
        (aged != *value).then_some(aged)
    };
    let mut writes = pipe();
    for (name, key) in Keyspace::read(server).0 {
        match &key.content {
            Content::String(value) => {
                if let Some(value) = earlier(value) {
                    writes.cmd("SET").arg(&name).arg(value).arg("KEEPTTL");
                }
            }
            Content::List(list) => {
                for (index, value) in list.iter().enumerate() {
                    if let Some(value) = earlier(value) {
                        writes.cmd("LSET").arg(&name).arg(index).arg(value);
                    }
                }
            }
            // No set of the library's holds times.
            Content::Set(_) => {}
            Content::Hash(fields) => {
                for (field, value) in fields {
                    if let Some(value) = earlier(value) {
                        writes.cmd("HSET").arg(&name).arg(field).arg(value);
                    }
                }
            }
            Content::Sorted(members) => {
                for (member, score) in members {
                    if let Some(score) = earlier(score) {
                        writes.cmd("ZADD").arg(&name).arg(score).arg(member);
                    }
                }
            }
        }
        if let Some(time) = key.expires_at {
            writes.cmd("PEXPIREAT").arg(&name).arg(time - ms);
        }
    }
    server.pipeline(&writes);
}

impl Key {
    fn is_same(&self, other: &Self) -> bool {
        self.content == other.content && same_expiry(self.expires_at, other.expires_at)
    }
}

pub fn same_expiry(one: Option<i64>, other: Option<i64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= EXPIRY_TOLERANCE_MS,
        (one, other) => one == other,
    }
}

impl Content {
    fn of(kind: &str, value: &Value) -> Self {
        let mut list: Vec<String> = items(value).iter().map(text).collect();
        let pairs = |list: &[String]| list.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        match kind {
            "list" => Self::List(list),
            "set" => {
                list.sort();
                Self::Set(list)
            }
            "hash" => Self::Hash(pairs(&list)),
            "zset" => Self::Sorted(pairs(&list)),
            _ => Self::String(text(value)),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Hash(_) => "hash",
            Self::Sorted(_) => "zset",
        }
    }
}
