//! Round robin: each in its turn. For backends that are alike, whatever their weights say.
//!
//! O(1) where the next one in line is eligible, O(log n) where it is not.

use super::own::{Before, Own, Pick};
use super::view::View;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::saved::{Malformed, Reader, Writer};

/// Where round robin stands: behind the slot that it picked last.
///
/// It is a place and not a backend, so it outlives the backend that was picked. Newcomers stand at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    next: u32,
}

pub struct RoundRobin;

impl Pick for RoundRobin {
    const NAME: &'static str = "rr";
    const CODE: u8 = 1;
    type Own = Cursor;

    fn pick(cursor: &mut Cursor, see: View<'_>, _: &mut Chance) -> Slot {
        let next = cursor.next as Slot;
        let slot = match see.is_eligible(next) {
            Some(true) => next,
            Some(false) => match see.rank(next) {
                rank if rank < see.eligible() => see.by_count(rank),
                _ => see.by_count(0),
            },
            None => see.by_count(0),
        };
        cursor.next = slot as u32 + 1;
        slot
    }

    fn pick_ahead(cursor: &mut Cursor, see: View<'_>) -> Option<(Slot, Before)> {
        let before = Before::from(cursor.next);
        Some((
            RoundRobin::pick(cursor, see, &mut Chance::default()),
            before,
        ))
    }

    fn take_back(cursor: &mut Cursor, _: View<'_>, _: Slot, before: Before) {
        cursor.next = before as u32;
    }
}

impl Own for Cursor {
    fn check(&self, see: View<'_>) {
        assert!(self.is_sound(see.seats().len()));
    }
}

impl Kept for Cursor {
    fn renumber(&mut self, gaps: &Gaps) {
        self.next = gaps.before_slot(self.next as Slot) as u32;
    }
}

impl Cursor {
    /// Writes how many backends stand before it.
    pub fn save(&self, gaps: &Gaps, to: &mut Writer) {
        to.put(&(gaps.before_slot(self.next as Slot) as u32));
    }

    /// Reads how many backends stand before it. Whether the pool has as many shows when it was read.
    pub fn load(&mut self, from: &mut Reader) -> Result<(), Malformed> {
        self.next = from.get()?;
        Ok(())
    }

    /// Whether it can stand there in a pool with this number of slots.
    pub fn is_sound(&self, slots: usize) -> bool {
        self.next as Slot <= slots
    }
}
