//! Parts of a pool that keep something for each slot.

use super::bounds::Slot;
use super::memory::{Mover, allocated};

/// A part of a pool that keeps something for each slot.
///
/// A backend that was removed leaves its slot vacant, so that the slots stay in order of addition. When half of them are
/// vacant, all parts close the gaps together.
pub trait Kept {
    /// Makes room for the slot that was added last: there are this many slots now.
    fn grown(&mut self, _slots: usize) {}

    /// Forgets the backend of this slot, which becomes vacant.
    fn forget(&mut self, _slot: Slot) {}

    /// Closes the gaps.
    fn renumber(&mut self, _gaps: &Gaps) {}

    /// Lets the mover move the buffers that may be large.
    fn relocate(&mut self, _by: &mut impl Mover) {}

    /// How many bytes it takes on the heap.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Nothing is kept.
impl Kept for () {}

/// Made when it is first needed.
impl<T: Kept> Kept for Option<Box<T>> {
    #[inline(always)]
    fn grown(&mut self, slots: usize) {
        if let Some(kept) = self {
            kept.grown(slots);
        }
    }

    fn forget(&mut self, slot: Slot) {
        if let Some(kept) = self {
            kept.forget(slot);
        }
    }

    fn renumber(&mut self, gaps: &Gaps) {
        if let Some(kept) = self {
            kept.renumber(gaps);
        }
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        if let Some(kept) = self {
            kept.relocate(by);
        }
    }

    fn heap_bytes(&self) -> usize {
        (self.as_ref()).map_or(0, |kept| allocated(size_of::<T>()) + kept.heap_bytes())
    }
}

/// The gaps between the backends, and each backend's slot once they are closed.
pub struct Gaps {
    /// For each slot the number of backends before it, and at the end the number of all.
    before: Vec<u32>,
}

impl Gaps {
    /// The gaps between slots. The iterator tells of each slot whether it is vacant.
    pub fn of(are_vacant: impl Iterator<Item = bool>) -> Gaps {
        let mut backends = 0;
        let mut before = Vec::with_capacity(are_vacant.size_hint().0 + 1);
        for is_vacant in are_vacant {
            before.push(backends);
            backends += u32::from(!is_vacant);
        }
        before.push(backends);
        Gaps { before }
    }

    /// How many backends stand before this slot: where its backend stands once the gaps are closed.
    pub fn before_slot(&self, slot: Slot) -> Slot {
        self.before[slot] as Slot
    }

    /// Drops the elements of vacant slots.
    pub fn close<T>(&self, of_slots: &mut Vec<T>) {
        let mut slots = self.before.windows(2);
        of_slots.retain(|_| slots.next().is_some_and(|pair| pair[0] < pair[1]));
        of_slots.shrink_to_fit();
    }
}
