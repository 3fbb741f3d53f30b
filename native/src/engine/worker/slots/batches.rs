//! Which of the tasks that were started are one execution: they take one slot, until the last of them is settled.

use std::collections::HashMap;

use crate::engine::claims::Claim;
use crate::engine::outcomes::Outcomes;
use crate::wire::values::number;

#[derive(Default)]
pub(super) struct Batches {
    /// The first token of the batch that a token belongs to.
    first: HashMap<i64, i64>,
    /// By its first token, how many of a batch are not settled.
    open: HashMap<i64, usize>,
}

impl Batches {
    pub fn started(&mut self, claim: &Claim) {
        if claim.others.is_empty() {
            return;
        }
        self.first.extend(claim.batch().map(|one| (one.token, claim.token)));
        self.open.insert(claim.token, 1 + claim.others.len());
    }

    /// How many slots are free by these outcomes.
    pub fn settled(&mut self, outcomes: &Outcomes) -> usize {
        if self.first.is_empty() {
            return outcomes.len();
        }
        outcomes.iter().filter(|record| number(record.token()).is_none_or(|token| self.frees(token))).count()
    }

    fn frees(&mut self, token: i64) -> bool {
        let Some(first) = self.first.remove(&token) else { return true };
        let Some(open) = self.open.get_mut(&first) else { return true };
        *open -= 1;
        let is_last = *open == 0;
        if is_last {
            self.open.remove(&first);
        }
        is_last
    }
}
