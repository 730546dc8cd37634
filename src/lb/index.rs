//! From a backend's name to its slot.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use hashbrown::HashTable;

use super::Slot;
use super::allocated;
use super::backend::Backend;

/// Up to this many slots are searched one by one, which needs no table.
const SEARCHED: usize = 16;

/// The keys of the hash: a process's own, so that no list of names can be made that collides in it. They decide
/// where an entry lies in the table, which no result shows.
static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

pub(super) fn hash(name: &[u8]) -> u64 {
    HASH.hash_one(name)
}

/// Finds backends by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(HashTable<u32>);

impl Index {
    /// The index of these slots.
    pub fn of(backends: &[Backend]) -> Index {
        let mut index = Index::default();
        if backends.len() > SEARCHED {
            index.fill(backends);
        }
        index
    }

    /// The slot of that name.
    pub fn find(&self, backends: &[Backend], name: &[u8]) -> Option<Slot> {
        if backends.len() <= SEARCHED {
            return backends.iter().position(|b| b.name() == name);
        }
        let same = |slot: &u32| backends[*slot as Slot].name() == name;
        self.0.find(hash(name), same).map(|slot| *slot as Slot)
    }

    /// Takes note of the backend that was added last.
    pub fn added(&mut self, backends: &[Backend]) {
        match backends.len() {
            0..=SEARCHED => {}
            n if n == SEARCHED + 1 => self.fill(backends),
            n => self.insert(backends, n - 1),
        }
    }

    /// Forgets the backend of that slot, which is still named.
    pub fn remove(&mut self, backends: &[Backend], slot: Slot) {
        if let Ok(entry) = self
            .0
            .find_entry(hash(backends[slot].name()), |s| *s as Slot == slot)
        {
            entry.remove();
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        allocated(self.0.allocation_size())
    }

    fn fill(&mut self, backends: &[Backend]) {
        self.0.clear();
        for slot in 0..backends.len() {
            if !backends[slot].is_vacant() {
                self.insert(backends, slot);
            }
        }
    }

    fn insert(&mut self, backends: &[Backend], slot: Slot) {
        let rehash = |s: &u32| hash(backends[*s as Slot].name());
        self.0
            .insert_unique(hash(backends[slot].name()), slot as u32, rehash);
    }
}
