//! The algorithms: one file each, one line each in the table.

mod lc;
mod p2c;
mod random;
mod rr;
mod wrandom;
mod wrr;

use super::Slot;
use super::pool::Pool;

pub(super) use lc::Least;
pub(super) use rr::Cursor;
pub(super) use wrr::{CREDIT_MAX, Race};

/// What an algorithm is to the rest of the house.
trait Pick {
    /// The user's word for it.
    const NAME: &'static str;
    /// What stands for it in a saved pool. Never reused.
    const CODE: u8;
    /// How its picks can be known beforehand.
    const FORESIGHT: Foresight;

    /// Chooses an eligible backend, of which there is one at least, and moves the algorithm's own cursor, and
    /// nothing else of the pool.
    fn pick(pool: &mut Pool) -> Slot;
}

/// How the next picks of an algorithm can be known without making them.
#[derive(Clone, Copy)]
pub(super) enum Foresight {
    /// By making them and then taking them back, from the last to the first.
    TakeBack {
        /// Picks, and tells what taking that back will need; or answers nothing where it could not be taken back.
        pick: fn(&mut Pool) -> Option<(Slot, Before)>,
        /// Takes back the pick of that slot, which was the latest.
        take_back: fn(&mut Pool, Slot, Before),
    },
    /// Not at all: chance decides.
    None,
}

/// What a pick has overwritten, as its algorithm wants to be told.
pub(super) type Before = u64;

/// A way to choose backends: a line of the table.
#[derive(Clone, Copy)]
pub struct Algorithm(&'static Line);

struct Line {
    name: &'static str,
    code: u8,
    foresight: Foresight,
    pick: fn(&mut Pool) -> Slot,
}

impl Line {
    const fn of<P: Pick>() -> Line {
        Line {
            name: P::NAME,
            code: P::CODE,
            foresight: P::FORESIGHT,
            pick: P::pick,
        }
    }
}

/// Every algorithm there is, in the order in which they are listed to users.
pub const ALGORITHMS: [Algorithm; 6] = [
    Algorithm(&const { Line::of::<rr::RoundRobin>() }),
    Algorithm::WRR,
    Algorithm(&const { Line::of::<random::Random>() }),
    Algorithm(&const { Line::of::<wrandom::WeightedRandom>() }),
    Algorithm(&const { Line::of::<lc::LeastConnections>() }),
    Algorithm(&const { Line::of::<p2c::PowerOfTwoChoices>() }),
];

impl Algorithm {
    /// The policy of a new pool.
    pub const WRR: Algorithm = Algorithm(&const { Line::of::<wrr::WeightedRoundRobin>() });

    /// The algorithm of that name, upper or lower case.
    #[inline]
    pub fn by_name(name: &[u8]) -> Option<Algorithm> {
        (ALGORITHMS.iter())
            .find(|a| a.name().as_bytes().eq_ignore_ascii_case(name))
            .copied()
    }

    pub(super) fn by_code(code: u8) -> Option<Algorithm> {
        ALGORITHMS.into_iter().find(|a| a.code() == code)
    }

    /// The user's word for it.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    pub(super) fn code(self) -> u8 {
        self.0.code
    }

    /// Whether it draws from the pool's generator, so that its picks cannot be foreseen.
    pub const fn is_by_chance(self) -> bool {
        matches!(self.0.foresight, Foresight::None)
    }

    pub(super) fn foresight(self) -> Foresight {
        self.0.foresight
    }

    #[inline(always)]
    pub(super) fn pick(self, pool: &mut Pool) -> Slot {
        (self.0.pick)(pool)
    }
}

impl PartialEq for Algorithm {
    fn eq(&self, other: &Algorithm) -> bool {
        self.0.code == other.0.code
    }
}

impl std::fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_unique_and_found() {
        for (i, a) in ALGORITHMS.iter().enumerate() {
            assert_eq!(
                Algorithm::by_name(a.name().to_uppercase().as_bytes()),
                Some(*a)
            );
            assert_eq!(Algorithm::by_code(a.code()), Some(*a));
            assert!(
                ALGORITHMS[..i]
                    .iter()
                    .all(|b| b.name() != a.name() && b.code() != a.code())
            );
        }
        assert!(Algorithm::by_name(b"wrr ").is_none());
    }
}
