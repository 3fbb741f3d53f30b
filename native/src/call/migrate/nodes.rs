//! The servers a migration concerns: one, or every primary of a cluster; and which queues are on them.

use std::collections::BTreeSet;

use redis::{Cmd, Value};
use serde_json::Value as Json;

use crate::call::schema;
use crate::lua::protocol::Protocol;
use crate::wire::connection::cluster::{View, slot_of};
use crate::wire::connection::{Connection, Link, refuse_error};
use crate::wire::error::Error;
use crate::wire::values;

/// How many keys one `SCAN` looks at: about a millisecond of the server's time.
const PAGE: u32 = 1000;

pub struct Nodes {
    /// With their address, where there are several.
    nodes: Vec<(Connection, Option<String>)>,
    /// Index of the one that holds the record.
    home: usize,
    /// The record of the prefix that this is about.
    pub schema: String,
}

/// Who uses which version.
#[derive(Default)]
pub struct InUse {
    /// With the base of the queue; None: a worker does not say, and every version counts as used.
    versions: Vec<(Option<u32>, String)>,
    /// Every prefix that has queues.
    pub prefixes: BTreeSet<String>,
}

impl InUse {
    /// None: no worker is alive; 0: one does not say.
    pub fn oldest(&self) -> Option<u32> {
        self.versions.iter().map(|(version, _)| version.unwrap_or(0)).min()
    }

    /// A queue whose live workers use it, for people.
    pub fn by(&self, version: u32) -> Option<String> {
        let (_, base) = self.versions.iter().find(|(used, _)| used.is_none_or(|used| used == version))?;
        let (prefix, queue) = Protocol::of_base(base);
        let of = if prefix == Protocol::get().prefix { String::new() } else { format!(" (prefix {prefix})") };
        Some(format!("{queue}{of}"))
    }
}

impl Nodes {
    /// # Errors
    /// As [`Link::query`]; [`Error::Library`] for a server too old.
    pub async fn open(link: &Link, prefix: &str) -> Result<Self, Error> {
        let schema = schema::key(prefix);
        let first = link.connection().await?;
        let nodes = if first.server().cluster {
            Self::of_cluster(link, first, schema).await?
        } else {
            Self { nodes: vec![(first, None)], home: 0, schema }
        };
        for (node, _) in &nodes.nodes {
            node.server().require()?;
        }
        Ok(nodes)
    }

    async fn of_cluster(link: &Link, first: Connection, schema: String) -> Result<Self, Error> {
        let view = View::ask(&first).await?;
        if let [_] = view.shards.as_slice() {
            return Ok(Self { nodes: vec![(first, None)], home: 0, schema });
        }
        let owner = view.owner(slot_of(&schema)).map(|owner| &owner.id);
        let home = view.shards.iter().position(|shard| Some(&shard.id) == owner).unwrap_or(0);
        let mut nodes = Vec::new();
        for shard in &view.shards {
            let node = link.connector().only(shard.place.clone());
            nodes.push((node.connect().await?, Some(shard.place.to_string())));
        }
        Ok(Self { nodes, home, schema })
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

    /// The bases of all queues, of whatever prefix, by their keys.
    ///
    /// # Errors
    /// As [`Connection::query`]; [`Error::Forbidden`] for who may not `SCAN`.
    pub async fn queues(&self) -> Result<BTreeSet<String>, Error> {
        let mut bases = BTreeSet::new();
        // Of a queue that had a worker at work, of one that had a task, and of one whose workers have just joined.
        let protocol = Protocol::get();
        let suffixes = [protocol.key("meta", "", ""), protocol.key("lanes", "", ""), protocol.key("workers", "", "")];
        for suffix in suffixes {
            for node in self.all() {
                let mut cursor = "0".to_owned();
                loop {
                    let mut scan = redis::cmd("SCAN");
                    scan.arg(&cursor).arg("MATCH").arg(format!("*:{{*}}:{suffix}")).arg("COUNT").arg(PAGE);
                    let Value::Array(page) = node.query(&scan).await? else { break };
                    let keys = page.get(1).map(strings).unwrap_or_default();
                    let bases_of = keys.iter().filter_map(|key| key.strip_suffix(&suffix));
                    bases.extend(bases_of.filter(|base| is_base(base)).map(str::to_owned));
                    cursor = page.first().and_then(values::text).unwrap_or_default();
                    if cursor == "0" || cursor.is_empty() {
                        break;
                    }
                }
            }
        }
        Ok(bases)
    }

    /// The bases of the queues that clients registered under a prefix.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn registered(&self, prefix: &str) -> Result<BTreeSet<String>, Error> {
        let key = Protocol::get().shared_key("queues", prefix);
        let names = strings(&self.ask(redis::cmd("SMEMBERS").arg(key)).await?);
        Ok(names.iter().map(|queue| Protocol::base(prefix, queue)).collect())
    }

    /// What live workers say they use, in the `info` they joined with. The library is one for all prefixes, so all of
    /// them count; `only` this prefix for who insists and cannot see the others.
    ///
    /// # Errors
    /// [`Error::Library`] that says what this user cannot see; as [`Connection::query`].
    pub async fn in_use(&self, only: Option<&str>) -> Result<InUse, Error> {
        let unseen = |what: String, error: &Error| {
            Error::Library(format!(
                "a library is for the whole server, and this user cannot see {what}, whose workers may use it: prune as a \
                 user who can (`ardiq migrate --acl` prints one), or with --force ({error})"
            ))
        };
        let bases = match only {
            Some(prefix) => self.registered(prefix).await?,
            None => self.queues().await.map_err(|error| match error {
                Error::Forbidden { .. } | Error::Script(_) => unseen("the queues of other prefixes".to_owned(), &error),
                error => error,
            })?,
        };
        let mut found = InUse::default();
        let now_ms = schema::now_ms(self.home()).await?;
        for base in bases {
            match self.workers(&base, now_ms).await {
                Ok(used) => found.versions.extend(used.into_iter().map(|version| (version, base.clone()))),
                Err(error @ Error::Forbidden { .. }) => return Err(unseen(format!("the queue {base}*"), &error)),
                Err(error) => return Err(error),
            }
            found.prefixes.insert(Protocol::of_base(&base).0.to_owned());
        }
        Ok(found)
    }

    /// The versions of a queue's workers whose lease runs.
    async fn workers(&self, base: &str, now_ms: i64) -> Result<Vec<Option<u32>>, Error> {
        let protocol = Protocol::get();
        let mut members = redis::cmd("ZRANGEBYSCORE");
        members.arg(protocol.key("workers", base, "")).arg(format!("({now_ms}")).arg("+inf");
        let mut versions = Vec::new();
        for worker in strings(&self.ask(&members).await?) {
            let mut info = redis::cmd("HGET");
            info.arg(protocol.key("worker", base, &worker)).arg("info");
            let info = values::text(&self.ask(&info).await?).unwrap_or_default();
            let info: Json = serde_json::from_str(&info).unwrap_or_default();
            versions.push(info["protocol"].as_u64().map(|version| version as u32));
        }
        Ok(versions)
    }

    /// From whichever node holds the key.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn ask(&self, cmd: &Cmd) -> Result<Value, Error> {
        let mut answer = Value::Nil;
        for node in self.all() {
            answer = node.exchange(cmd).await?;
            if !matches!(&answer, Value::ServerError(reply) if reply.code() == "MOVED") {
                break;
            }
        }
        refuse_error(answer)
    }
}

fn is_base(text: &str) -> bool {
    let (prefix, queue) = Protocol::of_base(text);
    !queue.contains(['{', '}']) && text == Protocol::base(prefix, queue)
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(values::text).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_told_from_keys_of_others() {
        assert!(is_base("ardiq:{q}:") && is_base("a:b:{q r}:"));
        for other in ["", "ardiq:", "bull:{q}:x:", "{q}:", "x:{a}:{b}:"] {
            assert!(!is_base(other), "{other}");
        }
    }
}
