//! Round robin: each in its turn. For backends that are alike, whatever their weights say.
//!
//! O(1) where the next one in line is eligible, O(log n) where it is not.

use super::own::{Before, Own, Pick};
use super::view::View;
use crate::lb::field::Seat;
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

    fn pick(cursor: &mut Cursor, see: View<'_>, chance: &mut Chance) -> Slot {
        let picked = RoundRobin::pick_if_any(cursor, see, chance);
        picked.expect("there is at least one")
    }

    #[inline(always)]
    fn pick_if_any(cursor: &mut Cursor, see: View<'_>, _: &mut Chance) -> Option<Slot> {
        let slot = match cursor.next_in_line(see.seats(), see.tier()) {
            (slot, true) => slot,
            (slot, false) => next_eligible(see, slot)?,
        };
        cursor.next = slot as u32 + 1;
        Some(slot)
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

/// The first eligible backend from that slot on, which is none itself; behind the last one comes the first.
#[inline(never)]
fn next_eligible(see: View<'_>, slot: Slot) -> Option<Slot> {
    if !see.has_eligible() {
        return None;
    }
    match see.rank(slot) {
        rank if rank < see.eligible() => Some(see.by_count(rank)),
        _ => Some(see.by_count(0)),
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
    /// The pick of backends of tier 0 that are few, if the next one in line is eligible.
    #[inline(always)]
    pub fn pick_of_few(&mut self, seats: &[Seat]) -> Option<Slot> {
        match self.next_in_line(seats, 0) {
            (slot, true) => {
                self.next = slot as u32 + 1;
                Some(slot)
            }
            (_, false) => None,
        }
    }

    /// The next slot in line, and whether its backend is eligible. Behind the last one comes the first.
    #[inline(always)]
    fn next_in_line(&self, seats: &[Seat], tier: u8) -> (Slot, bool) {
        let next = match self.next as Slot {
            next if next < seats.len() => next,
            _ => 0,
        };
        let seat = seats.get(next);
        (
            next,
            seat.is_some_and(|seat| seat.running_in(tier).is_some()),
        )
    }

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
