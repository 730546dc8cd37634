//! A member without its seat: its name, and how often it was picked.

use crate::lb::ground::bounds::counted;
use crate::lb::ground::name::Name;
use crate::lb::ground::row::Vacant;

/// The name of a backend, and how often it was picked.
#[derive(Clone, Debug)]
pub struct Card {
    pub name: Name,
    pub picks: u64,
}

impl Card {
    /// The card of a backend that was picked that often.
    pub fn new(name: &[u8], picks: u64) -> Card {
        Card {
            name: Name::new(name),
            picks,
        }
    }

    /// Counts one pick more.
    #[inline(always)]
    pub fn count(&mut self) {
        self.picks = counted(self.picks);
    }

    /// Whether the backend of the slot was removed.
    pub fn is_vacant(&self) -> bool {
        self.name.as_bytes().is_empty()
    }
}

impl Vacant for Card {
    const VACANT: Card = Card {
        name: Name::EMPTY,
        picks: 0,
    };
}
