//! The tiers of a pool. One of them serves.

use std::collections::BTreeSet;

use super::order::{FAN, Order};
use super::seat::Seat;
use crate::lb::ground::bounds::TIERS_MAX;
use crate::lb::ground::memory::{Mover, allocated, buffer};

/// The backends of one tier, in order.
///
/// Each tier has an order of its own, so that another tier's turn to serve costs nothing, however often limits change it.
#[derive(Clone, Debug)]
pub struct Tier {
    pub tier: u8,
    pub order: Order,
}

impl Tier {
    fn of(seats: &[Seat], tier: u8) -> Tier {
        Tier {
            tier,
            order: Order::of(seats, tier),
        }
    }

    /// How many of its backends are eligible.
    #[inline(always)]
    pub fn eligible(&self) -> u32 {
        self.order.total().count
    }
}

/// The tiers that these seats are of.
pub fn used(seats: &[Seat]) -> BTreeSet<u8> {
    seats.iter().map(Seat::tier).collect()
}

/// All tiers. A pool of up to eight backends which are all of tier 0 needs none of this.
#[derive(Clone, Debug)]
pub struct Tiers {
    /// The lowest one that has an eligible backend, or any where none has.
    pub serving: Tier,
    others: Others,
}

/// In a box, so that a pool of one tier pays 8 bytes for the others, not 24.
type Others = Option<Box<Vec<Tier>>>;

impl Tiers {
    /// The tiers of these seats; none where they can do without.
    pub fn of(seats: &[Seat]) -> Option<Box<Tiers>> {
        let used = used(seats);
        if seats.len() <= FAN && used.iter().all(|tier| *tier == 0) {
            return None;
        }
        let mut all = used.into_iter().map(|tier| Tier::of(seats, tier));
        let serving = all.next()?;
        let others: Vec<Tier> = all.collect();
        let mut tiers = Tiers {
            serving,
            others: (!others.is_empty()).then(|| Box::new(others)),
        };
        tiers.let_the_lowest_serve();
        Some(Box::new(tiers))
    }

    /// Tier 0 alone, of which these seats are.
    pub fn one(seats: &[Seat]) -> Box<Tiers> {
        Box::new(Tiers {
            serving: Tier::of(seats, 0),
            others: None,
        })
    }

    /// All of them, the serving one first.
    pub fn all(&self) -> impl Iterator<Item = &Tier> {
        let others = self.others.iter().flat_map(|others| others.iter());
        std::iter::once(&self.serving).chain(others)
    }

    /// As [`Tiers::all`], to change them.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Tier> {
        let others = self.others.iter_mut().flat_map(|others| others.iter_mut());
        std::iter::once(&mut self.serving).chain(others)
    }

    /// The tier of that number, in which there is a backend.
    pub fn get_mut(&mut self, tier: u8) -> &mut Tier {
        match self.serving.tier == tier {
            true => &mut self.serving,
            false => (self.all_mut())
                .find(|t| t.tier == tier)
                .expect("the tier of each backend is open"),
        }
    }

    /// Sees to it that this tier is there, for which there is room.
    pub fn open(&mut self, tier: u8, seats: &[Seat]) {
        if self.all().all(|t| t.tier != tier) {
            if self.all().count() >= TIERS_MAX {
                let used = used(seats);
                let others = self.others.get_or_insert_default();
                others.retain(|t| used.contains(&t.tier));
            }
            // A tier in which a backend runs is open.
            let order = Order::empty(seats.len());
            (self.others.get_or_insert_default()).push(Tier { tier, order });
        }
    }

    /// Lets the lowest tier serve that has an eligible backend. Two tiers swap their places, so nothing else moves.
    pub fn let_the_lowest_serve(&mut self) {
        let Some(others) = &mut self.others else {
            return;
        };
        let eligible = others.iter_mut().filter(|tier| tier.eligible() > 0);
        if let Some(lowest) = eligible.min_by_key(|tier| tier.tier)
            && (self.serving.eligible() == 0 || lowest.tier < self.serving.tier)
        {
            std::mem::swap(&mut self.serving, lowest);
        }
    }

    /// Lets the mover move all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        if let Some(others) = &mut self.others {
            by.vec(others);
        }
        self.all_mut().for_each(|tier| tier.order.relocate(by));
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let others = (self.others.as_ref()).map_or(0, |others| {
            allocated(size_of::<Vec<Tier>>()) + buffer(others)
        });
        others
            + self
                .all()
                .map(|tier| tier.order.heap_bytes())
                .sum::<usize>()
    }

    /// Panics where an order does not agree with the seats, or where another tier should serve. For the tests.
    pub fn check(&self, seats: &[Seat]) {
        for tier in self.all() {
            assert_eq!(tier.order.sums(), Order::of(seats, tier.tier).sums());
            let is_lower = tier.tier < self.serving.tier || self.serving.eligible() == 0;
            assert!(tier.eligible() == 0 || tier.tier == self.serving.tier || !is_lower);
        }
        let eligible: usize = self.all().map(|tier| tier.eligible() as usize).sum();
        let running = seats.iter().filter(|seat| seat.running_weight() > 0);
        assert_eq!(eligible, running.count());
    }
}
