//! Outcomes of started tasks, as the records that a step carries.
//!
//! Owns: where each field of a record is, read from the protocol once. Must not know: what an outcome means.

use std::sync::LazyLock;

use crate::call::args::{Arg, Args};
use crate::lua::layout::Places;
use crate::lua::protocol::Protocol;
use crate::wire::values::number;

/// The one outcome of which Python hears no more, unless it is refused.
pub const COMPLETE: &[u8] = b"complete";
/// What goes back unstarted.
pub const RELEASE: &[u8] = b"release";

/// How a task ended, as the worker says it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    pub id: &'a [u8],
    pub token: i64,
    pub outcome: &'a [u8],
    pub run_ms: i64,
    pub value: &'a [u8],
    pub details: &'a [u8],
}

const FIELDS: usize = 6;

struct Layout {
    id: usize,
    token: usize,
    outcome: usize,
    run_ms: usize,
    /// Which part of an [`Outcome`] comes first, second …
    order: [usize; FIELDS],
}

static LAYOUT: LazyLock<Layout> =
    LazyLock::new(|| Layout::of(Protocol::get()).unwrap_or_else(|missing| panic!("{missing}")));

impl Layout {
    fn of(protocol: &Protocol) -> Result<Self, String> {
        let step = protocol.function("step").map_err(|error| error.to_string())?;
        let fields = step.tail.as_ref().ok_or("lua/protocol.json: step takes no records")?.names();
        // In the order of `Outcome`.
        let Places { at, .. } = fields.find_all(["id", "token", "outcome", "run_ms", "value", "details"])?;
        let mut order = [0; FIELDS];
        at.iter().enumerate().for_each(|(part, at)| order[*at] = part);
        let [id, token, outcome, run_ms, ..] = at;
        Ok(Self { id, token, outcome, run_ms, order })
    }
}

/// A growing list of outcomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    fields: Args,
}

/// One of them; its token as digits.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    fields: &'a Args,
    first: usize,
}

impl Outcomes {
    pub fn push(&mut self, of: &Outcome<'_>) {
        let parts = [
            Arg::Bytes(of.id),
            Arg::Int(of.token),
            Arg::Bytes(of.outcome),
            Arg::Int(of.run_ms),
            Arg::Bytes(of.value),
            Arg::Bytes(of.details),
        ];
        for part in LAYOUT.order {
            self.fields.push_arg(parts[part]);
        }
    }

    pub fn len(&self) -> usize {
        self.fields.len() / FIELDS
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All fields, as they are sent.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.fields.iter()
    }

    /// Bytes of them.
    pub fn bytes(&self) -> usize {
        self.fields.bytes()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.len()).map(|at| Record { fields: &self.fields, first: at * FIELDS })
    }

    pub fn append(&mut self, others: Self) {
        self.fields.append_all(others.fields);
    }

    /// The first ones, one at least, up to `most` and up to `bytes`.
    pub fn take_front(&mut self, most: usize, bytes: usize) -> Self {
        if self.len() <= most && self.fields.bytes() <= bytes {
            return std::mem::take(self);
        }
        let fits = |count: &usize| self.fields.bytes_of(count * FIELDS) <= bytes;
        let count = (2..=self.len().min(most)).take_while(fits).last().unwrap_or(1) * FIELDS;
        let mut front = Args::default();
        front.append_range(&self.fields, 0, count);
        self.fields.remove_front(count);
        Self { fields: front }
    }

    /// The same under other tokens.
    #[must_use]
    pub fn under(&self, token: impl Fn(Option<i64>) -> i64) -> Self {
        let mut fields = Args::with_capacity(self.fields.len(), self.fields.bytes());
        for record in self.iter() {
            for at in 0..FIELDS {
                match at == LAYOUT.token {
                    true => fields.push_int(token(number(record.token()))),
                    false => fields.push(record.field(at)),
                }
            }
        }
        Self { fields }
    }
}

impl<'a> Record<'a> {
    pub fn id(self) -> &'a [u8] {
        self.field(LAYOUT.id)
    }

    pub fn token(self) -> &'a [u8] {
        self.field(LAYOUT.token)
    }

    pub fn outcome(self) -> &'a [u8] {
        self.field(LAYOUT.outcome)
    }

    pub fn run_ms(self) -> &'a [u8] {
        self.field(LAYOUT.run_ms)
    }

    fn field(self, at: usize) -> &'a [u8] {
        self.fields.get(self.first + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::protocol::TEXT;

    fn outcomes(tokens: &[i64]) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for &token in tokens {
            let of = Outcome { id: b"t", token, outcome: COMPLETE, run_ms: 7, value: b"null", details: b"{}" };
            outcomes.push(&of);
        }
        outcomes
    }

    fn tokens(outcomes: &Outcomes) -> Vec<&[u8]> {
        outcomes.iter().map(Record::token).collect()
    }

    #[test]
    fn a_record_has_the_order_of_the_protocol() {
        let outcomes = outcomes(&[4]);
        let declared = Protocol::get().function("step").unwrap().tail.as_ref().unwrap();
        let said = |name: &str| -> &[u8] {
            match name {
                "id" => b"t",
                "token" => b"4",
                "outcome" => COMPLETE,
                "run_ms" => b"7",
                "value" => b"null",
                "details" => b"{}",
                other => panic!("{other}"),
            }
        };
        let expected: Vec<_> = declared.fields.iter().map(|field| said(&field.name)).collect();
        assert_eq!(outcomes.fields().collect::<Vec<_>>(), expected);
        let record = outcomes.iter().next().unwrap();
        assert_eq!((record.id(), record.token(), record.outcome()), (&b"t"[..], &b"4"[..], COMPLETE));
        assert_eq!(record.run_ms(), b"7");
    }

    #[test]
    fn the_front_is_as_much_as_fits() {
        let mut many = outcomes(&[1, 2, 3, 4]);
        let bytes = outcomes(&[1]).fields.bytes();
        assert_eq!(tokens(&many.take_front(9, 2 * bytes + 1)), [b"1", b"2"]);
        assert_eq!(tokens(&many.take_front(1, 1000)), [b"3"]);
        assert_eq!(tokens(&many.take_front(9, 1)), [b"4"], "one goes in any case");
        assert!(many.is_empty());
    }

    #[test]
    fn tokens_change_and_nothing_else_does() {
        let before = outcomes(&[5, 6]);
        assert_eq!(before.under(|token| token.unwrap_or(0) - 4), outcomes(&[1, 2]));
    }

    #[test]
    fn an_order_that_changes_is_followed_and_a_field_that_goes_is_named() {
        let renamed = |names: &[(&str, &str)]| {
            let quoted = |name: &str| format!(r#"{{"name": "{name}""#);
            let text = names.iter().fold(TEXT.to_owned(), |text, (from, to)| text.replace(&quoted(from), &quoted(to)));
            Layout::of(&Protocol::parse(&text).unwrap())
        };
        let swapped = renamed(&[("run_ms", "?"), ("id", "run_ms"), ("?", "id")]).ok().unwrap();
        assert_eq!((swapped.id, swapped.run_ms, swapped.order), (3, 0, [3, 1, 2, 0, 4, 5]));
        let error = renamed(&[("run_ms", "ran_ms")]).err().unwrap();
        assert!(error.contains("the records outcomes has `ran_ms`"), "{error}");
    }
}
