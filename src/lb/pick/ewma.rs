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

use super::own::{Before, Pick};
use super::tournament::{Measure, Tournament};
use super::turns::{Contest, TurnsOf};
use super::view::{Load, View};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;
use crate::lb::ground::memory::Mover;

pub struct LeastLatency;

/// The turns of this algorithm.
pub type LatencyTurns = TurnsOf<Both>;

fn turns<'a>(own: &'a mut Option<Box<LatencyTurns>>, see: View<'_>) -> &'a mut LatencyTurns {
    own.get_or_insert_with(|| Box::new(LatencyTurns::of(see.seats().len())))
}

impl Pick for LeastLatency {
    const NAME: &'static str = "ewma";
    const CODE: u8 = 7;
    type Own = Option<Box<LatencyTurns>>;

    fn pick(own: &mut Self::Own, see: View<'_>, _: &mut Chance) -> Slot {
        turns(own, see).pick(see)
    }

    fn pick_ahead(own: &mut Self::Own, see: View<'_>) -> Option<(Slot, Before)> {
        turns(own, see).pick_ahead(see)
    }

    fn take_back(own: &mut Self::Own, see: View<'_>, slot: Slot, before: Before) {
        turns(own, see).take_back(see, slot, before);
    }
}

/// Latency × (leases + 1)² / weight². More than a million leases count as a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burden {
    /// Below 2^39.
    latency: u64,
    load: Load,
}

impl Burden {
    fn of(latency: u64, load: Load) -> Burden {
        Burden { latency, load }
    }
}

impl Measure for Burden {
    const NONE: Burden = Burden {
        latency: 1,
        load: Load::INFINITE,
    };

    #[inline(always)]
    fn is_some(self) -> bool {
        self.load.is_finite()
    }

    #[inline(always)]
    fn compare(self, other: Burden) -> Ordering {
        let product = |one: Burden, other: Burden| {
            let (busy, weight) = (one.load.busy(), other.load.weight());
            u128::from(one.latency) * u128::from(busy * busy) * u128::from(weight * weight)
        };
        product(self, other).cmp(&product(other, self))
    }
}

/// A tournament of those with a latency of their own, and one of the others, who all have the same latency.
#[derive(Clone, Debug, PartialEq)]
pub struct Both {
    known: Tournament<Burden>,
    others: Tournament<Load>,
}

/// The measures of a slot in the two tournaments. It takes part in one of them at most.
#[inline(always)]
fn measures(see: View<'_>, tier: u8, slot: Slot) -> (Burden, Load) {
    let load = see.load(tier, slot).up_to_a_million();
    match see.latency(slot) {
        Some(latency) if load.is_finite() => (Burden::of(latency, load), Load::NONE),
        Some(_) | None => (Burden::NONE, load),
    }
}

impl Contest for Both {
    const HAS_SECTION: bool = true;

    fn of(see: View<'_>, tier: u8, last: &[u64]) -> Both {
        let all = || (0..see.seats().len()).map(|slot| measures(see, tier, slot));
        Both {
            known: Tournament::of(all().map(|(known, _)| known), last),
            others: Tournament::of(all().map(|(_, other)| other), last),
        }
    }

    fn grown(&mut self, slots: usize) -> bool {
        self.known.grown(slots) & self.others.grown(slots)
    }

    fn replay(&mut self, see: View<'_>, tier: u8, last: &[u64], slot: Slot) {
        let (known, other) = measures(see, tier, slot);
        self.known.replay(known, last, slot);
        self.others.replay(other, last, slot);
    }

    fn leader(&self, see: View<'_>, last: &[u64]) -> Option<Slot> {
        let leaders = (self.known.leader(last), self.others.leader(last));
        let (Some(known), Some(other)) = leaders else {
            return leaders.0.or(leaders.1);
        };
        let mean = Burden::of(see.mean_latency(), self.others.measure(other));
        let by_measure = self.known.measure(known).compare(mean);
        let turns = (last[known], known).cmp(&(last[other], other));
        let is_known = by_measure.then(turns).is_lt();
        Some(if is_known { known } else { other })
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.known.relocate(by);
        self.others.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.known.heap_bytes() + self.others.heap_bytes()
    }
}
