//! One thing for each slot, without an allocation where they are few.

use std::ops::{Deref, DerefMut};

use super::kept::Gaps;
use super::memory::{Mover, buffer};

/// This number of things lie in the row itself. So a pool of three backends is one allocation.
const FEW: usize = 3;
/// Up to this number of things there is no room to spare.
const EXACT: usize = 8;

/// One thing for each slot. Where there are many, something more can be kept about them all.
#[derive(Clone, Debug)]
pub enum Row<T, M> {
    /// The first `len` of these things. Behind them there are vacant ones.
    Few { things: [T; FEW], len: Len },
    /// Any number of things.
    Many { things: Vec<T>, more: M },
}

impl<T: Vacant, M: Default> Default for Row<T, M> {
    fn default() -> Row<T, M> {
        Row::Few {
            things: [const { T::VACANT }; FEW],
            len: Len::Zero,
        }
    }
}

/// A number up to [`FEW`]. That it is not more needs no test.
#[derive(Clone, Copy, Debug)]
pub enum Len {
    Zero,
    One,
    Two,
    Three,
}

impl Len {
    const ALL: [Len; FEW + 1] = [Len::Zero, Len::One, Len::Two, Len::Three];
}

/// A thing that can be that of a vacant slot.
pub trait Vacant {
    /// The thing of a vacant slot.
    const VACANT: Self;
}

impl<T: Vacant, M: Default> Row<T, M> {
    /// Adds the thing of a new slot.
    #[inline(always)]
    pub fn push(&mut self, thing: T) {
        if let Row::Few { things, len } = self
            && let Some(place) = things.get_mut(*len as usize)
        {
            *place = thing;
            *len = Len::ALL[*len as usize + 1];
            return;
        }
        self.push_to_many(thing);
    }

    #[inline(never)]
    fn push_to_many(&mut self, thing: T) {
        let (things, _) = self.as_many();
        if things.len() == things.capacity() && things.len() < EXACT {
            things.reserve_exact(1);
        }
        things.push(thing);
    }

    /// The things, with what is kept about many.
    pub fn as_many(&mut self) -> (&mut Vec<T>, &mut M) {
        if let Row::Few { things, len } = self {
            let mut many = Vec::with_capacity(*len as usize + 1);
            let things = things.iter_mut().take(*len as usize);
            many.extend(things.map(|thing| std::mem::replace(thing, T::VACANT)));
            let more = M::default();
            *self = Row::Many { things: many, more };
        }
        match self {
            Row::Many { things, more } => (things, more),
            Row::Few { .. } => unreachable!("they were just made many"),
        }
    }

    /// Drops the things of vacant slots. Where few are left, what is kept about many goes.
    pub fn close(&mut self, gaps: &Gaps) {
        let (things, _) = self.as_many();
        gaps.close(things);
        if things.len() <= FEW {
            let few = std::mem::take(things);
            *self = Row::default();
            few.into_iter().for_each(|thing| self.push(thing));
        }
    }
}

impl<T, M> Row<T, M> {
    /// What is kept about many.
    #[inline(always)]
    pub fn more(&self) -> Option<&M> {
        match self {
            Row::Few { .. } => None,
            Row::Many { more, .. } => Some(more),
        }
    }

    /// The things, where they are few.
    #[inline(always)]
    pub fn few(&self) -> Option<&[T]> {
        match self {
            Row::Few { things, len } => Some(&things[..*len as usize]),
            Row::Many { .. } => None,
        }
    }

    /// The thing of a slot. It costs less than to find all things first.
    #[inline(always)]
    pub fn at_mut(&mut self, slot: usize) -> &mut T {
        match self {
            Row::Few { things, len } => &mut things[..*len as usize][slot],
            Row::Many { things, .. } => &mut things[slot],
        }
    }

    /// The things, and what is kept about many.
    pub fn parts(&mut self) -> (&mut [T], Option<&mut M>) {
        match self {
            Row::Few { things, len } => (&mut things[..*len as usize], None),
            Row::Many { things, more } => (things, Some(more)),
        }
    }

    /// Lets the mover move the things.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        if let Row::Many { things, .. } = self {
            by.vec(things);
        }
    }

    /// How many bytes the things take on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Row::Few { .. } => 0,
            Row::Many { things, .. } => buffer(things),
        }
    }
}

impl<T, M> Deref for Row<T, M> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        match self {
            Row::Few { things, len } => &things[..*len as usize],
            Row::Many { things, .. } => things,
        }
    }
}

impl<T, M> DerefMut for Row<T, M> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        self.parts().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Vacant for u64 {
        const VACANT: u64 = 0;
    }

    #[test]
    fn things_stay_in_order_while_the_row_grows_and_shrinks() {
        let mut row: Row<u64, ()> = Row::default();
        for n in 1..=20 {
            row.push(n);
            assert_eq!(*row, *Vec::from_iter(1..=n));
            assert_eq!(row.heap_bytes() > 0, n > 3);
        }
        for keep in [19, 8, 4, 3, 1, 0] {
            row.close(&Gaps::of(row.iter().map(|n| *n > keep)));
            assert_eq!(*row, *Vec::from_iter(1..=keep));
            assert_eq!(row.heap_bytes() > 0, keep > 3);
        }
        row.as_many();
        row.push(7);
        assert_eq!(*row, [7]);
    }
}
