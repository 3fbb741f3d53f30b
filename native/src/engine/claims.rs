//! The reply to a step as values: claims, and what became of outcomes.
//!
//! Owns: where each field of it is, read from the protocol once. Must not know: what is done with them.

use std::sync::LazyLock;
use std::time::Instant;

use redis::Value;

use crate::lua::layout::Places;
use crate::lua::protocol::Protocol;
use crate::wire::error::Error;
use crate::wire::values::{bytes, integer};

/// A task handed to this worker, with the token that proves it.
#[derive(Debug)]
pub struct Claim {
    pub id: Vec<u8>,
    /// As the server gave it out; from `Slots` on as this process knows the attempt.
    pub token: i64,
    pub name: Vec<u8>,
    pub args: Vec<u8>,
    pub kwargs: Vec<u8>,
    pub codec: Vec<u8>,
    pub headers: Vec<u8>,
    pub lane: Vec<u8>,
    pub tries: i64,
    pub enqueued_at: i64,
    pub received: Instant,
    /// What one execution takes together with it. They have none themselves.
    pub others: Vec<Self>,
}

impl Claim {
    /// It, and what one execution takes together with it.
    pub fn batch(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.others)
    }

    /// With other tokens: so much above those of now.
    pub fn shifted(mut self, by: i64) -> Self {
        self.token = self.token.saturating_add(by);
        for other in &mut self.others {
            other.token = other.token.saturating_add(by);
        }
        self
    }

    pub fn last_token(&self) -> i64 {
        self.others.last().map_or(self.token, |other| other.token)
    }
}

#[cfg(test)]
impl Claim {
    /// The first attempt of a task of that name, in the lane `default`.
    pub fn example(token: i64, name: &str) -> Self {
        Self {
            id: format!("t{token}").into_bytes(),
            token,
            name: name.into(),
            args: b"[]".into(),
            kwargs: Vec::new(),
            codec: Vec::new(),
            headers: Vec::new(),
            lane: b"default".into(),
            tries: 1,
            enqueued_at: 0,
            received: Instant::now(),
            others: Vec::new(),
        }
    }

    /// The first of a batch of so many, with consecutive tokens.
    pub fn example_batch(token: i64, name: &str, size: i64) -> Self {
        let others = (1..size).map(|after| Self::example(token + after, name)).collect();
        Self { others, ..Self::example(token, name) }
    }
}

/// An outcome that was refused, or became something else than was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub id: Vec<u8>,
    /// Empty where it is about no outcome: something that could not be moved.
    pub token: Vec<u8>,
    /// Why, or the state it got into.
    pub what: Vec<u8>,
}

#[derive(Debug)]
pub struct Reply {
    /// Ready work was left behind.
    pub more: bool,
    /// When to step again because a task falls due; negative: no need.
    pub wait_ms: i64,
    pub answers: Vec<Answer>,
    pub claims: Vec<Claim>,
}

/// In the order in which [`Reply::parse`] reads them.
struct Layout {
    header: Places<3>,
    answer: Places<3>,
    claim: Places<10>,
}

static LAYOUT: LazyLock<Layout> =
    LazyLock::new(|| Layout::of(Protocol::get()).unwrap_or_else(|missing| panic!("{missing}")));

impl Layout {
    fn of(protocol: &Protocol) -> Result<Self, String> {
        let reply = &protocol.function("step").map_err(|error| error.to_string())?.reply;
        let claim = ["id", "token", "name", "args", "kwargs", "codec", "headers", "lane", "tries", "enqueued_at"];
        Ok(Self {
            header: reply.header.find(["more", "wait_ms", "refused"])?,
            answer: reply.refusal.find(["id", "token", "reason"])?,
            claim: reply.record.find(claim)?,
        })
    }
}

impl Reply {
    /// # Errors
    /// [`Error::Script`] when it is not laid out as the protocol says.
    pub fn parse(value: Value, received: Instant) -> Result<Self, Error> {
        let read = if let Value::Array(mut values) = value { Self::read(&mut values, received) } else { None };
        read.ok_or_else(|| Error::Script("step: the reply does not match the protocol".to_owned()))
    }

    fn read(values: &mut [Value], received: Instant) -> Option<Self> {
        let layout = &*LAYOUT;
        let (header, rest) = values.split_at_mut_checked(layout.header.width)?;
        let [more, wait_ms, refused] = layout.header.at.map(|at| integer(&header[at]));
        let refused = usize::try_from(refused?).ok()?.checked_mul(layout.answer.width)?;
        let (refused, claimed) = rest.split_at_mut_checked(refused)?;
        if !claimed.len().is_multiple_of(layout.claim.width) {
            return None;
        }
        let mut answers = Vec::new();
        for fields in refused.chunks_exact_mut(layout.answer.width) {
            answers.push(Answer::read(fields, layout)?);
        }
        let mut claims: Vec<Claim> = Vec::with_capacity(claimed.len() / layout.claim.width);
        for fields in claimed.chunks_exact_mut(layout.claim.width) {
            let follows = is_marked(&fields[layout.claim.at[1]]);
            let claim = Claim::read(fields, layout, received)?;
            match claims.last_mut() {
                Some(first) if follows && first.name == claim.name => first.others.push(claim),
                _ => claims.push(claim),
            }
        }
        Some(Self { more: more? != 0, wait_ms: wait_ms?, answers, claims })
    }

    /// Bytes of the payloads it carried.
    pub fn bytes(&self) -> usize {
        let claims = self.claims.iter().flat_map(Claim::batch);
        claims.map(|claim| claim.args.len() + claim.kwargs.len() + claim.headers.len()).sum()
    }
}

/// What was claimed for this worker while it had nothing to do, as the fields of a message have it.
pub fn handed_over(fields: Vec<Vec<u8>>, received: Instant) -> Option<Vec<Claim>> {
    let mut fields: Vec<Value> = fields.into_iter().map(Value::BulkString).collect();
    if !fields.len().is_multiple_of(LAYOUT.claim.width) {
        return None;
    }
    fields.chunks_exact_mut(LAYOUT.claim.width).map(|fields| Claim::read(fields, &LAYOUT, received)).collect()
}

impl Answer {
    fn read(fields: &mut [Value], layout: &Layout) -> Option<Self> {
        let [id, token, what] = layout.answer.at;
        Some(Self { id: take(fields, id)?, token: take(fields, token)?, what: take(fields, what)? })
    }
}

impl Claim {
    fn read(fields: &mut [Value], layout: &Layout, received: Instant) -> Option<Self> {
        let [id, token, name, args, kwargs, codec, headers, lane, tries, enqueued_at] = layout.claim.at;
        Some(Self {
            id: take(fields, id)?,
            token: integer(&fields[token])?,
            name: take(fields, name)?,
            args: take(fields, args)?,
            kwargs: take(fields, kwargs)?,
            codec: take(fields, codec)?,
            headers: take(fields, headers)?,
            lane: take(fields, lane)?,
            tries: integer_by_hand(&fields[tries])?,
            enqueued_at: integer_by_hand(&fields[enqueued_at])?,
            received,
            others: Vec::new(),
        })
    }
}

fn take(fields: &mut [Value], at: usize) -> Option<Vec<u8>> {
    bytes(std::mem::replace(&mut fields[at], Value::Nil))
}

/// Whether a token says that its claim belongs to the batch of the claim before it.
fn is_marked(token: &Value) -> bool {
    matches!(token, Value::BulkString(text) if text.first() == Some(&b'+'))
}

/// A number that stands in the record, where somebody may have written something else: 0 then.
fn integer_by_hand(value: &Value) -> Option<i64> {
    match value {
        Value::BulkString(_) => Some(integer(value).unwrap_or(0)),
        value => integer(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::protocol::TEXT;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn parse(values: Vec<Value>) -> Result<Reply, Error> {
        Reply::parse(Value::Array(values), Instant::now())
    }

    #[test]
    fn header_answers_and_claims() {
        let mut values = vec![Value::Int(1), Value::Int(-1), Value::Int(1)];
        values.extend([text("t0"), text("4"), text("stale")]);
        values.extend([text("t1"), Value::Int(7), text("add"), text("[1]"), text(""), text(""), text("{}")]);
        values.extend([text("default"), Value::Int(2), text("1700000000000")]);
        let reply = parse(values).unwrap();
        assert!(reply.more);
        assert_eq!(reply.wait_ms, -1);
        assert_eq!(reply.answers, [Answer { id: b"t0".into(), token: b"4".into(), what: b"stale".into() }]);
        let claim = &reply.claims[0];
        assert_eq!((claim.id.as_slice(), claim.token, claim.tries), (&b"t1"[..], 7, 2));
        assert_eq!(claim.enqueued_at, 1_700_000_000_000);
        assert_eq!(reply.bytes(), 5);
    }

    #[test]
    fn a_claim_with_a_plus_belongs_to_the_one_before() {
        let mut values = vec![Value::Int(0), Value::Int(-1), Value::Int(0)];
        for (token, name) in [("7", "load"), ("+8", "load"), ("+9", "load"), ("10", "load"), ("+11", "other")] {
            values.extend([text("t"), text(token), text(name), text("[1]"), text(""), text(""), text("")]);
            values.extend([text("default"), text("1"), text("0")]);
        }
        let reply = parse(values).unwrap();
        let tokens: Vec<Vec<i64>> =
            reply.claims.iter().map(|claim| claim.batch().map(|one| one.token).collect()).collect();
        assert_eq!(tokens, [vec![7, 8, 9], vec![10], vec![11]], "one of another name cannot belong to it");
        assert_eq!(reply.bytes(), 15);
    }

    #[test]
    fn a_reply_of_another_shape_is_an_error() {
        assert!(parse(vec![Value::Int(0), Value::Int(0)]).is_err());
        assert!(parse(vec![Value::Int(0), Value::Int(0), Value::Int(1)]).is_err());
        assert!(parse(vec![Value::Int(0), Value::Int(0), Value::Int(0), text("t1")]).is_err());
        assert!(Reply::parse(Value::Nil, Instant::now()).is_err());
    }

    #[test]
    fn fields_are_where_the_protocol_has_them() {
        let changed = |from: &str, to: &str| {
            let text = TEXT.replacen(from, to, 1);
            Layout::of(&Protocol::parse(&text).unwrap())
        };
        let moved = changed(
            r#""header": ["more", "wait_ms", "refused"]"#,
            r#""header": ["new", "refused", "more", "wait_ms"]"#,
        );
        assert_eq!(moved.ok().unwrap().header, Places { width: 4, at: [2, 3, 1] });
        let missing =
            changed(r#""refusal": ["id", "token", "reason"]"#, r#""refusal": ["id", "token"]"#).err().unwrap();
        assert!(missing.contains("the refusal of the reply of step lacks `reason`"), "{missing}");
    }
}
