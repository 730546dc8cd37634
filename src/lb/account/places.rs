//! Records at places, which others refer to.

use crate::lb::ground::chains::{At, NONE};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::pages::Pages;

/// The neighbours of a record in a list.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    pub previous: At,
    pub next: At,
}

impl Links {
    pub const NONE: Links = Links {
        previous: NONE,
        next: NONE,
    };
}

/// A record that can be vacant.
pub trait Record {
    /// Makes it a vacant one, with these neighbours among the vacant ones.
    fn vacate(&mut self, links: Links);
    /// In a vacant record: its neighbours.
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
    /// The first vacant one. Its link to the one before it says nothing.
    vacant: At,
    used: usize,
}

/// This number of places stays, also where all are vacant. So a pool whose leases come and go by a few dozens does not allocate,
/// move and free for them.
const SPARE: usize = 32;

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
    /// The place of the next record.
    #[inline(always)]
    pub fn next(&self) -> At {
        match self.vacant {
            NONE => self.records.len() as At,
            at => at,
        }
    }

    /// Gives a record the next place.
    #[inline(always)]
    pub fn add(&mut self, record: T) -> At {
        self.used += 1;
        match self.vacant {
            NONE => {
                self.records.push(record);
                self.records.len() as At - 1
            }
            at => {
                let place = &mut self.records[at as usize];
                self.vacant = place.links().next;
                *place = record;
                at
            }
        }
    }

    /// Vacates a place.
    #[inline(always)]
    pub fn vacate(&mut self, at: At) {
        self.used -= 1;
        let next = std::mem::replace(&mut self.vacant, at);
        self.records[at as usize].vacate(Links {
            previous: NONE,
            next,
        });
        if next != NONE {
            self.records[next as usize].links().previous = at;
        }
    }

    /// Whether too many places are vacant.
    #[inline(always)]
    pub fn has_too_many(&self) -> bool {
        self.records.len() > 2 * self.used + SPARE
    }

    /// Gives up the last place, if too many are vacant. If its record may be moved, answers from where and to where it was.
    pub fn shrink(&mut self, may_move: impl Fn(&T) -> bool) -> Option<(At, At)> {
        if !self.has_too_many() {
            return None;
        }
        let last = self.records.len() - 1;
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
        match self.vacant == at {
            true => self.vacant = next,
            false => self.records[previous as usize].links().next = next,
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
