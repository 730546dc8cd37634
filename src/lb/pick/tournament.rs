//! A tournament over slots: the leader of all, in O(log n) after a change of one.

use std::cmp::Ordering;
use std::fmt::Debug;

use crate::lb::field::FAN;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::memory::{Mover, buffer};

/// The measure by which slots compete. The lowest one leads.
pub trait Measure: Copy + Debug + PartialEq {
    /// That of a slot that takes no part. It is above all others.
    const NONE: Self;

    /// Whether the slot takes part.
    fn is_some(self) -> bool;

    /// Which of two measures is lower. All that take no part are equal.
    fn compare(self, other: Self) -> Ordering;
}

/// Eights compete, their leaders meet in eights, and so on until at most eight are left. Up to eight slots have no levels: they are
/// simply compared.
///
/// Among equals the one leads whose last turn is longest ago, of those the one that was added first. The turns are handed in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tournament<M> {
    /// The measure of each slot, again: so eight neighbours lie in one or two cache lines.
    measures: Vec<M>,
    /// The leader of each eight of slots, of each eight of those, and so on.
    levels: Vec<Vec<u32>>,
}

/// None of eight takes part.
const NOBODY: u32 = u32::MAX;

impl<M: Measure> Tournament<M> {
    /// The tournament of slots with these measures.
    pub fn of(measures: impl Iterator<Item = M>, last: &[u64]) -> Tournament<M> {
        let mut tournament = Tournament {
            measures: measures.collect(),
            levels: Vec::new(),
        };
        let mut entries = tournament.measures.len();
        while entries > FAN {
            entries = entries.div_ceil(FAN);
            let level = tournament.levels.len();
            let nodes = (0..entries).map(|at| tournament.winner(last, level, at));
            let nodes = nodes.collect();
            tournament.levels.push(nodes);
        }
        tournament
    }

    /// Makes room for the slot that was added last, which takes no part yet; false where another level is needed, and all must be
    /// played.
    pub fn grown(&mut self, slots: usize) -> bool {
        self.measures.resize(slots, M::NONE);
        let mut entries = slots;
        for level in &mut self.levels {
            entries = entries.div_ceil(FAN);
            if level.len() < entries {
                level.push(NOBODY);
            }
        }
        entries <= FAN
    }

    /// The measure of a slot, or its last turn, has changed.
    ///
    /// Nobody else has moved. So all eight of a group are compared only if its leader came from below and may have fallen behind. Else
    /// that leader is still ahead of all the others, and meets the new one from below. Above a group that another slot leads, as
    /// before, nothing changes.
    pub fn replay(&mut self, measure: M, last: &[u64], slot: Slot) {
        let before = std::mem::replace(&mut self.measures[slot], measure);
        let is_ahead_of_itself = measure.compare(before).is_lt();
        let (slot, mut at) = (slot as u32, slot);
        let mut was_from_below = slot;
        let mut from_below = if measure.is_some() { slot } else { NOBODY };
        for level in 0..self.levels.len() {
            at /= FAN;
            let before = self.levels[level][at];
            let leader = if before == was_from_below && !is_ahead_of_itself {
                self.winner(last, level, at)
            } else if self.is_ahead(last, from_below, before) {
                from_below
            } else {
                before
            };
            if leader == before && before != slot {
                return;
            }
            self.levels[level][at] = leader;
            (was_from_below, from_below) = (before, leader);
        }
    }

    /// The first of all that take part.
    pub fn leader(&self, last: &[u64]) -> Option<Slot> {
        let leader = self.winner(last, self.levels.len(), 0);
        (leader != NOBODY).then_some(leader as Slot)
    }

    /// The measure of a slot.
    pub fn measure(&self, slot: Slot) -> M {
        self.measures[slot]
    }

    /// The leader of the group `at` of those on the level below this one.
    fn winner(&self, last: &[u64], level: usize, at: usize) -> u32 {
        let from = at * FAN;
        let group = |entries: usize| from..entries.min(from + FAN);
        match level.checked_sub(1) {
            Some(below) => {
                let leaders = &self.levels[below][group(self.levels[below].len())];
                let leaders = leaders.iter().filter(|leader| **leader != NOBODY);
                first(
                    leaders.map(|slot| (*slot, self.measures[*slot as Slot])),
                    last,
                )
            }
            None => {
                let measures = &self.measures[group(self.measures.len())];
                first((from as u32..).zip(measures.iter().copied()), last)
            }
        }
    }

    /// Whether one slot, or nobody, is ahead of another, or of nobody.
    fn is_ahead(&self, last: &[u64], one: u32, other: u32) -> bool {
        match (one, other) {
            (NOBODY, _) => false,
            (_, NOBODY) => true,
            _ => {
                let measures = [one, other].map(|slot| self.measures[slot as Slot]);
                let turns = [one, other].map(|slot| (last[slot as Slot], slot));
                let by_measure = measures[0].compare(measures[1]);
                by_measure.then_with(|| turns[0].cmp(&turns[1])).is_lt()
            }
        }
    }

    /// Lets the mover move all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.measures);
        by.vec(&mut self.levels);
        self.levels.iter_mut().for_each(|level| by.vec(level));
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let levels = self.levels.iter().map(buffer).sum::<usize>();
        buffer(&self.measures) + buffer(&self.levels) + levels
    }
}

/// The one with the lowest measure, of those the one whose last turn is longest ago, of those the first.
#[inline(always)]
fn first<M: Measure>(mut slots: impl Iterator<Item = (u32, M)>, last: &[u64]) -> u32 {
    let Some((mut first, mut lowest)) = slots.next() else {
        return NOBODY;
    };
    for (slot, measure) in slots {
        let is_ahead = match measure.compare(lowest) {
            Ordering::Less => true,
            Ordering::Equal => last[slot as Slot] < last[first as Slot],
            Ordering::Greater => false,
        };
        if is_ahead {
            (first, lowest) = (slot, measure);
        }
    }
    if lowest.is_some() { first } else { NOBODY }
}
