//! Leases that were granted to waiters and have not reached them yet. It knows no server.
//!
//! A client can be gone before its reply, and its pool can be at another key by then. So each grant notes where the pool was,
//! and whatever is moved meanwhile is noted too.

use std::os::raw::c_int;

use super::hints::ANY;
use super::queue::At;
use crate::lb::LeaseId;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Grants {
    /// How many are on their way to a client.
    open: usize,
    /// What was moved since the first of them.
    moves: Vec<Move>,
    /// Leases of clients that were gone, and where they were granted.
    to_end: Vec<(Granted, LeaseId)>,
}

/// Where a lease was granted.
#[derive(Clone, Debug)]
pub struct Granted {
    at: At,
    /// How many moves there had been.
    moves: usize,
}

/// How a pool comes to another key.
#[derive(Clone, Debug)]
pub enum Move {
    /// A key has another name, or is in another database.
    Key(At, At),
    /// The keys of two databases have changed places.
    Databases(c_int, c_int),
}

impl Grants {
    /// Something is granted to a client, from the pool at that key.
    pub fn begin(&mut self, at: &At) -> Granted {
        self.open += 1;
        Granted {
            at: at.clone(),
            moves: self.moves.len(),
        }
    }

    /// It has reached its client, or never will: then these leases are to be ended.
    pub fn end(&mut self, granted: &Granted, unreached: impl Iterator<Item = LeaseId>) {
        self.open -= 1;
        let unreached = unreached.map(|id| (granted.clone(), id));
        self.to_end.extend(unreached);
        self.forget_moves();
    }

    /// A pool has come to another key.
    pub fn moved(&mut self, moved: Move) {
        if self.open > 0 || !self.to_end.is_empty() {
            self.moves.push(moved);
        }
    }

    /// Whether any lease is to be ended.
    pub fn is_any_to_end(&self) -> bool {
        !self.to_end.is_empty()
    }

    /// Takes the leases that are to be ended, with the keys at which their pools are now.
    pub fn take_to_end(&mut self) -> Vec<(At, LeaseId)> {
        let to_end = std::mem::take(&mut self.to_end).into_iter();
        let to_end = to_end.map(|(granted, id)| (self.now_at(granted), id));
        let to_end = to_end.collect();
        self.forget_moves();
        to_end
    }

    /// Forgets the leases that are to be ended.
    pub fn forget(&mut self) {
        self.to_end.clear();
        self.forget_moves();
    }

    fn now_at(&self, Granted { mut at, moves }: Granted) -> At {
        for moved in &self.moves[moves..] {
            match moved {
                Move::Key(from, to) if from.1 == at.1 && [from.0, ANY].contains(&at.0) => {
                    at = to.clone();
                }
                Move::Databases(a, b) if *a == at.0 => at.0 = *b,
                Move::Databases(a, b) if *b == at.0 => at.0 = *a,
                Move::Key(..) | Move::Databases(..) => {}
            }
        }
        at
    }

    fn forget_moves(&mut self) {
        if self.open == 0 && self.to_end.is_empty() {
            self.moves.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(db: c_int, name: &str) -> At {
        (db, name.as_bytes().into())
    }

    fn id(number: u64) -> LeaseId {
        LeaseId { epoch: 1, number }
    }

    #[test]
    fn a_lease_is_found_wherever_its_pool_went() {
        let mut grants = Grants::default();
        grants.moved(Move::Key(at(0, "web"), at(0, "nothing was open")));
        let first = grants.begin(&at(0, "web"));
        grants.moved(Move::Key(at(0, "web"), at(0, "other")));
        let second = grants.begin(&at(0, "web"));
        grants.moved(Move::Key(at(0, "other"), at(3, "other")));
        grants.moved(Move::Databases(3, 4));
        grants.moved(Move::Key(at(1, "web"), at(1, "elsewhere")));
        grants.end(&first, [id(1)].into_iter());
        grants.end(&second, [id(2)].into_iter());
        assert!(grants.is_any_to_end());
        assert_eq!(
            grants.take_to_end(),
            [(at(4, "other"), id(1)), (at(0, "web"), id(2))]
        );
        assert!(!grants.is_any_to_end());
        assert!(grants.moves.is_empty());
    }

    #[test]
    fn a_database_that_was_not_told_may_be_any() {
        let mut grants = Grants::default();
        let granted = grants.begin(&at(0, "web"));
        grants.moved(Move::Key(at(0, "web"), at(ANY, "web")));
        grants.moved(Move::Key(at(5, "web"), at(5, "other")));
        grants.end(&granted, [id(1)].into_iter());
        assert_eq!(grants.take_to_end(), [(at(5, "other"), id(1))]);
    }

    #[test]
    fn what_reached_its_client_leaves_nothing() {
        let mut grants = Grants::default();
        let granted = grants.begin(&at(0, "web"));
        grants.moved(Move::Databases(0, 1));
        grants.end(&granted, std::iter::empty());
        assert!(grants.take_to_end().is_empty() && grants.moves.is_empty());
    }
}
