//! From a backend's name to its slot.

use hashbrown::HashTable;

use super::card::Card;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::kept::Gaps;
use crate::lb::ground::memory::{Mover, allocated, buffer};
use crate::lb::ground::name::{hash, public_hash};

/// Up to this number of slots are searched one by one, which needs no table.
const SEARCHED: usize = 16;

/// Finds backends by name. It keeps what would be a search of all names else.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Empty where the slots are searched one by one.
    entries: HashTable<Entry>,
    members: u32,
    /// The bytes of the names on the heap.
    name_bytes: usize,
    /// The public hashes of the names in the first slots: of those that were there when somebody asked for them last. That of a
    /// vacant slot means nothing.
    hashes: Vec<u64>,
}

/// A backend, with a part of its name's hash. So a table that grows reads no names, which costs ten times as much.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    slot: u32,
}

impl Entry {
    fn of(name: &[u8], slot: Slot) -> Entry {
        Entry {
            hash: hash(name) as u32,
            slot: slot as u32,
        }
    }

    /// The table goes by the lowest bits and by the highest ones.
    fn spread(&self) -> u64 {
        u64::from(self.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Index {
    /// The slot of that name, by that index if there is one.
    pub fn find(index: Option<&Index>, cards: &[Card], name: &[u8]) -> Option<Slot> {
        let Some(index) = index.filter(|_| cards.len() > SEARCHED) else {
            return cards.iter().position(|card| card.name.as_bytes() == name);
        };
        let wanted = Entry::of(name, 0);
        let found = index.entries.find(wanted.spread(), |entry| {
            entry.hash == wanted.hash && cards[entry.slot as Slot].name.as_bytes() == name
        });
        found.map(|entry| entry.slot as Slot)
    }

    /// How many backends there are.
    pub fn members(&self) -> usize {
        self.members as usize
    }

    /// The bytes of the names on the heap.
    pub fn name_bytes(&self) -> usize {
        self.name_bytes
    }

    /// The public hashes of the names of these cards, each made once.
    #[inline(always)]
    pub fn hashes(&mut self, cards: &[Card]) -> &[u64] {
        if self.hashes.len() < cards.len() {
            self.hash_newcomers(cards);
        }
        &self.hashes
    }

    #[cold]
    fn hash_newcomers(&mut self, cards: &[Card]) {
        let newcomers = cards[self.hashes.len()..].iter();
        (self.hashes).extend(newcomers.map(|card| public_hash(card.name.as_bytes())));
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
        let gone = Entry::of(cards[slot].name.as_bytes(), slot);
        let found = self
            .entries
            .find_entry(gone.spread(), |entry| entry.slot == gone.slot);
        if let Ok(entry) = found {
            entry.remove();
        }
    }

    /// Closes the gaps. They were closed between these cards.
    pub fn renumber(&mut self, cards: &[Card], gaps: &Gaps) {
        if cards.len() <= SEARCHED {
            self.entries.clear();
        }
        let before = |entry: &Entry| gaps.before_slot(entry.slot as Slot) as u32;
        (self.entries.iter_mut()).for_each(|entry| entry.slot = before(entry));
        self.entries.shrink_to_fit(Entry::spread);
        gaps.close(&mut self.hashes);
    }

    /// Lets the mover move the hashes.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.hashes);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        allocated(self.entries.allocation_size()) + buffer(&self.hashes)
    }

    fn fill(&mut self, cards: &[Card]) {
        for slot in 0..cards.len() {
            if !cards[slot].is_vacant() {
                self.insert(cards, slot);
            }
        }
    }

    fn insert(&mut self, cards: &[Card], slot: Slot) {
        let entry = Entry::of(cards[slot].name.as_bytes(), slot);
        (self.entries).insert_unique(entry.spread(), entry, Entry::spread);
    }
}
