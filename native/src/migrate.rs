//! `ardiq migrate`: what is installed, what is pending; load, verify, prune, under a lock.
//! Knows libraries, their versions and who uses them; of queues only where workers say so.

mod nodes;
mod plan;

use std::time::Duration;

use redis::Value;

use crate::connection::{Connection, Link, refuse_error};
use crate::error::Error;
use crate::library::{Library, sha1};
use crate::protocol::Protocol;
use crate::schema::{self, Installed, PACKAGE, Record};

use nodes::Nodes;
use plan::Step;
pub use plan::{Found, State};

/// Longer than any step takes; a `migrate` that died holds the others up no longer.
const LOCK_TTL: Duration = Duration::from_secs(60);

/// What `ardiq migrate status` shows.
#[derive(Debug)]
pub struct Status {
    /// `Redis 7.0.15`.
    pub server: String,
    /// Whether the server has functions; without them, scripts are loaded when first used.
    pub functions: bool,
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
pub async fn status(link: &Link) -> Result<Status, Error> {
    let nodes = Nodes::open(link).await?;
    let home = nodes.home();
    let record = Record::fetch(home).await?;
    let mut pending = Vec::new();
    let mut installed = Vec::new();
    for node in nodes.all() {
        let libraries = libraries(node).await?;
        pending.extend(described(&nodes, node, &steps(node, &libraries, &record, Protocol::get().version)));
        installed.extend(plan::found(&libraries, &record));
    }
    installed.sort_by(|a: &Found, b| (a.version, &a.sha1).cmp(&(b.version, &b.sha1)));
    installed.dedup();
    pending.dedup();
    let lock = home.query(redis::cmd("GET").arg(lock_key())).await?;
    Ok(Status {
        server: home.server().to_string(),
        functions: home.server().has_functions(),
        installed,
        pending,
        maxmemory_policy: schema::eviction_policy(home).await?,
        data_version: record.data,
        dirty: record.dirty,
        lock: schema::text(&lock),
    })
}

/// Brings the server to version `to`, by default this build's; a line for each thing done. With
/// `force`, also on a server that evicts, and over a library that seems newer.
///
/// # Errors
/// [`Error::Library`] that says why it refuses; as [`Link::query`].
pub async fn apply(link: &Link, to: Option<u32>, force: bool) -> Result<Vec<String>, Error> {
    let newest = Protocol::get().version;
    let target = to.unwrap_or(newest);
    if !(1..=newest).contains(&target) {
        return Err(Error::Argument(format!("this Ardiq {PACKAGE} knows versions 1 to {newest}, not {target}")));
    }
    let nodes = Nodes::open(link).await?;
    if !force {
        for node in nodes.all() {
            schema::check_eviction(node).await?;
        }
    }
    locked(nodes.home(), async {
        let record = Record::fetch(nodes.home()).await?;
        record.check()?;
        let mut done = Vec::new();
        for node in nodes.all() {
            let libraries = libraries(node).await?;
            let steps = steps(node, &libraries, &record, target);
            if !force {
                plan::refuse(&steps, &record)?;
            }
            for step in &steps {
                carry_out(nodes.home(), node, step).await?;
            }
            done.extend(described(&nodes, node, &steps));
        }
        if to.is_some_and(|to| to < newest) {
            done.extend(drop_unused(&nodes, |version| version > target).await?);
        }
        note(nodes.home(), target).await?;
        Ok(done)
    })
    .await
}

/// Drops older libraries that no live worker uses; a line for each thing done.
///
/// # Errors
/// As [`Link::query`].
pub async fn prune(link: &Link) -> Result<Vec<String>, Error> {
    let nodes = Nodes::open(link).await?;
    locked(nodes.home(), async {
        let mine = Protocol::get().version;
        let done = drop_unused(&nodes, |version| version < mine).await?;
        let mut left = u32::MAX;
        for node in nodes.all() {
            left = libraries(node).await?.iter().map(|library| library.version).fold(left, u32::min);
        }
        if left != u32::MAX {
            // From now on the data may hold what only these versions understand.
            nodes.home().query(redis::cmd("HSET").arg(schema::key()).arg(schema::DATA_VERSION).arg(left)).await?;
        }
        Ok(done)
    })
    .await
}

/// Ardiq's libraries on one server; none where it has no functions.
async fn libraries(node: &Connection) -> Result<Vec<Installed>, Error> {
    if node.server().has_functions() { schema::installed(node).await } else { Ok(Vec::new()) }
}

fn steps(node: &Connection, libraries: &[Installed], record: &Record, target: u32) -> Vec<Step> {
    if node.server().has_functions() { plan::steps(libraries, record, target) } else { Vec::new() }
}

fn described(nodes: &Nodes, node: &Connection, steps: &[Step]) -> Vec<String> {
    let at = nodes.name(node).map(|name| format!(" on {name}")).unwrap_or_default();
    steps.iter().map(|step| format!("{step}{at}")).collect()
}

/// One step, marked as begun until it is verified.
async fn carry_out(home: &Connection, node: &Connection, step: &Step) -> Result<(), Error> {
    home.query(redis::cmd("HSET").arg(schema::key()).arg(schema::DIRTY).arg(step.to_string())).await?;
    if let Step::Load { version } | Step::Replace { version, .. } = step {
        let payload = payload(*version)?;
        schema::load(node, &payload, matches!(step, Step::Replace { .. })).await?;
        let expected = sha1(&payload);
        let loaded = schema::installed(node).await?;
        if !loaded.iter().any(|library| library.version == *version && library.sha1 == expected) {
            return Err(Error::Library(format!(
                "{} was loaded but is not what the server shows now: somebody else loads libraries too",
                schema::library_name(*version)
            )));
        }
        schema::record(home, *version, &expected).await?;
    }
    home.query(redis::cmd("HDEL").arg(schema::key()).arg(schema::DIRTY)).await.map(drop)
}

/// Completes the record: of a library loaded by hand, and where nothing can be loaded.
async fn note(home: &Connection, version: u32) -> Result<(), Error> {
    if !home.server().has_functions() {
        return schema::record_data(home, version).await;
    }
    let expected = sha1(&payload(version)?);
    if Record::fetch(home).await?.of(version, "sha1") == Some(&expected) {
        return Ok(());
    }
    schema::record(home, version, &expected).await
}

/// The exact payload of a version: as released, or, while it is being worked on, of the sources.
fn payload(version: u32) -> Result<String, Error> {
    match crate::library::release(version) {
        Some(released) => Ok(released.to_owned()),
        None if version == Protocol::get().version => Ok(Library::get().payload()),
        None => Err(Error::Library(format!("this Ardiq {PACKAGE} does not carry version {version}"))),
    }
}

async fn drop_unused(nodes: &Nodes, candidate: impl Fn(u32) -> bool) -> Result<Vec<String>, Error> {
    let mut done = Vec::new();
    let used = nodes.versions_in_use().await?;
    for node in nodes.all() {
        let at = nodes.name(node).map(|name| format!(" on {name}")).unwrap_or_default();
        for library in libraries(node).await?.iter().filter(|library| candidate(library.version)) {
            let name = schema::library_name(library.version);
            if used.contains(library.version) {
                done.push(format!("keep {name}{at}: live workers use it"));
                continue;
            }
            node.query(redis::cmd("FUNCTION").arg("DELETE").arg(&name)).await?;
            let field = format!("v{}", library.version);
            nodes.home().query(redis::cmd("HDEL").arg(schema::key()).arg(field)).await?;
            done.push(format!("drop {name}{at}"));
        }
    }
    Ok(done)
}

/// Runs `work` while no other `migrate` runs.
async fn locked<T>(home: &Connection, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let since = schema::now_ms(home).await?;
    let mine = format!("Ardiq {PACKAGE}, process {}, since {since} ms", std::process::id());
    let key = lock_key();
    let mut set = redis::cmd("SET");
    set.arg(key).arg(&mine).arg("NX").arg("PX").arg(LOCK_TTL.as_millis() as u64);
    if home.query(&set).await? == Value::Nil {
        let holder = home.query(redis::cmd("GET").arg(key)).await?;
        return Err(Error::Library(format!(
            "another `ardiq migrate` is at work ({}); wait for it, or {} seconds should it have died",
            schema::text(&holder).unwrap_or_default(),
            LOCK_TTL.as_secs()
        )));
    }
    let result = work.await;
    // Should the lock have run out meanwhile, it may be another's by now.
    let held = refuse_error(home.exchange(redis::cmd("GET").arg(key)).await.unwrap_or(Value::Nil));
    if held.is_ok_and(|held| schema::text(&held).as_deref() == Some(&mine)) {
        let _ = home.query(redis::cmd("DEL").arg(key)).await;
    }
    result
}

/// Beside `ardiq:schema` in the same slot of a cluster.
fn lock_key() -> &'static str {
    Protocol::get().global_key("schema_lock")
}
