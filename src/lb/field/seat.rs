//! A backend as the algorithms see it.

use std::cell::Cell;

use crate::lb::ground::row::Vacant;

/// The settings of the operator for a backend, the weight that it takes part with for now, and its credit.
///
/// A seat has 16 bytes, so that eight neighbours lie in two cache lines.
#[derive(Clone, Debug)]
pub struct Seat {
    credit: Cell<i64>,
    running: Running,
    pub weight: u16,
    pub state: State,
}

/// Whether an operator lets a backend be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In service.
    Up,
    /// It is not picked any more. Its leases run on.
    Drain,
    /// It is not picked any more. Its leases are over.
    Down,
}

impl State {
    /// All states with their names. A state's place is its code in saved pools.
    pub const ALL: [(State, &'static str); 3] = [
        (State::Up, "up"),
        (State::Drain, "drain"),
        (State::Down, "down"),
    ];

    /// The word for it in commands and replies.
    pub fn name(self) -> &'static str {
        State::ALL[self as usize].1
    }

    /// The state of that name, upper or lower case.
    pub fn by_name(name: &[u8]) -> Option<State> {
        let mut all = State::ALL.iter();
        all.find(|(_, n)| n.as_bytes().eq_ignore_ascii_case(name))
            .map(|&(state, _)| state)
    }
}

/// A tier in the highest eight bits, and the running weight in the others: so one comparison tells whether a backend takes part in
/// the running of a tier.
///
/// The running weight is a fixed-point number. No pool uses fractions yet, so its unit is 1 and it has 16 bits. The eight bits
/// above them are room for a pool that counts in units of 1/256: there all running weights and credits are 256 times as large, and
/// every sequence stays the same. The sums in `pick` hold with 24 bits too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running(u32);

const WEIGHT_BITS: u32 = 24;
const WEIGHTS: u32 = (1 << WEIGHT_BITS) - 1;

impl Running {
    const fn of(weight: u32, tier: u8) -> Running {
        debug_assert!(weight <= WEIGHTS);
        Running((tier as u32) << WEIGHT_BITS | weight)
    }
}

impl Seat {
    /// The seat of a newcomer, which does not take part yet.
    pub const fn new(weight: u16) -> Seat {
        Seat {
            credit: Cell::new(0),
            running: Running::of(0, 0),
            weight,
            state: State::Up,
        }
    }

    /// Its tier: the backends of the lowest tier that has an eligible one serve.
    #[inline(always)]
    pub fn tier(&self) -> u8 {
        (self.running.0 >> WEIGHT_BITS) as u8
    }

    /// Its weight where it is up, else 0.
    pub fn weight_if_up(&self) -> u16 {
        match self.state {
            State::Up => self.weight,
            State::Drain | State::Down => 0,
        }
    }

    /// The weight that it takes part with, 0 = not at all.
    #[inline(always)]
    pub fn running_weight(&self) -> u32 {
        self.running.0 & WEIGHTS
    }

    /// The weight that it takes part with, if it does so in that tier.
    #[inline(always)]
    pub fn running_in(&self, tier: u8) -> Option<u32> {
        self.gain_in(tier, 0)
    }

    /// The weight that it takes part with beyond that one, if it does so in that tier with more.
    #[inline(always)]
    pub fn gain_in(&self, tier: u8, weight: u32) -> Option<u32> {
        // In the tier it is the weight alone, in any other one more than any weight. One comparison finds both bounds.
        let running = self.running.0 ^ Running::of(0, tier).0;
        let gain = running.wrapping_sub(weight);
        (gain.wrapping_sub(1) < WEIGHTS - weight).then_some(gain)
    }

    /// What smooth weighted round robin keeps of a backend. It stands here since a pick looks at it together with the running
    /// weight. No other algorithm may change it.
    #[inline(always)]
    pub fn credit(&self) -> i64 {
        self.credit.get()
    }

    /// Sets it. A view is enough for that.
    #[inline(always)]
    pub fn set_credit(&self, credit: i64) {
        self.credit.set(credit);
    }

    pub(super) fn run(&mut self, weight: u32) {
        self.running = Running::of(weight, self.tier());
    }

    pub(super) fn move_to_tier(&mut self, tier: u8) {
        self.running = Running::of(self.running_weight(), tier);
    }
}

impl Vacant for Seat {
    const VACANT: Seat = Seat::new(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_has_sixteen_bytes() {
        assert_eq!(size_of::<Seat>(), 16);
    }

    #[test]
    fn a_backend_runs_in_its_tier_alone() {
        let mut seat = Seat::new(7);
        for tier in [0, 1, 254, 255] {
            for weight in [0, 1, 65_535, WEIGHTS] {
                seat.move_to_tier(tier);
                seat.run(weight);
                assert_eq!((seat.tier(), seat.running_weight()), (tier, weight));
                assert_eq!(seat.running_in(tier), Some(weight).filter(|w| *w > 0));
                for than in [0, 1, 65_534, 65_535, WEIGHTS] {
                    let gain = weight.checked_sub(than).filter(|gain| *gain > 0);
                    assert_eq!(seat.gain_in(tier, than), gain);
                    assert_eq!(seat.gain_in(tier.wrapping_add(1), than), None);
                }
                for other in [tier.wrapping_sub(1), tier.wrapping_add(1)] {
                    assert_eq!(seat.running_in(other), None);
                }
            }
        }
    }
}
