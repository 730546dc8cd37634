//! Least connections: the backend with the fewest leases for its weight, over the whole fleet.
//!
//! The measure is (leases + 1) / weight, as in nginx's `least_conn` and the `sed` of LVS: the lease that is to come is
//! counted in. Among equals the one that this algorithm picked longest ago is taken (of those that it never picked the
//! earliest added), so that it goes round where all are idle. It wins over weighted round robin where requests differ
//! much in length.
//!
//! Exact, in O(log n): a tournament of eights, in which a change of one backend replays its own path, up to where it changes
//! nothing any more. A heap would do as well for picking, but not with backends that are passed over for one command.

use std::cmp::Ordering;

use super::own::{Before, Pick};
use super::tournament::{Measure, Tournament};
use super::turns::{Contest, TurnsOf};
use super::view::{Load, View};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;
use crate::lb::ground::memory::Mover;

pub struct LeastConnections;

/// The turns of this algorithm.
pub type Turns = TurnsOf<Tournament<Load>>;

fn turns<'a>(own: &'a mut Option<Box<Turns>>, see: View<'_>) -> &'a mut Turns {
    own.get_or_insert_with(|| Box::new(Turns::of(see.seats().len())))
}

impl Pick for LeastConnections {
    const NAME: &'static str = "lc";
    const CODE: u8 = 5;
    type Own = Option<Box<Turns>>;

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

impl Measure for Load {
    const NONE: Load = Load::INFINITE;

    #[inline(always)]
    fn is_some(self) -> bool {
        self.is_finite()
    }

    #[inline(always)]
    fn compare(self, other: Load) -> Ordering {
        Load::compare(self, other)
    }
}

impl Contest for Tournament<Load> {
    const HAS_SECTION: bool = false;

    fn of(see: View<'_>, tier: u8, last: &[u64]) -> Tournament<Load> {
        let slots = 0..see.seats().len();
        Tournament::of(slots.map(|slot| see.load(tier, slot)), last)
    }

    fn grown(&mut self, slots: usize) -> bool {
        Tournament::grown(self, slots)
    }

    fn replay(&mut self, see: View<'_>, tier: u8, last: &[u64], slot: Slot) {
        Tournament::replay(self, see.load(tier, slot), last, slot);
    }

    fn leader(&self, _: View<'_>, last: &[u64]) -> Option<Slot> {
        Tournament::leader(self, last)
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        Tournament::relocate(self, by);
    }

    fn heap_bytes(&self) -> usize {
        Tournament::heap_bytes(self)
    }
}
