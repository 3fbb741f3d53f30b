//! Which of several servers is the primary: the one of a cluster that holds a slot, or the one that Sentinels name.
//! Asks anew for each connection; closes those to a server that is not the primary any more. Of a cluster one connection
//! to each node is shared by all slots that it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::cluster::{SLOTS, View};
use super::{Connection, Connector, Node, Opened, Refusal};
use crate::wire::address::{Kind, Place};
use crate::wire::clock::sleep;
use crate::wire::error::Error;
use crate::wire::values::text;

/// How long a server that is asked has before another is asked, too.
const HEAD_START: Duration = Duration::from_millis(400);
/// How long answers under way may take to come from a server that is not the primary any more.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// What was learned on the way to the primaries, and the connections that are shared there.
#[derive(Default)]
pub struct Route {
    known: Mutex<Known>,
    /// Tells those who wait that the nodes of a cluster are known.
    learned: Notify,
}

#[derive(Default)]
struct Known {
    /// To a server that is no node of a cluster, or to whichever node answered.
    shared: Option<Connection>,
    /// The primaries of a cluster.
    primaries: Vec<Primary>,
    /// By slot: the place in `primaries`, and one more; 0: not known. Empty where there is no cluster.
    owners: Vec<u16>,
    /// Where slots are said to be that are not where they were.
    said: HashMap<u16, Place>,
    /// The nodes of the cluster.
    nodes: Vec<Place>,
    /// All connections that lead to one of several servers.
    opened: Vec<Weak<Opened>>,
}

struct Primary {
    id: String,
    place: Place,
    shared: Option<Connection>,
}

impl Known {
    fn owner(&self, slot: Option<u16>) -> Option<&Primary> {
        let place = self.owners.get(usize::from(slot?)).copied().unwrap_or(0);
        self.primaries.get(usize::from(place.checked_sub(1)?))
    }

    fn shared(&self, slot: Option<u16>) -> Option<&Connection> {
        let shared = match slot {
            Some(_) if !self.owners.is_empty() => self.owner(slot)?.shared.as_ref(),
            _ => self.shared.as_ref(),
        };
        shared.filter(|connection| connection.is_alive())
    }

    /// Closes connections that lead where they should not any more; gently, answers may be under way.
    fn leave(&mut self, belongs: impl Fn(&Node) -> bool) {
        let opened = std::mem::take(&mut self.opened);
        for other in opened.into_iter().filter_map(|other| other.upgrade()) {
            if other.node.get().is_none_or(&belongs) {
                self.opened.push(Arc::downgrade(&other));
            } else {
                other.wire.retire();
                tokio::spawn(async move {
                    sleep(LAST_ANSWERS).await;
                    other.wire.close();
                });
            }
        }
    }

    /// The cluster as the owner of some slot sees it.
    fn see(&mut self, view: &View) {
        self.nodes.clone_from(&view.nodes);
        self.said.clear();
        let mut before = std::mem::take(&mut self.primaries);
        self.owners = vec![0; usize::from(SLOTS)];
        for (at, shard) in (1..).zip(&view.shards) {
            for &(first, last) in &shard.slots {
                self.owners[usize::from(first)..=usize::from(last.min(SLOTS - 1))].fill(at);
            }
            let shared = before.iter_mut().find(|other| other.id == shard.id).and_then(|other| other.shared.take());
            self.primaries.push(Primary { id: shard.id.clone(), place: shard.place.clone(), shared });
        }
        self.leave(|node| match node.slot {
            Some(slot) => view.owner(slot).is_none_or(|owner| owner.id == node.id),
            None => view.shards.iter().any(|shard| shard.id == node.id),
        });
    }
}

impl Route {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector {
    /// The live connection that is shared by all who want to go there.
    pub(super) fn shared(&self) -> Option<Connection> {
        self.inner.route.known().shared(self.slot).cloned()
    }

    /// Shares a connection that was made for this connector.
    pub(super) fn share(&self, connection: &Connection) {
        let mut known = self.inner.route.known();
        match connection.inner.node.get().filter(|_| connection.server().cluster) {
            Some(node) => {
                if let Some(primary) = known.primaries.iter_mut().find(|primary| primary.id == node.id) {
                    primary.shared = Some(connection.clone());
                }
            }
            None => {
                known.owners.clear();
                known.shared = Some(connection.clone());
            }
        }
    }

    /// The node of a cluster that holds the slot, as far as is known.
    pub(super) fn owner(&self) -> Option<String> {
        self.inner.route.known().owner(self.slot).map(|owner| owner.id.clone())
    }

    /// Resolves when the nodes of a cluster are known for the first time.
    pub(super) async fn learned(&self) {
        self.inner.route.learned.notified().await;
    }

    /// The slot is not where this connection leads, but, it is said, at `place`.
    pub(super) fn moved(&self, from: &Connection, place: Place) {
        let (mut known, Some(slot)) = (self.inner.route.known(), self.slot) else { return };
        // What was learned since the command was sent is newer.
        if known.owner(self.slot).is_some_and(|owner| from.inner.node.get().is_some_and(|node| node.id == owner.id)) {
            known.owners[usize::from(slot)] = 0;
            known.said.insert(slot, place);
        }
    }

    /// The primary that this connection leads to behaves like none: others are asked first.
    pub(super) fn doubt(&self, connection: &Connection) {
        connection.retire();
        let mut known = self.inner.route.known();
        known.said.retain(|_, place| place != connection.place());
        if let Some(at) = known.primaries.iter().position(|primary| primary.place == *connection.place()) {
            let doubted = at as u16 + 1;
            known.owners.iter_mut().filter(|owner| **owner == doubted).for_each(|owner| *owner = 0);
            known.nodes.retain(|node| node != connection.place());
            known.nodes.push(connection.place().clone());
        }
    }

    /// Whom to ask, the likeliest first.
    fn candidates(&self) -> Vec<Place> {
        let known = self.inner.route.known();
        let said = self.slot.and_then(|slot| known.said.get(&slot));
        let owner = known.owner(self.slot).map(|owner| &owner.place);
        let mut candidates: Vec<Place> = Vec::new();
        for place in said.into_iter().chain(owner).chain(&known.nodes).chain(&self.address().places) {
            if !candidates.contains(place) {
                candidates.push(place.clone());
            }
        }
        candidates
    }

    /// The connection leads to that node; for one slot alone where it is for blocking commands.
    fn found(&self, connection: &Connection, id: String, response_timeout: Option<Duration>) {
        let slot = self.slot.filter(|_| response_timeout.is_none());
        if connection.inner.node.set(Node { id, slot }).is_ok() {
            self.inner.route.known().opened.push(Arc::downgrade(&connection.inner));
        }
    }

    pub(super) async fn primary(&self, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        let address = self.address();
        if matches!(address.kind, Kind::Sentinel { .. }) {
            return self.first(address.places.clone(), response_timeout).await;
        }
        let mut candidates = self.candidates();
        match candidates.len() {
            1 => self.clone().ask(candidates.remove(0), response_timeout).await,
            _ => self.first(candidates, response_timeout).await,
        }
    }

    /// The first connection to the primary that asking one of `places` leads to. One that does not answer holds nobody
    /// up for long.
    async fn first(&self, places: Vec<Place>, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        let mut asked = 0;
        let mut under_way = JoinSet::new();
        let (mut refusals, mut silent) = (Vec::new(), places.clone());
        while refusals.len() < places.len() {
            // Round and round: who said the wrong thing a while ago may know better by now.
            let (connector, place) = (self.clone(), places[asked % places.len()].clone());
            under_way.spawn(async move { (place.clone(), connector.ask(place, response_timeout).await) });
            asked += 1;
            tokio::select! {
                Some(Ok((place, done))) = under_way.join_next() => match done {
                    Ok(connection) => return Ok(connection),
                    Err(refusal) => {
                        silent.retain(|other| *other != place);
                        refusals.push(refusal);
                    }
                },
                () = sleep(HEAD_START) => {}
            }
        }
        Err(self.together(refusals, &silent))
    }

    /// The refusal of all who were asked, with the reason of each.
    fn together(&self, mut refusals: Vec<Refusal>, silent: &[Place]) -> Refusal {
        // What does not pass by itself tells most; but one that is wrong must not speak for those that are away.
        refusals.sort_by_key(|refusal| refusal.temporary);
        let temporary = refusals.iter().any(|refusal| refusal.temporary);
        let mut reasons: Vec<String> = Vec::new();
        for refusal in &refusals {
            let told = refusal.error.to_string();
            let place_and_reason = told.strip_prefix(&format!("cannot reach {}: ", self.describe())).unwrap_or(&told);
            if !reasons.iter().any(|reason| reason == place_and_reason) {
                reasons.push(place_and_reason.to_owned());
            }
        }
        reasons.extend(silent.iter().map(|place| format!("no answer (at {place})")));
        let others: String = reasons.iter().skip(1).map(|reason| format!("; {reason}")).collect();
        match refusals.into_iter().next() {
            Some(first) => Refusal { error: first.error.map_message(|what| format!("{what}{others}")), temporary },
            None => self.unreachable("no server to ask"),
        }
    }

    async fn ask(self, place: Place, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        match &self.address().kind {
            Kind::Sentinel { .. } => self.ask_sentinel(&place, response_timeout).await,
            Kind::Server | Kind::Cluster => self.ask_node(&place, response_timeout).await,
        }
    }

    async fn ask_node(&self, place: &Place, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        let address = self.address();
        let node = self.enter(place, response_timeout).await?;
        if !node.server().cluster {
            return match address.kind {
                Kind::Cluster => {
                    Err(Refusal::lasting(Error::Library(format!("{place} is not a cluster node: write redis://"))))
                }
                _ => Ok(node),
            };
        }
        let Some(slot) = self.slot else { return Ok(node) };
        let view = self.view(&node).await?;
        if self.inner.route.known().owners.is_empty() {
            // Hearsay, but better than nothing: others need not wait for the node that is wanted here.
            self.inner.route.known().see(&view);
            self.inner.route.learned.notify_waiters();
        }
        let owner = view.owner(slot).ok_or_else(|| {
            Refusal::passing(format!("{}: no node of the cluster holds slot {slot} now", self.describe()))
        })?;
        let (node, view) = if owner.id == view.asked {
            (node, view)
        } else {
            let node = self.enter(&owner.place, response_timeout).await?;
            let view = self.view(&node).await?;
            (node, view)
        };
        // Its own word counts.
        if view.owner(slot).is_none_or(|owner| owner.id != view.asked) {
            let what = format!("{}: the nodes of the cluster do not agree who holds slot {slot}", self.describe());
            return Err(Refusal::passing(what));
        }
        self.inner.route.known().see(&view);
        self.found(&node, view.asked, response_timeout);
        Ok(node)
    }

    /// The shared connection to the node at `place`, where there is one that would do; else a new one.
    async fn enter(&self, place: &Place, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        if response_timeout.is_some() {
            let known = self.inner.route.known();
            let at_place = known.primaries.iter().find(|primary| primary.place == *place);
            let shared = at_place.and_then(|primary| primary.shared.as_ref());
            if let Some(connection) = shared.filter(|connection| connection.is_alive()) {
                return Ok(connection.clone());
            }
        }
        self.open(place, &self.address().login, response_timeout).await
    }

    async fn view(&self, node: &Connection) -> Result<View, Refusal> {
        View::ask(node).await.map_err(|error| refused(error, |what| format!("{}: {what}", self.describe())))
    }

    async fn ask_sentinel(&self, place: &Place, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        let address = self.address();
        let Kind::Sentinel { service, login } = &address.kind else { unreachable!("asked for by their address") };
        let sentinel = self.open(place, login, Some(self.options().response_timeout)).await?;
        let mut where_is = redis::cmd("SENTINEL");
        where_is.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let answer = sentinel.query(&where_is).await;
        let answer = answer.map_err(|error| refused(error, |what| format!("the Sentinel at {place}: {what}")))?;
        let primary = match &answer {
            Value::Array(parts) => match parts.as_slice() {
                [host, port] => text(host).zip(text(port).and_then(|port| port.parse().ok())),
                _ => None,
            },
            _ => None,
        };
        let Some((host, port)) = primary else {
            let what = format!("the Sentinel at {place} knows no service {service:?}");
            return Err(Refusal::lasting(Error::broker(what, false)));
        };
        let primary = place.at(&host, port).map_err(Refusal::lasting)?;
        let connection = self.open(&primary, &address.login, response_timeout).await?;
        if !connection.server().primary {
            let what = format!(
                "{}: {primary} was the primary of {service:?}, and a new one is being elected",
                self.describe()
            );
            return Err(Refusal::passing(what));
        }
        let id = primary.to_string();
        self.inner.route.known().leave(|node| node.id == id);
        self.found(&connection, id, response_timeout);
        Ok(connection)
    }
}

/// Nothing of the caller's has been sent yet.
fn refused(error: Error, change: impl FnOnce(&str) -> String) -> Refusal {
    let temporary = error.maybe_sent();
    let error = match error.map_message(change) {
        Error::Broker { message, .. } | Error::Script(message) => Error::broker(message, false),
        other => other,
    };
    Refusal { error, temporary }
}
