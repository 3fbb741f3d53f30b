//! The servers a migration concerns: one, or every primary of a cluster.

use redis::{Cmd, Value};
use serde_json::Value as Json;

use crate::connection::cluster::View;
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

impl Nodes {
    /// # Errors
    /// As [`Link::query`]; [`Error::Library`] for a server too old.
    pub async fn open(link: &Link) -> Result<Self, Error> {
        let first = link.connection().await?;
        let nodes = if first.server().cluster {
            Self::of_cluster(link, first).await?
        } else {
            Self { nodes: vec![(first, None)], home: 0 }
        };
        for (node, _) in &nodes.nodes {
            node.server().require()?;
        }
        Ok(nodes)
    }

    async fn of_cluster(link: &Link, first: Connection) -> Result<Self, Error> {
        let view = View::ask(&first, schema::key()).await?;
        if let [_] = view.shards.as_slice() {
            return Ok(Self { nodes: vec![(first, None)], home: 0 });
        }
        let owner = view.owner().map(|owner| &owner.id);
        let home = view.shards.iter().position(|shard| Some(&shard.id) == owner).unwrap_or(0);
        let mut nodes = Vec::new();
        for shard in &view.shards {
            let node = link.connector().only(shard.place.clone());
            nodes.push((node.connect().await?, Some(shard.place.to_string())));
        }
        Ok(Self { nodes, home })
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
