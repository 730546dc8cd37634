//! The backends of one tier, in all the orders in which the algorithms look at them.

use super::backend::Backend;
use super::capacity::Capacity;
use super::order::Order;
use super::pick::{Least, Race};
use super::{Mover, Slot};

/// A tier of a pool. A pool whose backends are all of tier 0 has this one lane.
///
/// Each tier has its own, so that another tier's turn to serve costs nothing, however often limits make it change.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    pub tier: u8,
    pub order: Order,
    pub race: Race,
    /// Made when least connections picks here for the first time.
    pub least: Option<Box<Least>>,
}

impl Lane {
    /// The lane of those of these slots that are of that tier; the credits of all are plain numbers.
    pub fn of(backends: &[Backend], tier: u8) -> Lane {
        Lane {
            tier,
            order: Order::of(backends, tier),
            race: Race::of(backends),
            least: None,
        }
    }

    /// How many of its backends are eligible.
    pub fn eligible(&self) -> u32 {
        self.order.total().count
    }

    /// Makes room for the slot that was added last, which is not eligible yet.
    pub fn added(&mut self, slots: usize) {
        self.order.added(slots);
        self.race.added(slots);
        if !(self.least.as_mut()).is_none_or(|least| least.added(slots)) {
            self.least = None;
        }
    }

    /// A backend of this tier takes part with another weight from now on, 0 = not at all, and with this credit.
    pub fn enter(&mut self, backends: &mut [Backend], slot: Slot, live: u16, credit: i64) {
        self.order.change(slot, backends[slot].live(), live);
        self.race.enter(backends, slot, live, credit);
    }

    /// What least connections looks at has changed in a backend of this tier.
    pub fn reload(&mut self, backends: &[Backend], capacity: &Capacity, slot: Slot) {
        if let Some(least) = &mut self.least {
            least.replay(backends, capacity, self.tier, slot);
        }
    }

    /// Lets the mover at all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        self.order.relocate(by);
        self.race.relocate(by);
        if let Some(least) = &mut self.least {
            least.relocate(by);
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let least = self.least.as_ref().map_or(0, |least| least.heap_bytes());
        self.order.heap_bytes() + self.race.heap_bytes() + least
    }

    /// Panics where its parts do not agree with what they were made of. For the tests.
    pub fn check(&self, backends: &[Backend], capacity: Option<&Capacity>) {
        assert_eq!(self.order.sums(), Order::of(backends, self.tier).sums());
        self.race.check(backends, self.tier);
        if let (Some(least), Some(capacity)) = (&self.least, capacity) {
            assert!(least.is_of(backends, capacity, self.tier));
        }
    }
}
