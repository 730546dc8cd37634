//! The owners of leases.

use super::entry::List;
use super::places::{Links, Places, Record};
use crate::lb::ground::chains::{At, Chains, Records};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::name::{Name, hash};
use crate::lb::ground::pages::Pages;

/// All owners of leases, each name once.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    owners: Places<Owner>,
    by_name: Chains,
    name_bytes: usize,
}

#[derive(Clone, Debug)]
struct Owner {
    name: Name,
    /// Without leases it is vacant.
    list: List,
    chain: At,
    links: Links,
}

impl Record for Owner {
    fn vacate(&mut self, links: Links) {
        self.links = links;
    }

    fn links(&mut self) -> &mut Links {
        &mut self.links
    }

    fn is_vacant(&self) -> bool {
        self.list.len == 0
    }
}

impl Records for Pages<Owner> {
    fn hash(&self, at: At) -> u64 {
        hash(self[at as usize].name.as_bytes())
    }

    fn link(&self, at: At) -> At {
        self[at as usize].chain
    }

    fn link_mut(&mut self, at: At) -> &mut At {
        &mut self[at as usize].chain
    }
}

/// An owner with more leases than this stays at its place.
const MOVED_WITH: u32 = 8;

impl Owners {
    /// The name of an owner.
    pub fn name(&self, owner: u32) -> &[u8] {
        self.owners.records[owner as usize].name.as_bytes()
    }

    /// The leases of an owner.
    pub fn list(&self, owner: u32) -> &List {
        &self.owners.records[owner as usize].list
    }

    /// The leases of an owner, to change them.
    pub fn list_mut(&mut self, owner: u32) -> &mut List {
        &mut self.owners.records[owner as usize].list
    }

    /// How many leases have an owner.
    pub fn leases(&self) -> u32 {
        self.owners.records.iter().map(|owner| owner.list.len).sum()
    }

    /// The owner of that name.
    pub fn find(&self, name: &[u8]) -> Option<u32> {
        self.find_hashed(name, hash(name))
    }

    #[inline(always)]
    fn find_hashed(&self, name: &[u8], hash: u64) -> Option<u32> {
        let owners = &self.owners.records;
        let is_it = |at: At| owners[at as usize].name.as_bytes() == name;
        Some(self.by_name.find(hash, owners, is_it)?.at)
    }

    /// The owner of that name. Adds it if there is none yet; then a lease must follow.
    pub fn find_or_add(&mut self, name: &[u8]) -> u32 {
        let hash = hash(name);
        if let Some(owner) = self.find_hashed(name, hash) {
            return owner;
        }
        let name = Name::new(name);
        self.name_bytes += name.heap_bytes();
        let at = self.owners.next();
        let chain = (self.by_name).insert(at, hash, &mut self.owners.records);
        self.owners.add(Owner {
            name,
            list: List::default(),
            chain,
            links: Links::NONE,
        })
    }

    /// Removes an owner without leases.
    pub fn remove(&mut self, owner: u32) {
        let owners = &mut self.owners.records;
        let found = self.by_name.find_at(owner, owners.hash(owner), owners);
        let next = owners.link(owner);
        self.by_name.remove(found, next, owners);
        let name = &mut self.owners.records[owner as usize].name;
        self.name_bytes -= name.heap_bytes();
        *name = Name::new(b"");
        self.owners.vacate(owner);
    }

    /// Whether it takes more memory than it needs.
    #[inline(always)]
    pub fn has_too_many(&self) -> bool {
        self.owners.has_too_many()
    }

    /// Gives memory back that is not needed. Answers the place to which an owner has moved: its leases must be told.
    pub fn shrink(&mut self) -> Option<u32> {
        let may_move = |owner: &Owner| owner.list.len <= MOVED_WITH;
        let (from, to) = self.owners.shrink(may_move)?;
        self.by_name.moved(from, to, &mut self.owners.records);
        Some(to)
    }

    /// Lets the mover move the tables.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        self.owners.relocate(by);
        self.by_name.relocate(by);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.owners.heap_bytes() + self.by_name.heap_bytes() + self.name_bytes
    }
}
