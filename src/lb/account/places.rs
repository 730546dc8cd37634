//! Records at places, which others refer to.

use super::entry::Links;
use crate::lb::ground::chains::{At, NONE};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::pages::Pages;

/// A record that can be vacant.
pub trait Record {
    /// In a vacant record: its neighbours among the vacant ones.
    fn links(&mut self) -> &mut Links;
    /// Whether it is vacant.
    fn is_vacant(&self) -> bool;
}

/// Records at places. A place that is vacated is used again. When more than half of the places are vacant, the last ones go, a
/// few at a time.
#[derive(Clone, Debug)]
pub struct Places<T> {
    /// The records, vacant ones among them.
    pub records: Pages<T>,
    vacant: At,
    used: usize,
}

/// This number of places stays, also where they are vacant: so a pool with few leases does not allocate and free in turn.
const SPARE: usize = 16;

impl<T> Default for Places<T> {
    fn default() -> Places<T> {
        Places {
            records: Pages::default(),
            vacant: NONE,
            used: 0,
        }
    }
}

impl<T: Record> Places<T> {
    /// Gives a record a place.
    pub fn add(&mut self, record: T) -> At {
        self.used += 1;
        match self.vacant {
            NONE => {
                self.records.push(record);
                self.records.len() as At - 1
            }
            at => {
                self.unlink(at);
                self.records[at as usize] = record;
                at
            }
        }
    }

    /// Vacates a place. Its record says already that it is vacant.
    pub fn vacated(&mut self, at: At) {
        debug_assert!(self.records[at as usize].is_vacant());
        self.used -= 1;
        let next = std::mem::replace(&mut self.vacant, at);
        *self.records[at as usize].links() = Links {
            previous: NONE,
            next,
        };
        if next != NONE {
            self.records[next as usize].links().previous = at;
        }
    }

    /// Gives up the last place, if too many are vacant. If its record may be moved, answers from where and to where it was.
    pub fn shrink(&mut self, may_move: impl Fn(&T) -> bool) -> Option<(At, At)> {
        let last = self.records.len().checked_sub(1)?;
        if last < 2 * self.used + SPARE {
            return None;
        }
        if self.records[last].is_vacant() {
            self.unlink(last as At);
            self.records.pop();
            return None;
        }
        if !may_move(&self.records[last]) {
            return None;
        }
        let to = self.vacant;
        self.unlink(to);
        self.records.swap_remove(to as usize);
        Some((last as At, to))
    }

    fn unlink(&mut self, at: At) {
        let Links { previous, next } = *self.records[at as usize].links();
        match previous {
            NONE => self.vacant = next,
            previous => self.records[previous as usize].links().next = next,
        }
        if next != NONE {
            self.records[next as usize].links().previous = previous;
        }
    }

    /// Lets the mover move the pages.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        self.records.relocate(by);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.records.heap_bytes()
    }
}
