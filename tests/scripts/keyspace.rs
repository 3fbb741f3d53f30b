//! Everything the server holds, as values to compare.

use std::collections::BTreeMap;

use redis::{Value, pipe};

use crate::server::{Server, items, text};

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
    let mut reads = pipe();
    if server.is_modern() {
        for name in names {
            reads.cmd("PEXPIRETIME").arg(name);
        }
        return server.pipeline(&reads).iter().map(|time| Some(number(time)).filter(|time| *time >= 0)).collect();
    }
    // The time that is left, read beside the clock.
    for name in names {
        reads.cmd("TIME").cmd("PTTL").arg(name);
    }
    let expiry = |read: &[Value]| {
        let clock: Vec<i64> = items(&read[0]).iter().map(number).collect();
        match number(&read[1]) {
            -2 => Some(0),
            -1 => None,
            left => Some(clock[0] * 1000 + clock[1] / 1000 + left),
        }
    };
    server.pipeline(&reads).chunks(2).map(expiry).collect()
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
