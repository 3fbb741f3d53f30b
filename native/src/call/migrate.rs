//! `ardiq migrate`: what is installed, what is pending; load, verify, prune, under a lock.
//! Knows libraries, their versions and who uses them; of queues only where workers say so.

mod lock;
mod nodes;
mod plan;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::call::schema::{self, Libraries, PACKAGE, Record};
use crate::lua::library::{self, sha1};
use crate::lua::protocol::Protocol;
use crate::wire::connection::{Connection, Link};
use crate::wire::error::Error;
use crate::wire::values;

pub use lock::locked;
use nodes::Nodes;
use plan::Step;
pub use plan::{Found, State};

/// A `migrate` that died holds the others up no longer.
const LOCK_TTL: Duration = Duration::from_secs(60);

/// What `ardiq migrate status` shows.
#[derive(Debug)]
pub struct Status {
    /// `Redis 7.0.15`.
    pub server: String,
    /// What the server said where it has no functions, or not for this user; then scripts are loaded when first used.
    pub no_functions: Option<String>,
    pub installed: Vec<Found>,
    /// What [`apply`] would do, a line each.
    pub pending: Vec<String>,
    pub maxmemory_policy: Option<String>,
    pub data_version: Option<u32>,
    /// A step that was begun and not finished.
    pub dirty: Option<String>,
    /// Who is migrating right now.
    pub lock: Option<String>,
}

/// # Errors
/// As [`Link::query`]; [`Error::Library`] for a server too old.
pub async fn status(link: &Link, prefix: &str) -> Result<Status, Error> {
    let nodes = Nodes::open(link, prefix).await?;
    let home = nodes.home();
    let record = Record::fetch(home, &nodes.schema).await?;
    let (mut pending, mut installed, mut no_functions) = (Vec::new(), Vec::new(), None);
    for node in nodes.all() {
        let libraries = Libraries::ask(node).await?;
        pending.extend(described(&nodes, node, &plan::steps(&libraries, &record, Protocol::get().version)));
        installed.extend(plan::found(libraries.installed(), &record));
        if let Libraries::None(why) = libraries {
            no_functions = Some(why);
        }
    }
    installed.sort_by(|a: &Found, b| (a.version, &a.sha1).cmp(&(b.version, &b.sha1)));
    installed.dedup();
    pending.dedup();
    let lock = home.query(redis::cmd("GET").arg(lock_key(prefix))).await?;
    Ok(Status {
        server: home.server().to_string(),
        no_functions,
        installed,
        pending,
        maxmemory_policy: schema::eviction_policy(home).await?,
        data_version: record.data,
        dirty: record.dirty,
        lock: values::text(&lock),
    })
}

/// Brings the server to version `to`, by default this build's; a line for each thing done. With
/// `force`, also on a server that evicts, over a library that seems newer, and blind to queues that cannot be seen.
///
/// # Errors
/// [`Error::Library`] that says why it refuses; as [`Link::query`].
pub async fn apply(link: &Link, prefix: &str, to: Option<u32>, force: bool) -> Result<Vec<String>, Error> {
    let newest = Protocol::get().version;
    let target = to.unwrap_or(newest);
    if !(1..=newest).contains(&target) {
        return Err(Error::Argument(format!("this Ardiq {PACKAGE} knows versions 1 to {newest}, not {target}")));
    }
    let nodes = Nodes::open(link, prefix).await?;
    if !force {
        for node in nodes.all() {
            schema::check_eviction(node).await?;
        }
    }
    locked(nodes.home(), &lock_key(prefix), LOCK_TTL, async {
        let record = Record::fetch(nodes.home(), &nodes.schema).await?;
        record.check(target)?;
        let back = match to {
            Some(to) if to < newest => Some(Drops::plan(&nodes, prefix, |version| version > to, false, force).await?),
            _ => None,
        };
        let mut done = Vec::new();
        for node in nodes.all() {
            let libraries = Libraries::ask(node).await?;
            let steps = plan::steps(&libraries, &record, target);
            if !force {
                plan::refuse(&steps, &record, |version| library::release(version).is_some())?;
            }
            for step in &steps {
                carry_out(&nodes, node, step).await?;
            }
            done.extend(described(&nodes, node, &steps));
            note(&nodes, &libraries, target).await?;
        }
        if let Some(drops) = back {
            done.extend(drops.carry_out(&nodes).await?);
        }
        Ok(done)
    })
    .await
}

/// Drops older libraries that no live worker uses; a line for each thing done. With `force`, even if other prefixes
/// cannot be seen.
///
/// # Errors
/// [`Error::Library`] that says why it refuses; as [`Link::query`].
pub async fn prune(link: &Link, prefix: &str, force: bool) -> Result<Vec<String>, Error> {
    prune_below(link, prefix, Protocol::get().version, force).await
}

/// As [`prune`], as a build of that version would.
///
/// # Errors
/// As [`prune`].
pub async fn prune_below(link: &Link, prefix: &str, version: u32, force: bool) -> Result<Vec<String>, Error> {
    let nodes = Nodes::open(link, prefix).await?;
    locked(nodes.home(), &lock_key(prefix), LOCK_TTL, async {
        let record = Record::fetch(nodes.home(), &nodes.schema).await?;
        let is_behind = record.data < Some(version);
        let drops = Drops::plan(&nodes, prefix, |other| other < version, is_behind, force).await?;
        // First the mark, then the library: who finds it missing must not load it again.
        drops.mark(&nodes, version, force).await?;
        drops.carry_out(&nodes).await
    })
    .await
}

/// Every queue of the server, as prefix and name.
///
/// # Errors
/// As [`Link::query`]; [`Error::Forbidden`] for who may not `SCAN`.
pub async fn queues(link: &Link) -> Result<Vec<(String, String)>, Error> {
    let bases = Nodes::open(link, &Protocol::get().prefix).await?.queues().await?;
    let parts = |base: &String| {
        let (prefix, queue) = Protocol::of_base(base);
        (prefix.to_owned(), queue.to_owned())
    };
    Ok(bases.iter().map(parts).collect())
}

/// Libraries to drop: a library is for all queues of a server, whatever their prefix.
#[derive(Default)]
struct Drops {
    versions: BTreeSet<u32>,
    /// Those that stay, with a queue that uses them.
    kept: Vec<(u32, String)>,
    /// The oldest that live workers use.
    oldest: Option<u32>,
    /// All that have queues, and the one that this is about.
    prefixes: BTreeSet<String>,
}

impl Drops {
    async fn plan(
        nodes: &Nodes,
        prefix: &str,
        candidate: impl Fn(u32) -> bool,
        always_look: bool,
        force: bool,
    ) -> Result<Self, Error> {
        let mut drops = Self::default();
        for node in nodes.all() {
            let libraries = Libraries::ask(node).await?;
            drops
                .versions
                .extend(libraries.installed().iter().map(|library| library.version).filter(|v| candidate(*v)));
        }
        drops.prefixes.insert(prefix.to_owned());
        if drops.versions.is_empty() && !always_look {
            return Ok(drops);
        }
        let used = match nodes.in_use(None).await {
            Err(Error::Library(_)) if force => nodes.in_use(Some(prefix)).await?,
            used => used?,
        };
        drops.kept = drops.versions.iter().filter_map(|version| Some((*version, used.by(*version)?))).collect();
        drops.versions.retain(|version| used.by(*version).is_none());
        drops.oldest = used.oldest();
        drops.prefixes.extend(used.prefixes);
        Ok(drops)
    }

    /// From now on the data may hold what only the versions that are left understand.
    async fn mark(&self, nodes: &Nodes, version: u32, force: bool) -> Result<(), Error> {
        let oldest = self.oldest.unwrap_or(version).min(version);
        for prefix in &self.prefixes {
            let key = schema::key(prefix);
            let known = nodes.ask(redis::cmd("HGET").arg(&key).arg(schema::DATA_VERSION)).await;
            let marked = match known {
                Ok(known) if values::text(&known).and_then(|data| data.parse().ok()) >= Some(oldest) => continue,
                Ok(_) => nodes.ask(redis::cmd("HSET").arg(&key).arg(schema::DATA_VERSION).arg(oldest)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = marked.map(drop)
                && !(force && matches!(error, Error::Forbidden { .. }))
            {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn carry_out(&self, nodes: &Nodes) -> Result<Vec<String>, Error> {
        let mut done = Vec::new();
        for (version, queue) in &self.kept {
            done.push(format!("keep {}: live workers of the queue {queue} use it", schema::library_name(*version)));
        }
        for node in nodes.all() {
            let at = nodes.name(node).map(|name| format!(" on {name}")).unwrap_or_default();
            for library in Libraries::ask(node).await?.installed() {
                if self.versions.contains(&library.version) {
                    let name = schema::library_name(library.version);
                    node.query(redis::cmd("FUNCTION").arg("DELETE").arg(&name)).await?;
                    done.push(format!("drop {name}{at}"));
                }
            }
        }
        for version in &self.versions {
            nodes.home().query(redis::cmd("HDEL").arg(&nodes.schema).arg(format!("v{version}"))).await?;
        }
        Ok(done)
    }
}

fn described(nodes: &Nodes, node: &Connection, steps: &[Step]) -> Vec<String> {
    let at = nodes.name(node).map(|name| format!(" on {name}")).unwrap_or_default();
    steps.iter().map(|step| format!("{step}{at}")).collect()
}

/// One step, marked as begun until it is verified.
async fn carry_out(nodes: &Nodes, node: &Connection, step: &Step) -> Result<(), Error> {
    let (home, key) = (nodes.home(), &nodes.schema);
    home.query(redis::cmd("HSET").arg(key).arg(schema::DIRTY).arg(step.to_string())).await?;
    if let Step::Load { version } | Step::Replace { version, .. } = step {
        let payload = payload(*version)?;
        let expected = sha1(&payload);
        let loaded = schema::load(node, &payload, matches!(step, Step::Replace { .. })).await;
        // Whoever was faster may have loaded the same.
        if !Libraries::ask(node).await?.have(*version, &expected) {
            loaded?;
            return Err(Error::Library(format!(
                "{} was loaded, but the server now has a different one: something else loads libraries, too",
                schema::library_name(*version)
            )));
        }
        schema::record(home, key, *version, &expected).await?;
    }
    home.query(redis::cmd("HDEL").arg(key).arg(schema::DIRTY)).await.map(drop)
}

/// Completes the record: of a library loaded by hand, and where nothing can be loaded.
async fn note(nodes: &Nodes, libraries: &Libraries, version: u32) -> Result<(), Error> {
    let (home, key) = (nodes.home(), &nodes.schema);
    if let Libraries::None(_) = libraries {
        return schema::record_data(home, key, version).await;
    }
    let expected = sha1(&payload(version)?);
    if Record::fetch(home, key).await?.of(version, "sha1") == Some(&expected) {
        return Ok(());
    }
    schema::record(home, key, version, &expected).await
}

fn payload(version: u32) -> Result<String, Error> {
    library::payload(version)
        .ok_or_else(|| Error::Library(format!("this Ardiq {PACKAGE} does not carry version {version}")))
}

fn lock_key(prefix: &str) -> String {
    Protocol::get().shared_key("lock", prefix)
}
