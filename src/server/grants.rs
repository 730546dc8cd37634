//! Leases that were granted to waiting clients and have not reached them yet. This file knows no server.
//!
//! A client can disconnect before its reply. Its leases must then be ended, and by that time the pool may be at another key.
//! So each grant notes the key of its pool, and every move of a key is noted while a grant is open.

use std::os::raw::c_int;

use super::hints::ANY;
use super::queue::At;
use crate::lb::LeaseId;

/// The grants that are open, and the leases that must be ended. See the head of the file.
#[derive(Debug, Default)]
pub struct Grants {
    /// The number of grants that are on their way to a client.
    open: usize,
    /// The moves since the first of these grants.
    moves: Vec<Move>,
    /// The leases of clients that were gone, with the place where each was granted.
    to_end: Vec<(Granted, LeaseId)>,
}

/// The key at which a lease was granted, and the moment.
#[derive(Clone, Debug)]
pub struct Granted {
    at: At,
    /// The number of moves before the grant.
    moves: usize,
}

/// A way for a pool to come to another key.
#[derive(Clone, Debug)]
pub enum Move {
    /// A key was renamed, or moved to another database.
    Key(At, At),
    /// The keys of two databases have changed places.
    Databases(c_int, c_int),
}

impl Grants {
    /// Opens a grant to a client, from the pool at key `at`.
    pub fn begin(&mut self, at: &At) -> Granted {
        self.open += 1;
        Granted {
            at: at.clone(),
            moves: self.moves.len(),
        }
    }

    /// Closes a grant: it has reached its client, or the leases `unreached` never will and must be ended.
    pub fn end(&mut self, granted: &Granted, unreached: impl Iterator<Item = LeaseId>) {
        self.open -= 1;
        let unreached = unreached.map(|id| (granted.clone(), id));
        self.to_end.extend(unreached);
        self.forget_moves();
    }

    /// Notes that a pool has come to another key.
    pub fn moved(&mut self, moved: Move) {
        if self.open > 0 || !self.to_end.is_empty() {
            self.moves.push(moved);
        }
    }

    /// Whether any lease must be ended.
    pub fn is_any_to_end(&self) -> bool {
        !self.to_end.is_empty()
    }

    /// Takes the leases that must be ended, each with the present key of its pool.
    pub fn take_to_end(&mut self) -> Vec<(At, LeaseId)> {
        let to_end = std::mem::take(&mut self.to_end).into_iter();
        let to_end = to_end.map(|(granted, id)| (self.now_at(granted), id));
        let to_end = to_end.collect();
        self.forget_moves();
        to_end
    }

    /// Forgets the leases that had to be ended.
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
    fn an_unknown_database_may_be_any() {
        let mut grants = Grants::default();
        let granted = grants.begin(&at(0, "web"));
        grants.moved(Move::Key(at(0, "web"), at(ANY, "web")));
        grants.moved(Move::Key(at(5, "web"), at(5, "other")));
        grants.end(&granted, [id(1)].into_iter());
        assert_eq!(grants.take_to_end(), [(at(5, "other"), id(1))]);
    }

    #[test]
    fn a_grant_that_reached_its_client_leaves_nothing() {
        let mut grants = Grants::default();
        let granted = grants.begin(&at(0, "web"));
        grants.moved(Move::Databases(0, 1));
        grants.end(&granted, std::iter::empty());
        assert!(grants.take_to_end().is_empty() && grants.moves.is_empty());
    }
}
