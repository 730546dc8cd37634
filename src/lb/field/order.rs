//! The k-th eligible backend of a tier in order of addition, by count or by weight, in O(log n).

use super::seat::Seat;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::memory::{Mover, buffer};

/// How many entries a node stands for. Eight entries of a level are one to five cache lines.
pub const FAN: usize = 8;

/// The sums over the eligible ones among some neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Their number.
    pub count: u32,
    /// The sum of their weights.
    pub weight: u64,
}

/// Sums over eight backends, over eight of those sums, and so on until at most eight are left. Up to eight
/// backends have no levels at all: there is nothing to skip.
#[derive(Clone, Debug)]
pub struct Order {
    levels: Vec<Vec<Sum>>,
    total: Sum,
}

/// The way through up to eight seats, whose sum is not kept.
pub static FEW: Order = Order::NONE;

impl Order {
    const NONE: Order = Order {
        levels: Vec::new(),
        total: Sum {
            count: 0,
            weight: 0,
        },
    };

    /// The order of those of these seats that are of that tier.
    pub fn of(seats: &[Seat], tier: u8) -> Order {
        let mut order = Order::NONE;
        let mut entries = seats.len();
        while entries > FAN {
            let level: Vec<Sum> = match order.levels.last() {
                Some(below) => below.chunks(FAN).map(Sum::over).collect(),
                None => {
                    let eights = seats.chunks(FAN);
                    eights.map(|eight| Sum::over_seats(eight, tier)).collect()
                }
            };
            entries = level.len();
            order.levels.push(level);
        }
        order.total = match order.levels.last() {
            Some(highest) => Sum::over(highest),
            None => Sum::over_seats(seats, tier),
        };
        order
    }

    /// The order of a tier that no backend runs in.
    pub fn empty(slots: usize) -> Order {
        let mut order = Order::NONE;
        let mut entries = slots;
        while entries > FAN {
            entries = entries.div_ceil(FAN);
            order.levels.push(vec![Sum::default(); entries]);
        }
        order
    }

    /// The sum over all.
    pub fn total(&self) -> Sum {
        self.total
    }

    /// Makes room for the slot that was added last, which is not eligible yet.
    pub fn grown(&mut self, slots: usize) {
        let mut entries = slots;
        for level in &mut self.levels {
            entries = entries.div_ceil(FAN);
            if level.len() < entries {
                level.push(Sum::default());
            }
        }
        if entries > FAN {
            // The level below had eight entries until now, so the first node stands for all of them.
            self.levels.push(vec![self.total, Sum::default()]);
        }
    }

    /// The running weight of a backend goes from one to another.
    pub fn change(&mut self, slot: Slot, from: u32, to: u32) {
        self.total.change(from, to);
        let mut at = slot;
        for level in &mut self.levels {
            at /= FAN;
            level[at].change(from, to);
        }
    }

    /// How many eligible ones stand before this slot.
    pub fn rank(&self, seats: &[Seat], tier: u8, slot: Slot) -> u32 {
        let mut at = slot;
        let before = |at: usize| at - at % FAN..at;
        let eligible = |seat: &&Seat| seat.running_in(tier).is_some();
        let mut rank = seats[before(at)].iter().filter(eligible).count() as u32;
        for level in &self.levels {
            at /= FAN;
            rank += level[before(at)].iter().map(|sum| sum.count).sum::<u32>();
        }
        rank
    }

    /// The k-th eligible one, from 0. `k` is below their number.
    pub fn by_count(&self, seats: &[Seat], tier: u8, k: u32) -> Slot {
        self.descend(seats, tier, u64::from(k), |sum| u64::from(sum.count))
    }

    /// The eligible ones lie end to end, each as long as its running weight. Answers the one that lies at `w`, which is below the
    /// sum of the weights.
    pub fn by_weight(&self, seats: &[Seat], tier: u8, w: u64) -> Slot {
        self.descend(seats, tier, w, |sum| sum.weight)
    }

    /// Lets the mover move all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.levels);
        for level in &mut self.levels {
            by.vec(level);
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.levels) + self.levels.iter().map(buffer).sum::<usize>()
    }

    /// All that it knows, to be compared by a test.
    pub fn sums(&self) -> (&[Vec<Sum>], Sum) {
        (&self.levels, self.total)
    }

    fn descend(
        &self,
        seats: &[Seat],
        tier: u8,
        mut left: u64,
        measure: impl Fn(Sum) -> u64,
    ) -> Slot {
        let mut at = 0;
        for level in self.levels.iter().rev() {
            while measure(level[at]) <= left {
                left -= measure(level[at]);
                at += 1;
            }
            at *= FAN;
        }
        loop {
            let own = measure(Sum::of(&seats[at], tier));
            if own > left {
                return at;
            }
            left -= own;
            at += 1;
        }
    }
}

impl Sum {
    /// The sum over these seats, as far as they run in that tier.
    pub fn over_seats(seats: &[Seat], tier: u8) -> Sum {
        let sums = seats.iter().map(|seat| Sum::of(seat, tier));
        sums.fold(Sum::default(), |a, b| Sum {
            count: a.count + b.count,
            weight: a.weight + b.weight,
        })
    }

    fn of(seat: &Seat, tier: u8) -> Sum {
        Sum::of_one(seat.running_in(tier).unwrap_or(0))
    }

    fn of_one(running: u32) -> Sum {
        Sum {
            count: u32::from(running > 0),
            weight: u64::from(running),
        }
    }

    fn over(sums: &[Sum]) -> Sum {
        Sum {
            count: sums.iter().map(|sum| sum.count).sum(),
            weight: sums.iter().map(|sum| sum.weight).sum(),
        }
    }

    fn change(&mut self, from: u32, to: u32) {
        let (from, to) = (Sum::of_one(from), Sum::of_one(to));
        self.count = self.count - from.count + to.count;
        self.weight = self.weight - from.weight + to.weight;
    }
}
