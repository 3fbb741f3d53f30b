//! The reply to a step as values.
//!
//! Owns: the order of its fields. Must not know: what is done with them.

use std::time::Instant;

use redis::Value;

use crate::wire::error::Error;

/// Fields of a claim in a reply.
const CLAIM_FIELDS: usize = 10;

/// A task handed to this worker, with the token that proves it.
#[derive(Debug)]
pub struct Claim {
    pub id: Vec<u8>,
    /// As the server gave it out; from [`Slots`](super::slots::Slots) on as this process knows the attempt.
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
        }
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

impl Reply {
    /// # Errors
    /// [`Error::Script`] when it is not laid out as the protocol says.
    pub fn parse(value: Value, received: Instant) -> Result<Self, Error> {
        let malformed = || Error::Script("step: the reply is not laid out as the protocol says".to_owned());
        let Value::Array(values) = value else { return Err(malformed()) };
        let mut fields = Fields(values.into_iter());
        let mut parse = || {
            let (more, wait_ms) = (fields.int()? != 0, fields.int()?);
            let count = usize::try_from(fields.int()?).ok()?;
            let mut answers = Vec::new();
            for _ in 0..count {
                answers.push(Answer { id: fields.bytes()?, token: fields.bytes()?, what: fields.bytes()? });
            }
            let rest = fields.0.len();
            if !rest.is_multiple_of(CLAIM_FIELDS) {
                return None;
            }
            let mut claims = Vec::with_capacity(rest / CLAIM_FIELDS);
            for _ in 0..rest / CLAIM_FIELDS {
                claims.push(fields.claim(received)?);
            }
            Some(Self { more, wait_ms, answers, claims })
        };
        parse().ok_or_else(malformed)
    }

    /// Bytes of the payloads it carried.
    pub fn bytes(&self) -> usize {
        self.claims.iter().map(|claim| claim.args.len() + claim.kwargs.len() + claim.headers.len()).sum()
    }
}

struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.into_bytes()),
            Value::Int(number) => Some(number.to_string().into_bytes()),
            _ => None,
        }
    }

    fn int(&mut self) -> Option<i64> {
        match self.0.next()? {
            Value::Int(number) => Some(number),
            Value::BulkString(digits) => std::str::from_utf8(&digits).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// A number that stands in the record, where somebody may have written something else: 0 then.
    fn int_by_hand(&mut self) -> Option<i64> {
        Some(match self.0.next()? {
            Value::Int(number) => number,
            Value::BulkString(digits) => {
                std::str::from_utf8(&digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
            }
            _ => return None,
        })
    }

    fn claim(&mut self, received: Instant) -> Option<Claim> {
        Some(Claim {
            id: self.bytes()?,
            token: self.int()?,
            name: self.bytes()?,
            args: self.bytes()?,
            kwargs: self.bytes()?,
            codec: self.bytes()?,
            headers: self.bytes()?,
            lane: self.bytes()?,
            tries: self.int_by_hand()?,
            enqueued_at: self.int_by_hand()?,
            received,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_reply_of_another_shape_is_an_error() {
        assert!(parse(vec![Value::Int(0), Value::Int(0)]).is_err());
        assert!(parse(vec![Value::Int(0), Value::Int(0), Value::Int(1)]).is_err());
        assert!(parse(vec![Value::Int(0), Value::Int(0), Value::Int(0), text("t1")]).is_err());
        assert!(Reply::parse(Value::Nil, Instant::now()).is_err());
    }
}
