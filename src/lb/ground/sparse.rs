//! Something for some of many slots.

use super::bounds::Slot;
use super::kept::Gaps;
use super::memory::{Mover, buffer};

/// The number of slots in a page.
const PAGE: usize = 64;

/// Something for each slot, where most slots may have only the default. It takes memory, and time, only for pages of 64 slots
/// in which some slot has another value.
#[derive(Clone, Debug, Default)]
pub struct Sparse<T> {
    /// The page of the first slots. Most pools need no other one, and it is found at once.
    first: Vec<T>,
    others: Vec<Vec<T>>,
}

impl<T: Default> Sparse<T> {
    /// These values, of the first slots.
    pub fn of(mut values: impl Iterator<Item = T>) -> Sparse<T> {
        let mut page = || Vec::from_iter(values.by_ref().take(PAGE));
        let first = page();
        let others = std::iter::from_fn(|| Some(page()).filter(|page| !page.is_empty()));
        Sparse {
            first,
            others: others.collect(),
        }
    }

    /// The value of a slot, where it may be other than the default.
    #[inline(always)]
    pub fn get(&self, slot: Slot) -> Option<&T> {
        match self.first.get(slot) {
            None => self
                .others
                .get((slot / PAGE).checked_sub(1)?)?
                .get(slot % PAGE),
            value => value,
        }
    }

    /// The same, to be changed.
    #[inline(always)]
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        match self.first.get_mut(slot) {
            None => (self.others.get_mut((slot / PAGE).checked_sub(1)?)?).get_mut(slot % PAGE),
            value => value,
        }
    }

    /// The value of a slot, to be changed.
    #[inline(always)]
    pub fn at(&mut self, slot: Slot) -> &mut T {
        if slot >= self.first.len() {
            return self.at_other(slot);
        }
        &mut self.first[slot]
    }

    /// The same of a slot of another page, or of one that has no room yet.
    #[inline(never)]
    fn at_other(&mut self, slot: Slot) -> &mut T {
        if self.get(slot).is_none() {
            self.make_room(slot);
        }
        match (slot / PAGE).checked_sub(1) {
            None => &mut self.first[slot],
            Some(other) => &mut self.others[other][slot % PAGE],
        }
    }

    #[cold]
    fn make_room(&mut self, slot: Slot) {
        let page = match (slot / PAGE).checked_sub(1) {
            None => &mut self.first,
            Some(other) => {
                if self.others.len() <= other {
                    self.others.resize_with(other + 1, Vec::new);
                }
                &mut self.others[other]
            }
        };
        page.resize_with(slot % PAGE + 1, T::default);
    }

    /// Takes the value of a slot, and leaves the default.
    pub fn take(&mut self, slot: Slot) -> T {
        self.get_mut(slot).map(std::mem::take).unwrap_or_default()
    }

    /// The slots that may have another value than the default, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        let pages = std::iter::once(&self.first).chain(&self.others);
        pages.enumerate().flat_map(|(page, values)| {
            let places = values.iter().enumerate();
            places.map(move |(place, value)| (page * PAGE + place, value))
        })
    }

    /// Drops the values of vacant slots, and closes the gaps.
    pub fn renumber(&mut self, gaps: &Gaps) {
        let Sparse { first, others } = std::mem::take(self);
        let pages = std::iter::once(first).chain(others);
        for (page, values) in pages.enumerate() {
            for (place, value) in values.into_iter().enumerate() {
                let slot = page * PAGE + place;
                let new = gaps.before_slot(slot);
                if new < gaps.before_slot(slot + 1) {
                    *self.at(new) = value;
                }
            }
        }
    }

    /// Lets the mover move the pages.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.first);
        by.vec(&mut self.others);
        self.others.iter_mut().for_each(|page| by.vec(page));
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.first) + buffer(&self.others) + self.others.iter().map(buffer).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_with_their_slots_on_all_pages() {
        let slots = [0, 1, 63, 64, 127, 128, 1000];
        let mut sparse = Sparse::default();
        for slot in slots.into_iter().rev() {
            assert_eq!(sparse.get(slot).copied().unwrap_or(0), 0);
            *sparse.at(slot) = slot + 1;
        }
        let set = |sparse: &Sparse<usize>| {
            let all = sparse.iter().map(|(slot, value)| (slot, *value));
            all.filter(|(_, value)| *value > 0).collect::<Vec<_>>()
        };
        assert_eq!(set(&sparse), slots.map(|slot| (slot, slot + 1)));
        assert_eq!(sparse.get(65).copied().unwrap_or(0), 0);
        assert_eq!(sparse.take(127), 128);
        assert_eq!(sparse.get_mut(127).copied().unwrap_or(0), 0);
        let is_vacant = |slot: Slot| !slots.contains(&slot) || slot == 63;
        sparse.renumber(&Gaps::of((0..1001).map(is_vacant)));
        let left = [(0, 1), (1, 2), (2, 65), (4, 129), (5, 1001)];
        assert_eq!(set(&sparse), left);
    }
}
