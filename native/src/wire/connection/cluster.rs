//! What a node of a cluster says of the others: who holds which slots.

use redis::Value;

use super::Connection;
use crate::wire::address::Place;
use crate::wire::error::Error;
use crate::wire::values::text;

/// Slots of a cluster.
pub const SLOTS: u16 = 16384;

/// The slot of a key: that of its tag, where it has one.
pub fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    // CRC-16/XMODEM, as the specification of the cluster says.
    let crc = hashed.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    });
    crc % SLOTS
}

/// A cluster as one of its nodes sees it.
pub struct View {
    /// The node that was asked, by the cluster's name for it.
    pub asked: String,
    pub shards: Vec<Shard>,
    /// Replicas included.
    pub nodes: Vec<Place>,
}

/// A primary and its slots.
pub struct Shard {
    pub id: String,
    pub place: Place,
    pub slots: Vec<(u16, u16)>,
}

impl View {
    /// # Errors
    /// As [`Connection::query`].
    pub async fn ask(node: &Connection) -> Result<Self, Error> {
        let (slots, id) = (redis::cmd("CLUSTER").arg("SLOTS").clone(), redis::cmd("CLUSTER").arg("MYID").clone());
        let (slots, id) = tokio::try_join!(node.query(&slots), node.query(&id))?;
        let Some(asked) = text(&id) else {
            return Err(Error::broker("it answers CLUSTER in a way no Redis or Valkey does", false));
        };
        let (shards, nodes) = read_slots(&slots, node.place());
        Ok(Self { asked, shards, nodes })
    }

    /// The primary that holds a slot.
    pub fn owner(&self, slot: u16) -> Option<&Shard> {
        self.shards.iter().find(|shard| shard.holds(slot))
    }
}

impl Shard {
    fn holds(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

/// Where `MOVED` leads.
pub struct Moved {
    pub slot: u16,
    host: String,
    port: u16,
}

impl Moved {
    pub fn read(reply: &redis::ServerError) -> Option<Self> {
        if reply.code() != "MOVED" {
            return None;
        }
        let (slot, place) = reply.details()?.split_once(' ')?;
        let (host, port) = place.rsplit_once(':')?;
        Some(Self { slot: slot.parse().ok()?, host: known(host).to_owned(), port: port.parse().ok()? })
    }

    /// # Errors
    /// As [`Place::at`].
    pub fn from(&self, connection: &Connection) -> Result<Place, Error> {
        connection.place().at(&self.host, self.port)
    }
}

/// From the answer to `CLUSTER SLOTS`: ranges, each with its primary and then replicas.
fn read_slots(answer: &Value, asked_at: &Place) -> (Vec<Shard>, Vec<Place>) {
    let (mut shards, mut nodes) = (Vec::<Shard>::new(), Vec::new());
    let Value::Array(ranges) = answer else { return (shards, nodes) };
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Int(first), Value::Int(last), members @ ..] = range.as_slice() else { continue };
        let (Ok(first), Ok(last)) = (u16::try_from(*first), u16::try_from(*last)) else { continue };
        for (index, member) in members.iter().enumerate() {
            let Some((id, place)) = read_node(member, asked_at) else { continue };
            if index == 0 {
                match shards.iter_mut().find(|shard| shard.id == id) {
                    Some(shard) => shard.slots.push((first, last)),
                    None => shards.push(Shard { id, place: place.clone(), slots: vec![(first, last)] }),
                }
            }
            if !nodes.contains(&place) {
                nodes.push(place);
            }
        }
    }
    (shards, nodes)
}

fn read_node(node: &Value, asked_at: &Place) -> Option<(String, Place)> {
    let Value::Array(node) = node else { return None };
    let [host, Value::Int(port), id, ..] = node.as_slice() else { return None };
    let host = text(host).unwrap_or_default();
    Some((text(id)?, asked_at.at(known(&host), u16::try_from(*port).ok()?).ok()?))
}

/// A node may not know by which name it is reached: it is the one that was used.
fn known(host: &str) -> &str {
    if host == "?" { "" } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64, id: &str) -> Value {
        Value::Array(vec![host, Value::Int(port), bulk(id), Value::Array(vec![])])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    #[test]
    fn a_key_has_the_slot_that_the_server_says() {
        assert_eq!((slot_of("123456789"), slot_of("foo")), (0x31c3, 12182));
        assert_eq!(slot_of("ardiq:{foo}:task:{1}"), 12182);
        assert_ne!(slot_of("{}foo"), slot_of("foo"), "an empty tag is none");
    }

    #[test]
    fn a_primary_may_hold_several_ranges() {
        let a = || node(bulk("h1"), 1, "a");
        let answer = Value::Array(vec![
            range(0, 99, vec![a(), node(bulk("h3"), 3, "c")]),
            range(100, 199, vec![node(Value::Nil, 2, "b")]),
            range(200, 16383, vec![a()]),
        ]);
        let here = Place::Tcp { host: "here".to_owned(), port: 9 };
        let (shards, nodes) = read_slots(&answer, &here);
        let of = |slot| shards.iter().find(|shard| shard.holds(slot)).map(|shard| shard.place.to_string());
        assert_eq!(of(50).as_deref(), Some("h1:1"));
        assert_eq!(of(150).as_deref(), Some("here:2"), "a node that knows no name of its own");
        assert_eq!(of(16383).as_deref(), Some("h1:1"));
        assert_eq!(shards.len(), 2);
        assert_eq!(nodes.iter().map(Place::to_string).collect::<Vec<_>>(), ["h1:1", "h3:3", "here:2"]);
        assert!(read_slots(&Value::Nil, &here).0.is_empty());
    }
}
