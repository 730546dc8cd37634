//! The owners of leases.

use hashbrown::HashTable;

use super::entry::List;
use crate::lb::ground::memory::{allocated, buffer};
use crate::lb::ground::name::{Name, hash};

/// All owners of open leases, each name once.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    owners: Vec<Owner>,
    vacant: Vec<u32>,
    by_name: HashTable<u32>,
    name_bytes: usize,
}

#[derive(Clone, Debug)]
struct Owner {
    name: Name,
    list: List,
}

impl Owners {
    /// The name of an owner.
    pub fn name(&self, owner: u32) -> &[u8] {
        self.owners[owner as usize].name.as_bytes()
    }

    /// The leases of an owner.
    pub fn list(&self, owner: u32) -> &List {
        &self.owners[owner as usize].list
    }

    /// The leases of an owner, to change them.
    pub fn list_mut(&mut self, owner: u32) -> &mut List {
        &mut self.owners[owner as usize].list
    }

    /// How many leases have an owner.
    pub fn leases(&self) -> u32 {
        self.owners.iter().map(|owner| owner.list.len).sum()
    }

    /// The owner of that name.
    pub fn find(&self, name: &[u8]) -> Option<u32> {
        let same = |owner: &u32| self.owners[*owner as usize].name.as_bytes() == name;
        self.by_name.find(hash(name), same).copied()
    }

    /// The owner of that name. Adds it if there is none yet.
    pub fn find_or_add(&mut self, name: &[u8]) -> u32 {
        if let Some(owner) = self.find(name) {
            return owner;
        }
        let new = Owner {
            name: Name::new(name),
            list: List::default(),
        };
        self.name_bytes += new.name.heap_bytes();
        let owner = match self.vacant.pop() {
            Some(vacant) => {
                self.owners[vacant as usize] = new;
                vacant
            }
            None => {
                self.owners.push(new);
                self.owners.len() as u32 - 1
            }
        };
        let rehash = |o: &u32| hash(self.owners[*o as usize].name.as_bytes());
        self.by_name.insert_unique(hash(name), owner, rehash);
        owner
    }

    /// Removes an owner without leases.
    pub fn remove(&mut self, owner: u32) {
        let hash = hash(self.owners[owner as usize].name.as_bytes());
        if let Ok(found) = self.by_name.find_entry(hash, |o| *o == owner) {
            found.remove();
        }
        self.name_bytes -= self.owners[owner as usize].name.heap_bytes();
        self.owners[owner as usize].name = Name::new(b"");
        self.vacant.push(owner);
        if self.by_name.is_empty() {
            *self = Owners::default();
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.owners)
            + buffer(&self.vacant)
            + allocated(self.by_name.allocation_size())
            + self.name_bytes
    }
}
