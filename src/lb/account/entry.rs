//! A lease as it lies in memory, in 56 bytes, and lists of leases.

use std::sync::LazyLock;

use super::deadlines::Ending;
use super::places::{Links, Record};
pub use crate::lb::ground::chains::At;
use crate::lb::ground::chains::{NONE, Records};
use crate::lb::ground::clock::Millis;
use crate::lb::ground::name::hash;
use crate::lb::ground::pages::Pages;

/// A lease that is kept. Its place is layout: it is not saved.
#[derive(Clone, Debug)]
pub struct Entry {
    pub number: u64,
    pub deadline: Short,
    pub granted: Short,
    /// The group of its backend.
    pub group: u32,
    pub owner: u32,
    /// The next one with the same place in the table of numbers.
    pub chain: At,
    /// Its neighbours in the order in which leases end. In the heap: its place there, and [`IN_HEAP`](super::deadlines::IN_HEAP).
    pub order: Links,
    /// In a vacant entry: the neighbours among the vacant ones.
    pub group_links: Links,
    pub owner_links: Links,
}

/// Instead of the next one: an entry is vacant.
const VACANT: At = NONE - 2;

/// All leases, at their places.
pub type Entries = Pages<Entry>;

impl Ending for Entry {
    #[inline(always)]
    fn key(&self) -> (Millis, u64) {
        (self.deadline.millis(), self.number)
    }

    #[inline(always)]
    fn order(&mut self) -> &mut Links {
        &mut self.order
    }

    #[inline(always)]
    fn ordered(&self) -> Links {
        self.order
    }
}

impl Record for Entry {
    #[inline(always)]
    fn vacate(&mut self, links: Links) {
        self.order.next = VACANT;
        self.group_links = links;
    }

    #[inline(always)]
    fn links(&mut self) -> &mut Links {
        &mut self.group_links
    }

    fn is_vacant(&self) -> bool {
        self.order.next == VACANT
    }
}

/// The process's own, as the key of the hash of names.
static KEY: LazyLock<u64> = LazyLock::new(|| hash(b"the numbers of leases"));

/// The hash of a lease's number. A payload can hold any numbers, and a client can choose which ones stay. With the key neither
/// can make them collide.
#[inline(always)]
pub fn lease_hash(number: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let product = u128::from(number ^ *KEY) * u128::from(GOLDEN);
    // Without the last multiplication one key in a hundred is a bad one. Its upper bits are the good ones.
    (product as u64 ^ (product >> 64) as u64).wrapping_mul(GOLDEN) >> 24
}

impl Records for Entries {
    #[inline(always)]
    fn hash(&self, at: At) -> u64 {
        lease_hash(self[at as usize].number)
    }

    #[inline(always)]
    fn link(&self, at: At) -> At {
        self[at as usize].chain
    }

    #[inline(always)]
    fn link_mut(&mut self, at: At) -> &mut At {
        &mut self[at as usize].chain
    }
}

/// A time in 48 bits.
#[derive(Clone, Copy, Debug)]
pub struct Short([u16; 3]);

impl Short {
    pub fn of(millis: Millis) -> Short {
        Short([millis as u16, (millis >> 16) as u16, (millis >> 32) as u16])
    }

    pub fn millis(self) -> Millis {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

/// Some leases, linked through their entries, the oldest first.
#[derive(Clone, Debug)]
pub struct List {
    pub first: At,
    pub last: At,
    pub len: u32,
    /// Set where the first ones of them are over.
    pub mark: Option<Box<Mark>>,
}

/// A mark in a list of leases: those before it are over, whatever their deadlines. They are still counted until they are
/// cleared.
#[derive(Clone, Debug)]
pub struct Mark {
    /// The leases with lower numbers are over.
    pub below: u64,
    /// How many these are.
    pub over: u32,
    /// The marks are cleared in the order in which they were made. Only the order is saved.
    pub turn: u64,
}

impl Default for List {
    fn default() -> List {
        List {
            first: NONE,
            last: NONE,
            len: 0,
            mark: None,
        }
    }
}

impl List {
    /// How many are not over by the mark.
    pub fn unmarked(&self) -> u32 {
        self.len - self.mark.as_ref().map_or(0, |mark| mark.over)
    }

    /// Whether the lease of this number, which is one of the list, is over by the mark.
    #[inline(always)]
    pub fn is_over(&self, number: u64) -> bool {
        self.mark.as_ref().is_some_and(|mark| number < mark.below)
    }

    /// Adds a lease; answers its links.
    #[inline(always)]
    pub fn push(
        &mut self,
        at: At,
        entries: &mut Entries,
        links: impl Fn(&mut Entry) -> &mut Links,
    ) -> Links {
        let previous = std::mem::replace(&mut self.last, at);
        match previous {
            NONE => self.first = at,
            previous => links(&mut entries[previous as usize]).next = at,
        }
        self.len += 1;
        Links {
            previous,
            next: NONE,
        }
    }

    /// Takes out the lease of that number, which has these links. Answers the turn of the mark, if that was the last lease before
    /// it: then there is no mark any more.
    #[inline(always)]
    pub fn remove(
        &mut self,
        number: u64,
        Links { previous, next }: Links,
        entries: &mut Entries,
        links: impl Fn(&mut Entry) -> &mut Links,
    ) -> Option<u64> {
        match previous {
            NONE => self.first = next,
            previous => links(&mut entries[previous as usize]).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => links(&mut entries[next as usize]).previous = previous,
        }
        self.len -= 1;
        let mark = self.mark.as_mut().filter(|mark| number < mark.below)?;
        mark.over -= 1;
        let turn = mark.turn;
        match mark.over {
            0 => {
                self.mark = None;
                Some(turn)
            }
            _ => None,
        }
    }

    /// A lease of the list has moved to this place.
    pub fn moved(
        &mut self,
        to: At,
        entries: &mut Entries,
        links: impl Fn(&mut Entry) -> &mut Links,
    ) {
        let Links { previous, next } = *links(&mut entries[to as usize]);
        match previous {
            NONE => self.first = to,
            previous => links(&mut entries[previous as usize]).next = to,
        }
        match next {
            NONE => self.last = to,
            next => links(&mut entries[next as usize]).previous = to,
        }
    }
}
