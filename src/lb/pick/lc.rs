//! Least connections: the backend with the fewest leases for its weight, over the whole fleet.
//!
//! The measure is (leases + 1) / weight, as in nginx's `least_conn` and the `sed` of LVS: the one that is to come is
//! counted in. Among equals the one that this algorithm picked longest ago is taken (of those that it never picked the
//! earliest added), so that it goes round where all are idle. It wins over weighted round robin where requests differ
//! much in length.
//!
//! Exact, in O(log n): a tournament of eights, in which a change of one backend replays its own path. A heap would do
//! as well for picking, but not with backends that are passed over for one command.

use std::cmp::Ordering;

use super::{Foresight, Pick};
use crate::lb::Slot;
use crate::lb::backend::Backend;
use crate::lb::capacity::Capacity;
use crate::lb::order::FAN;
use crate::lb::pool::{COUNTER_MAX, Pool, counted};
use crate::lb::{Mover, allocated};

pub(super) struct LeastConnections;

impl Pick for LeastConnections {
    const NAME: &'static str = "lc";
    const CODE: u8 = 5;
    const FORESIGHT: Foresight = Foresight::TakeBack {
        pick: |pool| {
            let slot = leader(pool);
            let capacity = pool.capacity.as_ref().expect("the leader needs it");
            let (before, turn) = (capacity.records[slot].last, counted(capacity.turns));
            if turn == COUNTER_MAX {
                return None;
            }
            picked(pool, slot, turn, turn);
            Some((slot, before))
        },
        take_back: |pool, slot, before| {
            let capacity = pool.capacity.as_ref().expect("the leader needs it");
            let turns = capacity.turns - 1;
            picked(pool, slot, turns, before);
        },
    };

    fn pick(pool: &mut Pool) -> Slot {
        let slot = leader(pool);
        let turn = counted(pool.capacity().turns);
        picked(pool, slot, turn, turn);
        slot
    }
}

fn leader(pool: &mut Pool) -> Slot {
    pool.capacity();
    let (backends, lane) = (&pool.backends, &mut pool.lane);
    let capacity = pool.capacity.as_ref().expect("it was just made");
    let least =
        (lane.least).get_or_insert_with(|| Box::new(Least::of(backends, capacity, lane.tier)));
    least.leader(backends, capacity, lane.tier)
}

fn picked(pool: &mut Pool, slot: Slot, turns: u64, last: u64) {
    let capacity = pool.capacity();
    capacity.turns = turns;
    capacity.records[slot].last = last;
    pool.reload(slot);
}

/// The tournament of the eligible backends of a tier. Up to eight backends have no levels: they are simply compared.
#[derive(Clone, Debug, Default)]
pub struct Least {
    /// Who leads each eight of slots, each eight of those, and so on until at most eight are left.
    levels: Vec<Vec<u32>>,
}

/// None of eight is eligible.
const NOBODY: u32 = u32::MAX;

impl Least {
    /// The tournament of those of these slots that are of that tier.
    pub fn of(backends: &[Backend], capacity: &Capacity, tier: u8) -> Least {
        let mut least = Least::default();
        let mut entries = backends.len();
        while entries > FAN {
            entries = entries.div_ceil(FAN);
            let level = least.levels.len();
            let nodes = (0..entries).map(|at| least.winner(backends, capacity, tier, level, at));
            let nodes = nodes.collect();
            least.levels.push(nodes);
        }
        least
    }

    /// Makes room for the slot that was added last, which is not eligible yet; false where another level is needed, and
    /// all must be played.
    pub fn added(&mut self, slots: usize) -> bool {
        let mut entries = slots;
        for level in &mut self.levels {
            entries = entries.div_ceil(FAN);
            if level.len() < entries {
                level.push(NOBODY);
            }
        }
        entries <= FAN
    }

    /// What the backend of that slot is measured by has changed.
    pub fn replay(&mut self, backends: &[Backend], capacity: &Capacity, tier: u8, slot: Slot) {
        let mut at = slot;
        for level in 0..self.levels.len() {
            at /= FAN;
            self.levels[level][at] = self.winner(backends, capacity, tier, level, at);
        }
    }

    fn leader(&self, backends: &[Backend], capacity: &Capacity, tier: u8) -> Slot {
        self.winner(backends, capacity, tier, self.levels.len(), 0) as Slot
    }

    /// Who leads the group `at` of those on the level below this one.
    fn winner(
        &self,
        backends: &[Backend],
        capacity: &Capacity,
        tier: u8,
        level: usize,
        at: usize,
    ) -> u32 {
        let from = at * FAN;
        let entries = match level.checked_sub(1) {
            Some(below) => self.levels[below].len(),
            None => backends.len(),
        };
        let group = (from..entries.min(from + FAN)).map(|entry| match level.checked_sub(1) {
            Some(below) => self.levels[below][entry],
            None if backends[entry].live_in(tier) > 0 => entry as u32,
            None => NOBODY,
        });
        let eligible = group.filter(|slot| *slot != NOBODY);
        let first = eligible.min_by(|a, b| {
            let [a, b] = [*a as Slot, *b as Slot];
            let last = |slot: Slot| capacity.records[slot].last;
            by_load(backends, Some(capacity), a, b).then_with(|| last(a).cmp(&last(b)))
        });
        first.unwrap_or(NOBODY)
    }

    /// Lets the mover at all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.levels);
        for level in &mut self.levels {
            by.vec(level);
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let levels = (self.levels.iter()).map(|level| level.capacity() * size_of::<u32>());
        let own = self.levels.capacity() * size_of::<Vec<u32>>();
        allocated(size_of::<Least>()) + levels.chain([own]).map(allocated).sum::<usize>()
    }

    /// Whether it is what these slots make it, for [`Pool::check`].
    pub fn is_of(&self, backends: &[Backend], capacity: &Capacity, tier: u8) -> bool {
        self.levels == Least::of(backends, capacity, tier).levels
    }
}

/// Which of two eligible backends has the lower (leases + 1) / weight.
pub(super) fn by_load(
    backends: &[Backend],
    capacity: Option<&Capacity>,
    a: Slot,
    b: Slot,
) -> Ordering {
    let busy = |slot: Slot| 1 + capacity.map_or(0, |c| u64::from(c.leases.on(slot)));
    let weight = |slot: Slot| u64::from(backends[slot].live());
    (busy(a) * weight(b)).cmp(&(busy(b) * weight(a)))
}
