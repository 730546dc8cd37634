//! The choices of one item in order, for a command that asks for many.
//!
//! Each pick by `hash` looks at all backends, so that many picks in one command would take the square of their number. Their order
//! is the same for all of them. So after some picks the backends are lined up, as far as they are needed, and each further pick costs
//! O(log n), however many backends are above their bounds.
//!
//! While a command runs, backends only drop out, save those that are passed over for BALANCE: their bounds grow with each lease, and what each of
//! them waits for is known.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::hash::{mix, time};
use super::view::{Asked, View};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::name::public_hash;

/// So many picks of a command look at all backends: then to line them up is not dearer.
const PASSES: u32 = 16;
/// How many are put in order at first.
const FIRST: usize = 64;

/// The backends in the order in which they come for an item.
#[derive(Debug, Default)]
pub struct Choices {
    passes: u32,
    tier: Option<u8>,
    /// In order as far as `sorted`. Those behind come later.
    places: Vec<Place>,
    sorted: usize,
    /// The first one that was not looked at.
    next: usize,
    /// Of those before it, the ones that may be chosen again.
    ready: BinaryHeap<Reverse<usize>>,
    /// And the ones that are at their bounds.
    full: BinaryHeap<Reverse<(Load, usize)>>,
    /// The sum of the weights of all that can be chosen.
    weights: u64,
    last: Option<Slot>,
}

#[derive(Debug)]
struct Place {
    time: u128,
    weight: u16,
    slot: u32,
}

/// Leases by weight: who has less is admitted first.
#[derive(Debug, PartialEq, Eq)]
struct Load {
    leases: u32,
    weight: u16,
}

impl Ord for Load {
    fn cmp(&self, other: &Load) -> Ordering {
        let product = |one: &Load, other: &Load| u64::from(one.leases) * u64::from(other.weight);
        product(self, other).cmp(&product(other, self))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Load) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Choices {
    /// Whether the next pick of the command should be made here.
    pub fn is_due(&mut self) -> bool {
        self.passes += 1;
        self.passes > PASSES
    }

    /// The backend that `hash` chooses.
    pub fn choose(&mut self, see: View<'_>) -> Option<Slot> {
        let (asked, tier) = (see.asked()?, see.tier_with_probes()?);
        if self.tier != Some(tier) {
            self.line_up(asked, see, tier);
        } else if let Some(gone) = self.last.filter(|slot| !see.takes(tier, *slot)) {
            self.weights -= u64::from(see.seats()[gone].weight);
        }
        let bound = see.bound_by(|| self.weights);
        let admits = |load: &Load| bound.is_none_or(|b| b.admits(load.leases, load.weight));
        while let Some(Reverse((load, place))) = self.full.peek()
            && admits(load)
        {
            self.ready.push(Reverse(*place));
            self.full.pop();
        }
        loop {
            let place = match self.ready.pop() {
                Some(Reverse(place)) => place,
                None => self.step(asked)?,
            };
            let Place { weight, slot, .. } = self.places[place];
            let slot = slot as Slot;
            if !see.takes(tier, slot) {
                continue;
            }
            let leases = see.leases_on(slot);
            let load = Load { leases, weight };
            if !admits(&load) {
                self.full.push(Reverse((load, place)));
                continue;
            }
            self.ready.push(Reverse(place));
            self.last = Some(slot);
            return Some(slot);
        }
    }

    fn line_up(&mut self, asked: &Asked, see: View<'_>, tier: u8) {
        let item = public_hash(asked.item);
        let name = |slot: Slot| match asked.hashes.get(slot) {
            Some(hash) => *hash,
            None => public_hash(asked.cards[slot].name.as_bytes()),
        };
        let slots = (0..see.seats().len()).filter(|slot| see.takes(tier, *slot));
        let places = slots.map(|slot| Place {
            time: time(mix(item, name(slot))),
            weight: see.seats()[slot].weight,
            slot: slot as u32,
        });
        *self = Choices {
            passes: self.passes,
            tier: Some(tier),
            places: places.collect(),
            ..Choices::default()
        };
        self.weights = self.places.iter().map(|p| u64::from(p.weight)).sum();
    }

    /// The next place that was not looked at. Each time twice as many are put in order.
    fn step(&mut self, asked: &Asked) -> Option<usize> {
        if self.next == self.sorted {
            let rest = &mut self.places[self.sorted..];
            let some = self.sorted.max(FIRST).min(rest.len());
            let order = |one: &Place, other: &Place| one.order(other, asked);
            if some < rest.len() {
                rest.select_nth_unstable_by(some, order);
            }
            rest[..some].sort_unstable_by(order);
            self.sorted += some;
        }
        let place = self.next;
        self.next = (place + 1).min(self.sorted);
        (place < self.sorted).then_some(place)
    }
}

impl Place {
    fn order(&self, other: &Place, asked: &Asked) -> Ordering {
        let product = |one: &Place, other: &Place| one.time * u128::from(other.weight);
        let name = |place: &Place| asked.cards[place.slot as Slot].name.as_bytes();
        let times = product(self, other).cmp(&product(other, self));
        times.then_with(|| name(self).cmp(name(other)))
    }
}
