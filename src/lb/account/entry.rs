//! A lease as it lies in memory, in 48 bytes, and lists of leases.

use crate::lb::ground::clock::Millis;

/// Where an entry lies. That is layout: it is not saved.
pub type At = u32;
pub const NONE: At = u32::MAX;

/// An open lease.
#[derive(Clone, Debug)]
pub struct Entry {
    pub number: u64,
    pub deadline: Short,
    pub granted: Short,
    pub slot: u32,
    pub owner: u32,
    /// Its place in the heap.
    pub place: u32,
    pub backend_links: Links,
    pub owner_links: Links,
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

/// The neighbours of a lease in a list.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    pub previous: At,
    pub next: At,
}

/// Some leases, linked through their entries, the oldest first.
#[derive(Clone, Copy, Debug)]
pub struct List {
    pub first: At,
    pub last: At,
    pub len: u32,
}

impl Default for List {
    fn default() -> List {
        List {
            first: NONE,
            last: NONE,
            len: 0,
        }
    }
}

impl List {
    pub fn push(
        &mut self,
        at: At,
        entries: &mut [Entry],
        links: impl Fn(&mut Entry) -> &mut Links,
    ) {
        *links(&mut entries[at as usize]) = Links {
            previous: self.last,
            next: NONE,
        };
        match self.last {
            NONE => self.first = at,
            last => links(&mut entries[last as usize]).next = at,
        }
        self.last = at;
        self.len += 1;
    }

    pub fn remove(
        &mut self,
        at: At,
        entries: &mut [Entry],
        links: impl Fn(&mut Entry) -> &mut Links,
    ) {
        let Links { previous, next } = *links(&mut entries[at as usize]);
        match previous {
            NONE => self.first = next,
            previous => links(&mut entries[previous as usize]).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => links(&mut entries[next as usize]).previous = previous,
        }
        self.len -= 1;
    }
}
