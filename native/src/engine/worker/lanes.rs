//! The lanes a worker claims from, and how much of each it may still take.
//!
//! Owns: the count of what is held or runs of each lane that has a limit; the lanes as functions take them.
//! Must not know: which lane goes first; the library decides that.

use std::collections::HashMap;
use std::fmt::Write;

use crate::engine::claims::Claim;

/// A lane as the worker was told of it.
#[derive(Clone, Debug)]
pub struct Lane {
    pub name: String,
    /// Its share of the claims; for all lanes or for none.
    pub weight: Option<u32>,
    /// Tasks of it that this worker holds and runs at most.
    pub limit: Option<usize>,
}

impl From<&str> for Lane {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), weight: None, limit: None }
    }
}

pub struct Lanes {
    lanes: Vec<Lane>,
    /// What is held or runs of each, where it is limited.
    held: Vec<usize>,
    /// The lane of each such task, by its token.
    of_token: HashMap<i64, usize>,
    is_limited: bool,
}

impl Lanes {
    /// `lanes`: highest priority first.
    pub fn new(lanes: Vec<Lane>) -> Self {
        let is_limited = lanes.iter().any(|lane| lane.limit.is_some());
        Self { held: vec![0; lanes.len()], of_token: HashMap::new(), is_limited, lanes }
    }

    pub fn is_limited(&self) -> bool {
        self.is_limited
    }

    pub fn claimed(&mut self, claim: &Claim) {
        if !self.is_limited {
            return;
        }
        let at = self.lanes.iter().position(|lane| lane.limit.is_some() && lane.name.as_bytes() == claim.lane);
        if let Some(at) = at {
            self.held[at] += 1;
            self.of_token.insert(claim.token, at);
        }
    }

    /// Whether the lane of a claim is not at its limit.
    pub fn has_room(&self, claim: &Claim) -> bool {
        let mut rooms = self.lanes.iter().zip(self.rooms());
        !self.is_limited || !rooms.any(|(lane, room)| room == Some(0) && lane.name.as_bytes() == claim.lane)
    }

    /// A task is neither held nor run here any more.
    pub fn gone(&mut self, token: i64) {
        if let Some(at) = self.of_token.remove(&token) {
            self.held[at] -= 1;
        }
    }

    /// How many more tasks may be claimed at all; nothing where some lane has no limit.
    pub fn room(&self) -> Option<usize> {
        self.rooms().sum()
    }

    /// Whether more may be claimed of each lane.
    pub fn open(&self) -> impl Iterator<Item = bool> {
        self.rooms().map(|room| room != Some(0))
    }

    fn rooms(&self) -> impl Iterator<Item = Option<usize>> {
        self.lanes.iter().zip(&self.held).map(|(lane, held)| lane.limit.map(|limit| limit.saturating_sub(*held)))
    }

    /// The JSON array that functions take, as of now.
    pub fn to_json(&self) -> String {
        let mut json = "[".to_owned();
        for (lane, room) in self.lanes.iter().zip(self.rooms()) {
            let name = serde_json::Value::from(lane.name.as_str());
            let comma = if json.len() > 1 { "," } else { "" };
            if lane.weight.is_none() && room.is_none() {
                let _ = write!(json, "{comma}{name}");
                continue;
            }
            let _ = write!(json, "{comma}{{\"lane\":{name}");
            if let Some(weight) = lane.weight {
                let _ = write!(json, ",\"weight\":{weight}");
            }
            if let Some(room) = room {
                let _ = write!(json, ",\"limit\":{room}");
            }
            json.push('}');
        }
        json + "]"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(token: i64, lane: &str) -> Claim {
        Claim { lane: lane.into(), ..Claim::example(token, "work") }
    }

    #[test]
    fn lanes_without_more_to_say_are_names() {
        let lanes = Lanes::new(vec!["high".into(), "\"low\"".into()]);
        assert_eq!(lanes.to_json(), r#"["high","\"low\""]"#);
        assert_eq!((lanes.is_limited(), lanes.room()), (false, None));
    }

    #[test]
    fn what_is_held_counts_against_the_limit_of_its_lane() {
        let lane = |name: &str, limit| Lane { name: name.to_owned(), weight: Some(2), limit };
        let mut lanes = Lanes::new(vec![lane("high", None), lane("low", Some(1))]);
        lanes.claimed(&claim(1, "high"));
        lanes.claimed(&claim(2, "low"));
        assert_eq!(lanes.open().collect::<Vec<_>>(), [true, false]);
        assert_eq!(lanes.to_json(), r#"[{"lane":"high","weight":2},{"lane":"low","weight":2,"limit":0}]"#);
        assert_eq!(lanes.room(), None);
        for token in [1, 2, 2] {
            lanes.gone(token);
        }
        assert_eq!(lanes.open().collect::<Vec<_>>(), [true, true]);
    }

    #[test]
    fn the_room_of_all_lanes_is_known_where_all_have_limits() {
        let lane = |name: &str, limit| Lane { name: name.to_owned(), weight: None, limit: Some(limit) };
        let mut lanes = Lanes::new(vec![lane("high", 2), lane("low", 1)]);
        assert_eq!(lanes.room(), Some(3));
        lanes.claimed(&claim(1, "low"));
        assert_eq!(lanes.room(), Some(2));
    }
}
