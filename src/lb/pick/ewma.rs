//! Least latency: the backend with the lowest latency × (leases + 1)² / weight², over the whole fleet.
//!
//! The latency is a moving mean that each report moves (`account/latency.rs`), and leases count at once, as soon as they are
//! granted. So a slow backend gets less, and one that fails fast gets nearly nothing, where `lc` would send it a crowd. It wins
//! over `lc` where backends differ in speed. (Envoy and finagle have the measure with leases to the first power, over two backends
//! drawn by chance.)
//!
//! The square was measured (`tests/bench/exponent.rs`): where each backend serves few requests at once, the first power leaves p99
//! up to 40 % higher. Where it serves many, the square is better where all are alike, and worse where half are slow: by 4 to 9 % with
//! 64 at once, by up to 22 % with four.
//!
//! Exact, in O(log n). A backend without a report has the mean latency of the others, so a report of one changes the measure of
//! all of these. They play a tournament of their own, in which the latency does not count, and its leader meets the other's.

use std::cmp::Ordering;

use super::by_tier::ByTier;
use super::own::{Before, Own, Pick};
use super::tournament::{Rules, Tournament};
use super::view::View;
use crate::lb::field::Field;
use crate::lb::ground::bounds::{COUNTER_MAX, Slot, counted};
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, buffer};
use crate::lb::ground::saved::{Malformed, Reader, Writer};

pub struct LeastLatency;

impl Pick for LeastLatency {
    const NAME: &'static str = "ewma";
    const CODE: u8 = 7;
    type Own = Option<Box<LatencyTurns>>;

    fn pick(own: &mut Self::Own, see: View<'_>, _: &mut Chance) -> Slot {
        let own = own.get_or_insert_with(|| Box::new(LatencyTurns::of(see.seats().len())));
        let slot = own.leader(see);
        let turn = counted(own.turns);
        own.picked(see, slot, turn, turn);
        slot
    }

    /// The next pick but one depends on the lease that the next one is granted. So only one pick can be taken back.
    fn pick_ahead(own: &mut Self::Own, see: View<'_>) -> Option<(Slot, Before)> {
        let own = own.get_or_insert_with(|| Box::new(LatencyTurns::of(see.seats().len())));
        let turn = counted(own.turns);
        if own.is_ahead || turn == COUNTER_MAX {
            return None;
        }
        let slot = own.leader(see);
        let before = own.last[slot];
        own.picked(see, slot, turn, turn);
        own.is_ahead = true;
        Some((slot, before))
    }

    fn take_back(own: &mut Self::Own, see: View<'_>, slot: Slot, before: Before) {
        if let Some(own) = own {
            own.picked(see, slot, own.turns - 1, before);
            own.is_ahead = false;
        }
    }
}

/// The turns of this algorithm: how many there were, and when each backend had its last one.
#[derive(Clone, Debug, Default)]
pub struct LatencyTurns {
    /// How many picks it has made.
    turns: u64,
    /// When it picked each slot last, in its own picks.
    last: Vec<u64>,
    /// Whether the last pick looks ahead, and will be taken back.
    is_ahead: bool,
    tournaments: ByTier<Both>,
}

/// A tournament of those with a latency of their own, and one of the others.
type Both = [Tournament; 2];

/// The rules of a tier, for those with a latency of their own, or for the others.
#[derive(Clone, Copy)]
struct ByLatency<'a> {
    see: View<'a>,
    last: &'a [u64],
    tier: u8,
    have_latency: bool,
}

impl Rules for ByLatency<'_> {
    fn takes_part(&self, slot: Slot) -> bool {
        self.see.seats()[slot].running_in(self.tier).is_some()
            && self.see.latency(slot).is_some() == self.have_latency
    }

    fn order(&self, a: Slot, b: Slot) -> Ordering {
        let last = |slot: Slot| self.last[slot];
        let by_latency = self.see.by_latency(a, b);
        by_latency.then_with(|| last(a).cmp(&last(b)))
    }
}

/// The rules of both tournaments.
fn both<'a>(see: View<'a>, last: &'a [u64], tier: u8) -> [ByLatency<'a>; 2] {
    [true, false].map(|have_latency| ByLatency {
        see,
        last,
        tier,
        have_latency,
    })
}

impl LatencyTurns {
    fn of(slots: usize) -> LatencyTurns {
        LatencyTurns {
            last: vec![0; slots],
            ..LatencyTurns::default()
        }
    }

    fn leader(&mut self, see: View<'_>) -> Slot {
        let (tier, slots) = (see.tier(), see.seats().len());
        let rules = both(see, &self.last, tier);
        let make = || rules.map(|rules| Tournament::of(slots, &rules));
        let [known, others] = self.tournaments.serving(tier, see.seats(), make);
        let leaders = (
            known.leader(slots, &rules[0]),
            others.leader(slots, &rules[1]),
        );
        match leaders {
            (Some(known), Some(other)) => {
                // Equals come in order of addition.
                let order = rules[0].order(known, other).then(known.cmp(&other));
                if order.is_lt() { known } else { other }
            }
            (known, other) => known.or(other).expect("there is an eligible backend"),
        }
    }

    fn picked(&mut self, see: View<'_>, slot: Slot, turns: u64, last: u64) {
        self.turns = turns;
        self.last[slot] = last;
        self.load_changed(see, slot);
    }
}

impl Own for LatencyTurns {
    fn weight_changed(&mut self, see: View<'_>, slot: Slot) {
        self.load_changed(see, slot);
    }

    fn load_changed(&mut self, see: View<'_>, slot: Slot) {
        let tier = see.seats()[slot].tier();
        if let Some(tournaments) = self.tournaments.get_mut(tier) {
            let rules = both(see, &self.last, tier);
            for (tournament, rules) in tournaments.iter_mut().zip(rules) {
                tournament.replay(see.seats().len(), &rules, slot);
            }
        }
    }

    fn gaps_close(&mut self, _: &Field) {
        self.tournaments = ByTier::default();
    }

    fn save_section(&self, slots: &[Slot], to: &mut Writer) {
        if self.turns > 0 {
            to.put(&self.turns);
            slots.iter().for_each(|slot| to.put(&self.last[*slot]));
        }
    }

    fn load_section(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
        self.turns = from.number("turns", COUNTER_MAX)?;
        (0..slots).try_for_each(|slot| {
            self.last[slot] = from.number("turn", self.turns)?;
            Ok(())
        })
    }

    fn check(&self, see: View<'_>) {
        assert!(!self.is_ahead);
        for (tier, tournaments) in self.tournaments.all() {
            let rules = both(see, &self.last, *tier);
            let again = rules.map(|rules| Tournament::of(see.seats().len(), &rules));
            assert_eq!(*tournaments, again);
        }
    }
}

impl Kept for LatencyTurns {
    fn grown(&mut self, slots: usize) {
        self.last.resize(slots, 0);
        let grown = |both: &mut Both| both.iter_mut().all(|t| t.grown(slots));
        self.tournaments.retain(grown);
    }

    fn forget(&mut self, slot: Slot) {
        self.last[slot] = 0;
    }

    fn renumber(&mut self, gaps: &Gaps) {
        gaps.close(&mut self.last);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.last);
        let each = |both: &mut Both, by: &mut _| both.iter_mut().for_each(|t| t.relocate(by));
        self.tournaments.relocate(by, each);
    }

    fn heap_bytes(&self) -> usize {
        let each = |both: &Both| both.iter().map(Tournament::heap_bytes).sum();
        buffer(&self.last) + self.tournaments.heap_bytes(each)
    }
}
