//! The members of a pool: their names, how often each was picked, and the way from a name to its slot.

mod card;
mod index;

pub use card::Card;
use index::Index;

use crate::lb::ground::bounds::Slot;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::row::{Row, Vacant};
use crate::lb::ground::saved::{Bytes, Writer};

/// The members of a pool in order of addition, with vacant slots between them.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    cards: Row<Card, Index>,
}

impl Roster {
    /// How many members there are.
    pub fn len(&self) -> usize {
        (self.cards.more()).map_or_else(|| self.members().count(), Index::members)
    }

    /// How many slots there are, vacant ones among them.
    pub fn slots(&self) -> usize {
        self.cards.len()
    }

    /// The slots that are not vacant.
    pub fn members(&self) -> impl Iterator<Item = Slot> {
        let slots = self.cards.iter().enumerate();
        slots.filter_map(|(slot, card)| (!card.is_vacant()).then_some(slot))
    }

    /// The slot of the backend of that name.
    pub fn find(&self, name: &[u8]) -> Option<Slot> {
        Index::find(self.cards.more(), &self.cards, name)
    }

    /// The name of a backend; empty in a vacant slot.
    #[inline(always)]
    pub fn name(&self, slot: Slot) -> &[u8] {
        self.cards[slot].name.as_bytes()
    }

    /// The card of a backend.
    pub fn card(&self, slot: Slot) -> &Card {
        &self.cards[slot]
    }

    /// Counts one pick more of the backend; answers its card.
    #[inline(always)]
    pub fn count(&mut self, slot: Slot) -> &Card {
        let card = self.cards.at_mut(slot);
        card.count();
        card
    }

    /// All cards, vacant ones among them. To find them once costs less than for each of many.
    #[inline(always)]
    pub fn cards(&self) -> &[Card] {
        &self.cards
    }

    /// The same, to be changed.
    #[inline(always)]
    pub fn cards_mut(&mut self) -> &mut [Card] {
        &mut self.cards
    }

    /// All cards, with the public hashes of their names where there are many.
    pub fn hashed(&mut self) -> (&[Card], &[u64]) {
        match self.cards.parts() {
            (cards, Some(index)) => (cards, index.hashes(cards)),
            (cards, None) => (cards, &[]),
        }
    }

    /// Adds a backend of a new name; answers its slot.
    pub fn add(&mut self, name: &[u8]) -> Slot {
        self.add_card(Card::new(name, 0))
    }

    /// Adds a backend with this card, which was read; false where its name is there already.
    #[inline(always)]
    pub fn add_loaded(&mut self, card: Card) -> bool {
        let is_new = match self.cards.more() {
            // Of names in cards, all bytes are compared at once.
            None => !self.cards.iter().any(|other| other.name == card.name),
            Some(_) => self.find(card.name.as_bytes()).is_none(),
        };
        self.add_card(card);
        is_new
    }

    #[inline(always)]
    fn add_card(&mut self, card: Card) -> Slot {
        let had_index = self.cards.more().is_some();
        self.cards.push(card);
        if let (cards, Some(index)) = self.cards.parts() {
            match had_index {
                true => index.added(cards),
                false => index.know(cards),
            }
        }
        self.cards.len() - 1
    }

    /// The gaps that removed backends left.
    pub fn gaps(&self) -> Gaps {
        Gaps::of(self.cards.iter().map(Card::is_vacant))
    }

    /// Lets the mover move the names of `most` slots, from that slot on; answers the slot to go on from, if there is one.
    pub fn relocate_names(&mut self, by: &mut impl Mover, from: Slot, most: usize) -> Option<Slot> {
        let cards = self.cards.iter_mut().skip(from).take(most);
        cards.for_each(|card| card.name.relocate(by));
        Some(from + most).filter(|next| *next < self.cards.len())
    }

    /// Writes the name of a backend.
    pub fn save_name(&self, slot: Slot, to: &mut Writer) {
        to.put(&Bytes(self.name(slot)));
    }

    /// Writes how often a backend was picked.
    pub fn save_picks(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.cards[slot].picks);
    }

    /// Panics where the index does not agree with the cards. For the tests.
    pub fn check(&self) {
        assert_eq!(self.members().count(), self.len());
        for slot in self.members() {
            assert_eq!(self.find(self.name(slot)), Some(slot));
        }
        let names = self.cards.iter().map(|card| card.name.heap_bytes());
        assert_eq!(names.sum::<usize>(), self.name_bytes());
    }

    /// The bytes of the names on the heap.
    fn name_bytes(&self) -> usize {
        let names = self.cards.iter().map(|card| card.name.heap_bytes());
        (self.cards.more()).map_or_else(|| names.sum(), Index::name_bytes)
    }
}

impl Kept for Roster {
    fn forget(&mut self, slot: Slot) {
        let (cards, index) = self.cards.parts();
        if let Some(index) = index {
            index.remove(cards, slot);
        }
        cards[slot] = Card::VACANT;
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.cards.close(gaps);
        if let (cards, Some(index)) = self.cards.parts() {
            index.renumber(cards, gaps);
        }
    }

    /// The table of the index stays where it is: it belongs to a library, and is 7 % of a pool at most.
    fn relocate(&mut self, by: &mut impl Mover) {
        self.cards.relocate(by);
        if let (_, Some(index)) = self.cards.parts() {
            index.relocate(by);
        }
    }

    fn heap_bytes(&self) -> usize {
        let index = self.cards.more().map_or(0, Index::heap_bytes);
        self.cards.heap_bytes() + self.name_bytes() + index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_found_however_the_roster_grows_and_shrinks() {
        let mut roster = Roster::default();
        let mut named = 0u32;
        for (add, keep) in [(40, 10), (30, 2), (20, 17), (1, 16), (3, 3), (1, 0), (2, 1)] {
            for _ in 0..add {
                named += 1;
                // Every other name is too long to lie in its card.
                let name = [&[b'n'; 30][..], &named.to_be_bytes()].concat();
                roster.add(&name[30 * (named as usize % 2)..]);
                roster.check();
            }
            let gone: Vec<Slot> = roster.members().skip(keep).collect();
            for slot in gone {
                roster.forget(slot);
                roster.check();
            }
            roster.renumber(&roster.gaps());
            roster.check();
            assert_eq!((roster.len(), roster.slots()), (keep, keep));
        }
    }
}
