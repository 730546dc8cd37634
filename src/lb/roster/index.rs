//! From a backend's name to its slot.

use hashbrown::HashTable;

use super::card::Card;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::memory::allocated;
use crate::lb::ground::name::hash;

/// Up to this number of slots are searched one by one, which needs no table.
const SEARCHED: usize = 16;

/// Finds backends by name. It keeps what would be a search of all names else.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Empty where the slots are searched one by one.
    slots: HashTable<u32>,
    members: u32,
    /// The bytes of the names on the heap.
    name_bytes: usize,
}

impl Index {
    /// The slot of that name, by that index if there is one.
    pub fn find(index: Option<&Index>, cards: &[Card], name: &[u8]) -> Option<Slot> {
        let Some(index) = index.filter(|_| cards.len() > SEARCHED) else {
            return cards.iter().position(|card| card.name.as_bytes() == name);
        };
        let same = |slot: &u32| cards[*slot as Slot].name.as_bytes() == name;
        let found = index.slots.find(hash(name), same);
        found.map(|slot| *slot as Slot)
    }

    /// How many backends there are.
    pub fn members(&self) -> usize {
        self.members as usize
    }

    /// The bytes of the names on the heap.
    pub fn name_bytes(&self) -> usize {
        self.name_bytes
    }

    /// Takes note of the backend that was added last.
    pub fn added(&mut self, cards: &[Card]) {
        let last = cards.len() - 1;
        self.members += 1;
        self.name_bytes += cards[last].name.heap_bytes();
        match cards.len() {
            0..=SEARCHED => {}
            n if n == SEARCHED + 1 => self.fill(cards),
            _ => self.insert(cards, last),
        }
    }

    /// Takes note of all backends, of which it has known none.
    pub fn know(&mut self, cards: &[Card]) {
        let members = cards.iter().filter(|card| !card.is_vacant());
        self.members = members.count() as u32;
        self.name_bytes = cards.iter().map(|card| card.name.heap_bytes()).sum();
        if cards.len() > SEARCHED {
            self.fill(cards);
        }
    }

    /// Forgets the backend of that slot, which is still named.
    pub fn remove(&mut self, cards: &[Card], slot: Slot) {
        self.members -= 1;
        self.name_bytes -= cards[slot].name.heap_bytes();
        let hash = hash(cards[slot].name.as_bytes());
        if let Ok(entry) = self.slots.find_entry(hash, |s| *s as Slot == slot) {
            entry.remove();
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        allocated(self.slots.allocation_size())
    }

    fn fill(&mut self, cards: &[Card]) {
        for slot in 0..cards.len() {
            if !cards[slot].is_vacant() {
                self.insert(cards, slot);
            }
        }
    }

    fn insert(&mut self, cards: &[Card], slot: Slot) {
        let rehash = |s: &u32| hash(cards[*s as Slot].name.as_bytes());
        let hash = hash(cards[slot].name.as_bytes());
        self.slots.insert_unique(hash, slot as u32, rehash);
    }
}
