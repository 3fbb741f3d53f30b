//! Which of several servers is the primary: the one of a cluster that holds a key, or the one that Sentinels name.
//! Asks anew for each connection; closes those to a server that is not the primary any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::cluster::View;
use super::{Connection, Connector, Node, Opened, Refusal};
use crate::address::{Kind, Place};
use crate::error::Error;
use crate::schema::text;

/// How long a server that is asked has before another is asked, too.
const HEAD_START: Duration = Duration::from_millis(400);
/// How long answers under way may take to come from a server that is not the primary any more.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// What was learned on the way to the primary.
pub struct Route {
    /// Of a cluster: the node is wanted that holds this key. Without one any node will do.
    key: Option<String>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Where the primary was last, or is said to be now.
    primary: Option<Place>,
    /// The nodes of the cluster.
    nodes: Vec<Place>,
    opened: Vec<Weak<Opened>>,
}

impl Route {
    pub fn new(key: Option<String>) -> Self {
        Self { key, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to ask, the likeliest first.
    fn candidates(&self, places: &[Place]) -> Vec<Place> {
        let known = self.known();
        let mut candidates: Vec<Place> = Vec::new();
        for place in known.primary.iter().chain(&known.nodes).chain(places) {
            if !candidates.contains(place) {
                candidates.push(place.clone());
            }
        }
        candidates
    }

    /// The primary was found; whoever is connected to the one before must go there, too.
    fn found(&self, connection: &Connection, id: String, slot: Option<i64>) {
        let mut known = self.known();
        known.primary = Some(connection.place().clone());
        let opened = std::mem::take(&mut known.opened);
        for other in opened.into_iter().filter_map(|other| other.upgrade()) {
            if other.node.get().is_some_and(|node| node.id != id) {
                other.wire.retire();
                tokio::spawn(async move {
                    sleep(LAST_ANSWERS).await;
                    other.wire.close();
                });
            } else {
                known.opened.push(Arc::downgrade(&other));
            }
        }
        known.opened.push(Arc::downgrade(&connection.inner));
        let _ = connection.inner.node.set(Node { id, slot });
    }
}

impl Connector {
    /// The server at `place` is said to be the primary now.
    pub fn expect(&self, place: Place) {
        self.inner.route.known().primary = Some(place);
    }

    /// The primary behaves like none: others are asked first.
    pub fn doubt(&self) {
        let mut known = self.inner.route.known();
        if let Some(place) = known.primary.take() {
            known.nodes.retain(|node| *node != place);
            known.nodes.push(place);
        }
    }

    pub(super) async fn primary(&self, response_timeout: Option<Duration>) -> Result<Connection, Refusal> {
        let address = self.address();
        if matches!(address.kind, Kind::Sentinel { .. }) {
            return self.first(address.places.clone(), response_timeout).await;
        }
        let mut candidates = self.inner.route.candidates(&address.places);
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
        let node = self.open(place, &address.login, response_timeout).await?;
        if !node.server().cluster {
            return match address.kind {
                Kind::Cluster => {
                    Err(Refusal::lasting(Error::Library(format!("{place} is no node of a cluster: write redis://"))))
                }
                _ => Ok(node),
            };
        }
        let Some(key) = &self.inner.route.key else { return Ok(node) };
        let view = self.view(&node, key).await?;
        let owner = view.owner().ok_or_else(|| {
            Refusal::passing(format!("{}: no node of the cluster holds slot {} now", self.describe(), view.slot))
        })?;
        let (node, view) = if owner.id == view.asked {
            (node, view)
        } else {
            let node = self.open(&owner.place, &address.login, response_timeout).await?;
            let view = self.view(&node, key).await?;
            (node, view)
        };
        // Its own word counts.
        if view.owner().is_none_or(|owner| owner.id != view.asked) {
            let what =
                format!("{}: the nodes of the cluster do not agree who holds slot {}", self.describe(), view.slot);
            return Err(Refusal::passing(what));
        }
        self.inner.route.known().nodes.clone_from(&view.nodes);
        self.inner.route.found(&node, view.asked, Some(view.slot));
        Ok(node)
    }

    async fn view(&self, node: &Connection, key: &str) -> Result<View, Refusal> {
        View::ask(node, key).await.map_err(|error| refused(error, |what| format!("{}: {what}", self.describe())))
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
            let what =
                format!("{}: {primary} was the primary of {service:?}, and a new one is being made", self.describe());
            return Err(Refusal::passing(what));
        }
        self.inner.route.found(&connection, primary.to_string(), None);
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
