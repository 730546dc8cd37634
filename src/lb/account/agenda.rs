//! When something is due for which backend.

use std::collections::BTreeSet;

use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::Gaps;
use crate::lb::ground::memory::allocated;

/// Times, each with the slot of a backend, the earliest first; of the same time, in order of addition. It is made of what the
/// backends keep, and not saved. So a time moves as soon as what the backend keeps does. Rejected: to leave a time that is too early,
/// and to look twice. A tick ends a thousand things, and a pool that was loaded has no such looks among them.
#[derive(Clone, Debug)]
pub struct Agenda<T = Millis>(BTreeSet<(T, u32)>);

impl<T> Default for Agenda<T> {
    fn default() -> Agenda<T> {
        Agenda(BTreeSet::new())
    }
}

impl<T: Ord + Copy> Agenda<T> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn add(&mut self, time: T, slot: Slot) {
        self.0.insert((time, slot as u32));
    }

    pub fn remove(&mut self, time: T, slot: Slot) {
        self.0.remove(&(time, slot as u32));
    }

    /// The time of a backend has changed.
    #[inline(always)]
    pub fn moved(&mut self, slot: Slot, from: Option<T>, to: Option<T>) {
        if from != to {
            from.into_iter().for_each(|time| self.remove(time, slot));
            to.into_iter().for_each(|time| self.add(time, slot));
        }
    }

    /// The earliest one.
    pub fn first(&self) -> Option<(T, Slot)> {
        self.0.first().map(|(time, slot)| (*time, *slot as Slot))
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (T, Slot)> {
        self.0.iter().map(|(time, slot)| (*time, *slot as Slot))
    }

    /// Closes the gaps. Nothing is due for a vacant slot.
    pub fn renumber(&mut self, gaps: &Gaps) {
        let all = std::mem::take(&mut self.0).into_iter();
        let at = |slot: u32| gaps.before_slot(slot as Slot) as u32;
        self.0 = all.map(|(time, slot)| (time, at(slot))).collect();
    }

    pub fn heap_bytes(&self) -> usize {
        // A leaf of a B-tree has room for eleven and holds about eight. So does a node above leaves.
        let leaves = self.0.len().div_ceil(8);
        let leaf = allocated(11 * size_of::<(T, u32)>() + 16);
        leaves * leaf + leaves / 8 * (leaf + 96)
    }
}
