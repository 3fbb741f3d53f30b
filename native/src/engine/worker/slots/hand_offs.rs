//! Which claims came by message rather than by a step, so that none is taken twice: the step after a hand-off tells of it
//! again, because a message may be lost, and one that was only late may come after that step.
//!
//! Owns: the tokens, as the server gave them out, since the last step but one, and whose they are. Must not know: what
//! becomes of a claim.

use crate::engine::claims::Claim;

#[derive(Default)]
pub struct HandOffs {
    /// Those that a step may still tell of, each with its task.
    known: Vec<(i64, Vec<u8>)>,
    /// How many of them came before the step that is under way: no later one tells of these.
    before_step: usize,
    /// The highest token that a step told of: a message with that or a lower one is late.
    stepped: i64,
}

impl HandOffs {
    /// A step is about to be sent.
    pub fn stepping(&mut self) {
        self.before_step = self.known.len();
    }

    /// Whether a step told of a token that another task was handed over with: the server has lost that hand-off, which no
    /// step's number says, and gives its tokens out anew.
    pub fn contradict(&self, claims: &[Claim]) -> bool {
        !self.known.is_empty()
            && claims.iter().any(|claim| self.known.iter().any(|(token, id)| *token == claim.token && *id != claim.id))
    }

    /// Leaves of a step's claims those that are new, the oldest first. How many came by message while it was under way.
    pub fn stepped(&mut self, claims: &mut Vec<Claim>) -> usize {
        self.stepped = claims.iter().map(Claim::last_token).max().unwrap_or(0).max(self.stepped);
        let before_step = std::mem::take(&mut self.before_step);
        if !self.known.is_empty() {
            claims.retain(|claim| !self.knows(claim));
            self.known.drain(..before_step);
        }
        // It tells of what was handed over last.
        claims.sort_by_key(|claim| claim.token);
        self.known.len()
    }

    /// Leaves of a message's claims those that are new.
    pub fn handed_over(&mut self, claims: &mut Vec<Claim>) {
        claims.retain(|claim| claim.token > self.stepped && !self.knows(claim));
        self.known.extend(claims.iter().map(|claim| (claim.token, claim.id.clone())));
    }

    fn knows(&self, claim: &Claim) -> bool {
        self.known.iter().any(|(token, _)| *token == claim.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(tokens: &[i64]) -> Vec<Claim> {
        tokens.iter().map(|token| Claim::example(*token, "work")).collect()
    }

    fn stepped(hand_offs: &mut HandOffs, tokens: &[i64]) -> Vec<i64> {
        let mut told = claims(tokens);
        hand_offs.stepped(&mut told);
        told.iter().map(|claim| claim.token).collect()
    }

    fn handed_over(hand_offs: &mut HandOffs, tokens: &[i64]) -> Vec<i64> {
        let mut told = claims(tokens);
        hand_offs.handed_over(&mut told);
        told.iter().map(|claim| claim.token).collect()
    }

    #[test]
    fn the_step_after_a_hand_off_tells_of_it_again() {
        let mut hand_offs = HandOffs::default();
        assert_eq!(handed_over(&mut hand_offs, &[5, 6]), [5, 6]);
        hand_offs.stepping();
        assert_eq!(stepped(&mut hand_offs, &[6, 7]), [7]);
        assert!(hand_offs.known.is_empty());
    }

    #[test]
    fn a_message_that_comes_after_the_step_that_told_of_it_is_late() {
        let mut hand_offs = HandOffs::default();
        hand_offs.stepping();
        assert_eq!(stepped(&mut hand_offs, &[5, 6]), [5, 6]);
        assert_eq!(handed_over(&mut hand_offs, &[5]), Vec::<i64>::new());
        assert_eq!(handed_over(&mut hand_offs, &[7]), [7]);
    }

    #[test]
    fn a_message_that_overtakes_the_reply_is_remembered_until_the_next_step() {
        let mut hand_offs = HandOffs::default();
        hand_offs.stepping();
        assert_eq!(handed_over(&mut hand_offs, &[6]), [6]);
        assert_eq!(stepped(&mut hand_offs, &[5]), [5], "claimed before, told of later");
        hand_offs.stepping();
        assert_eq!(stepped(&mut hand_offs, &[6]), Vec::<i64>::new());
    }

    #[test]
    fn a_step_that_is_repeated_may_tell_of_it_too() {
        let mut hand_offs = HandOffs::default();
        hand_offs.stepping();
        assert_eq!(handed_over(&mut hand_offs, &[6]), [6]);
        // Its first reply was lost, the second has all that came since.
        assert_eq!(stepped(&mut hand_offs, &[5, 6]), [5]);
    }

    #[test]
    fn a_token_that_was_given_out_twice_says_that_the_server_lost_a_hand_off() {
        let mut hand_offs = HandOffs::default();
        assert_eq!(handed_over(&mut hand_offs, &[5]), [5]);
        assert!(!hand_offs.contradict(&claims(&[5, 6])));
        let other = Claim { id: b"other".into(), ..Claim::example(5, "work") };
        assert_eq!(handed_over(&mut hand_offs, &[5]), Vec::<i64>::new(), "the next step will tell");
        hand_offs.stepping();
        assert!(hand_offs.contradict(&[other]));
    }
}
