//! A member of a pool, as others see it.

use crate::lb::field::{Field, Seat, State};
use crate::lb::ground::bounds::Slot;
use crate::lb::roster::Card;

/// A member of a pool, with its weight, state and picks.
#[derive(Clone, Copy)]
pub struct Backend<'a> {
    card: &'a Card,
    field: &'a Field,
    slot: Slot,
}

impl<'a> Backend<'a> {
    /// The backend of that slot, which is not vacant, and of that card.
    #[inline(always)]
    pub(super) fn of(card: &'a Card, field: &'a Field, slot: Slot) -> Backend<'a> {
        Backend { card, field, slot }
    }

    fn seat(self) -> &'a Seat {
        &self.field.seats()[self.slot]
    }

    /// Its name.
    #[inline(always)]
    pub fn name(self) -> &'a [u8] {
        self.card.name.as_bytes()
    }

    /// Its weight: its share among the others, 0 = quiesced.
    pub fn weight(self) -> u16 {
        self.seat().weight
    }

    /// Its tier: the backends of the lowest tier that has an eligible one serve.
    pub fn tier(self) -> u8 {
        self.seat().tier()
    }

    /// The state that the operator set.
    pub fn state(self) -> State {
        self.seat().state
    }

    /// How often it was picked since it was added.
    pub fn picks(self) -> u64 {
        self.card.picks
    }
}
