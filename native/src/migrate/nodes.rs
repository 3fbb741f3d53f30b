//! The servers a migration concerns: one, or every primary of a cluster.

use redis::{Cmd, Value};
use serde_json::Value as Json;

use crate::connection::{Connection, Link, refuse_error};
use crate::error::Error;
use crate::protocol::Protocol;
use crate::schema;

pub struct Nodes {
    /// With their address, where there are several.
    nodes: Vec<(Connection, Option<String>)>,
    /// Index of the one that holds `ardiq:schema`.
    home: usize,
}

/// Library versions of the live workers.
pub struct InUse {
    versions: Vec<u32>,
    /// A worker does not say: every version counts as used.
    unknown: bool,
}

impl InUse {
    pub fn contains(&self, version: u32) -> bool {
        self.unknown || self.versions.contains(&version)
    }
}

struct Primary {
    host: String,
    port: u16,
    slots: Vec<(i64, i64)>,
}

impl Nodes {
    /// # Errors
    /// As [`Link::query`]; [`Error::Library`] for a server too old.
    pub async fn open(link: &Link) -> Result<Self, Error> {
        let first = link.connection().await?;
        let mut primaries = Vec::new();
        if first.server().cluster {
            primaries = read_slots(&first.query(redis::cmd("CLUSTER").arg("SLOTS")).await?);
        }
        let nodes = if primaries.len() < 2 {
            Self { nodes: vec![(first, None)], home: 0 }
        } else {
            let slot = match first.query(redis::cmd("CLUSTER").arg("KEYSLOT").arg(schema::key())).await? {
                Value::Int(slot) => slot,
                _ => 0,
            };
            let home = primaries.iter().position(|primary| primary.holds(slot)).unwrap_or(0);
            let mut nodes = Vec::new();
            for primary in primaries {
                let connector = link.connector().at(&primary.host, primary.port)?;
                nodes.push((connector.connect().await?, Some(format!("{}:{}", primary.host, primary.port))));
            }
            Self { nodes, home }
        };
        for (node, _) in &nodes.nodes {
            node.server().require()?;
        }
        Ok(nodes)
    }

    pub fn all(&self) -> impl Iterator<Item = &Connection> {
        self.nodes.iter().map(|(connection, _)| connection)
    }

    /// The node that holds the record.
    pub fn home(&self) -> &Connection {
        &self.nodes[self.home].0
    }

    /// Its address, where there is more than one.
    pub fn name(&self, node: &Connection) -> Option<&str> {
        let (_, name) = self.nodes.iter().find(|(other, _)| other.generation() == node.generation())?;
        name.as_deref()
    }

    /// What the live workers of all known queues say they use, in the `info` they joined with.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn versions_in_use(&self) -> Result<InUse, Error> {
        let protocol = Protocol::get();
        let mut used = InUse { versions: Vec::new(), unknown: false };
        for queue in self.strings(redis::cmd("SMEMBERS").arg(protocol.global_key("queues"))).await? {
            let base = protocol.base(&queue);
            let mut members = redis::cmd("ZRANGE");
            members.arg(protocol.key("workers", &base, "")).arg(0).arg(-1);
            for worker in self.strings(&members).await? {
                let mut info = redis::cmd("HGET");
                info.arg(protocol.key("worker", &base, &worker)).arg("info");
                let info = schema::text(&self.ask(&info).await?).unwrap_or_default();
                let info: Json = serde_json::from_str(&info).unwrap_or_default();
                match info["protocol"].as_u64() {
                    Some(version) => used.versions.push(version as u32),
                    None => used.unknown = true,
                }
            }
        }
        Ok(used)
    }

    /// From whichever node holds the key.
    async fn ask(&self, cmd: &Cmd) -> Result<Value, Error> {
        let mut answer = Value::Nil;
        for node in self.all() {
            answer = node.exchange(cmd).await?;
            if !matches!(&answer, Value::ServerError(reply) if reply.code() == "MOVED") {
                break;
            }
        }
        refuse_error(answer)
    }

    async fn strings(&self, cmd: &Cmd) -> Result<Vec<String>, Error> {
        match self.ask(cmd).await? {
            Value::Array(items) => Ok(items.iter().filter_map(schema::text).collect()),
            _ => Ok(Vec::new()),
        }
    }
}

impl Primary {
    fn holds(&self, slot: i64) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

/// From the answer to `CLUSTER SLOTS`: ranges, each with its primary and then replicas.
fn read_slots(answer: &Value) -> Vec<Primary> {
    let Value::Array(ranges) = answer else { return Vec::new() };
    let mut primaries: Vec<Primary> = Vec::new();
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = range.as_slice() else {
            continue;
        };
        let [host, Value::Int(port), ..] = node.as_slice() else { continue };
        let (host, port) = (schema::text(host).unwrap_or_default(), *port as u16);
        match primaries.iter_mut().find(|primary| primary.host == host && primary.port == port) {
            Some(primary) => primary.slots.push((*first, *last)),
            None => primaries.push(Primary { host, port, slots: vec![(*first, *last)] }),
        }
    }
    primaries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primaries_are_read_once_each() {
        let node = |host: &str, port| {
            Value::Array(vec![Value::BulkString(host.as_bytes().to_vec()), Value::Int(port), Value::Nil])
        };
        let range = |first, last, port| {
            Value::Array(vec![Value::Int(first), Value::Int(last), node("10.0.0.1", port), node("10.0.0.2", port)])
        };
        let answer = Value::Array(vec![range(0, 100, 1), range(101, 200, 2), range(201, 300, 1)]);
        let primaries = read_slots(&answer);
        let seen: Vec<_> = primaries.iter().map(|p| (p.host.as_str(), p.port, p.slots.len())).collect();
        assert_eq!(seen, [("10.0.0.1", 1, 2), ("10.0.0.1", 2, 1)]);
        assert!(primaries[0].holds(250) && !primaries[0].holds(150) && primaries[1].holds(101));
    }
}
