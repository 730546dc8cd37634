//! From a backend's name to its slot.

use hashbrown::HashTable;

use super::card::Card;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::memory::allocated;
use crate::lb::ground::name::hash;

/// Up to this number of slots are searched one by one, which needs no table.
const SEARCHED: usize = 16;

/// Finds backends by name.
#[derive(Clone, Debug, Default)]
pub struct Index(HashTable<u32>);

impl Index {
    /// The index of these slots.
    pub fn of(cards: &[Card]) -> Index {
        let mut index = Index::default();
        if cards.len() > SEARCHED {
            index.fill(cards);
        }
        index
    }

    /// The slot of that name.
    pub fn find(&self, cards: &[Card], name: &[u8]) -> Option<Slot> {
        if cards.len() <= SEARCHED {
            return cards.iter().position(|card| card.name.as_bytes() == name);
        }
        let same = |slot: &u32| cards[*slot as Slot].name.as_bytes() == name;
        self.0.find(hash(name), same).map(|slot| *slot as Slot)
    }

    /// Takes note of the backend that was added last.
    pub fn added(&mut self, cards: &[Card]) {
        match cards.len() {
            0..=SEARCHED => {}
            n if n == SEARCHED + 1 => self.fill(cards),
            n => self.insert(cards, n - 1),
        }
    }

    /// Forgets the backend of that slot, which is still named.
    pub fn remove(&mut self, cards: &[Card], slot: Slot) {
        if let Ok(entry) = self
            .0
            .find_entry(hash(cards[slot].name.as_bytes()), |s| *s as Slot == slot)
        {
            entry.remove();
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        allocated(self.0.allocation_size())
    }

    fn fill(&mut self, cards: &[Card]) {
        self.0.clear();
        for slot in 0..cards.len() {
            if !cards[slot].is_vacant() {
                self.insert(cards, slot);
            }
        }
    }

    fn insert(&mut self, cards: &[Card], slot: Slot) {
        let rehash = |s: &u32| hash(cards[*s as Slot].name.as_bytes());
        self.0
            .insert_unique(hash(cards[slot].name.as_bytes()), slot as u32, rehash);
    }
}
