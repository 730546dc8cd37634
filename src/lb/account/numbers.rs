//! From the number of a lease to its place.

use std::sync::LazyLock;

use super::entry::{At, Entry, NONE};
use crate::lb::ground::memory::{Mover, buffer};
use crate::lb::ground::name::hash;

/// The process's own, as the key of the hash of names.
static KEY: LazyLock<u64> = LazyLock::new(|| hash(b"the numbers of leases"));

/// From a lease's number to its place: a hash table with linear probing, of any size.
///
/// A crate's table doubles. Just after that it takes 11 bytes a lease and more, where this one takes 7. So a lease stays
/// within 64 bytes where there are a million.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    cells: Vec<At>,
    used: usize,
}

impl Numbers {
    /// Where the search for a number begins. A payload can hold any numbers, and a client can choose which ones stay. With the
    /// key neither can make them collide. Without the last multiplication one key in a hundred is a bad one.
    fn home(&self, number: u64) -> usize {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(number ^ *KEY) * u128::from(GOLDEN);
        let scattered = (product as u64 ^ (product >> 64) as u64).wrapping_mul(GOLDEN);
        ((u128::from(scattered) * self.cells.len() as u128) >> 64) as usize
    }

    fn next(&self, cell: usize) -> usize {
        if cell + 1 < self.cells.len() {
            cell + 1
        } else {
            0
        }
    }

    /// The cell of that number, or a free one where it is not there. There is a free one.
    fn cell(&self, number: u64, entries: &[Entry]) -> usize {
        let mut cell = self.home(number);
        while self.cells[cell] != NONE && entries[self.cells[cell] as usize].number != number {
            cell = self.next(cell);
        }
        cell
    }

    pub fn find(&self, number: u64, entries: &[Entry]) -> Option<At> {
        if self.cells.is_empty() {
            return None;
        }
        Some(self.cells[self.cell(number, entries)]).filter(|at| *at != NONE)
    }

    pub fn insert(&mut self, at: At, entries: &[Entry]) {
        // At most two thirds are in use.
        if (self.used + 1) * 3 > self.cells.len() * 2 {
            let cells = vec![NONE; self.cells.len() / 5 * 6 + 10];
            let old = std::mem::replace(&mut self.cells, cells);
            for at in old.into_iter().filter(|at| *at != NONE) {
                self.put(at, entries);
            }
        }
        self.put(at, entries);
        self.used += 1;
    }

    fn put(&mut self, at: At, entries: &[Entry]) {
        // It is new, so nothing needs to be compared.
        let mut cell = self.home(entries[at as usize].number);
        while self.cells[cell] != NONE {
            cell = self.next(cell);
        }
        self.cells[cell] = at;
    }

    pub fn remove(&mut self, number: u64, entries: &[Entry]) {
        let mut hole = self.cell(number, entries);
        self.used -= 1;
        // The next ones move up into the hole, unless that lies before their home.
        let mut cell = hole;
        loop {
            self.cells[hole] = NONE;
            loop {
                cell = self.next(cell);
                let at = self.cells[cell];
                if at == NONE {
                    return;
                }
                let home = self.home(entries[at as usize].number);
                let from_home = |to: usize| (to + self.cells.len() - home) % self.cells.len();
                if from_home(hole) < from_home(cell) {
                    self.cells[hole] = at;
                    hole = cell;
                    break;
                }
            }
        }
    }

    /// How far a number lies from its home. For the tests.
    #[cfg(test)]
    pub fn distance(&self, number: u64, entries: &[Entry]) -> usize {
        let cells = self.cells.len();
        (self.cell(number, entries) + cells - self.home(number)) % cells
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Lets the mover move the table.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.cells);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.cells)
    }
}
