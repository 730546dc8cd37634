//! A tournament over slots: the leader of all, in O(log n) after a change of one.

use std::cmp::Ordering;

use crate::lb::field::FAN;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::memory::{Mover, buffer};

/// The rules of a tournament.
pub trait Rules {
    /// Whether a slot takes part.
    fn takes_part(&self, slot: Slot) -> bool;

    /// Which of two that take part comes first. Equals come in order of addition.
    fn order(&self, a: Slot, b: Slot) -> Ordering;
}

/// Eights compete, their leaders meet in eights, and so on until at most eight are left. Up to eight slots have no levels: they are
/// simply compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tournament {
    /// The leader of each eight of slots, of each eight of those, and so on.
    levels: Vec<Vec<u32>>,
}

/// None of eight takes part.
pub const NOBODY: u32 = u32::MAX;

/// Makes room in the levels of a tournament of eights, as [`Tournament::grown`] says.
pub fn grow(levels: &mut [Vec<u32>], slots: usize) -> bool {
    let mut entries = slots;
    for level in levels {
        entries = entries.div_ceil(FAN);
        if level.len() < entries {
            level.push(NOBODY);
        }
    }
    entries <= FAN
}

impl Tournament {
    /// The tournament of this number of slots.
    pub fn of(slots: usize, rules: &impl Rules) -> Tournament {
        let mut tournament = Tournament::default();
        let mut entries = slots;
        while entries > FAN {
            entries = entries.div_ceil(FAN);
            let level = tournament.levels.len();
            let nodes = (0..entries).map(|at| tournament.winner(slots, rules, level, at));
            let nodes = nodes.collect();
            tournament.levels.push(nodes);
        }
        tournament
    }

    /// Makes room for the slot that was added last, which takes no part yet; false where another level is needed, and all must be
    /// played.
    pub fn grown(&mut self, slots: usize) -> bool {
        grow(&mut self.levels, slots)
    }

    /// What the rules say of a slot has changed.
    pub fn replay(&mut self, slots: usize, rules: &impl Rules, slot: Slot) {
        let mut at = slot;
        for level in 0..self.levels.len() {
            at /= FAN;
            self.levels[level][at] = self.winner(slots, rules, level, at);
        }
    }

    /// The first of all that take part.
    pub fn leader(&self, slots: usize, rules: &impl Rules) -> Option<Slot> {
        let leader = self.winner(slots, rules, self.levels.len(), 0);
        (leader != NOBODY).then_some(leader as Slot)
    }

    /// The leader of the group `at` of those on the level below this one.
    fn winner(&self, slots: usize, rules: &impl Rules, level: usize, at: usize) -> u32 {
        let from = at * FAN;
        let below = level.checked_sub(1).map(|below| &self.levels[below]);
        let entries = below.map_or(slots, Vec::len);
        let group = (from..entries.min(from + FAN)).map(|entry| match below {
            Some(below) => below[entry],
            None if rules.takes_part(entry) => entry as u32,
            None => NOBODY,
        });
        let group = group.filter(|slot| *slot != NOBODY);
        let first = group.min_by(|a, b| rules.order(*a as Slot, *b as Slot));
        first.unwrap_or(NOBODY)
    }

    /// Lets the mover move all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.levels);
        self.levels.iter_mut().for_each(|level| by.vec(level));
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.levels) + self.levels.iter().map(buffer).sum::<usize>()
    }
}
