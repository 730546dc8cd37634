//! Things that end, or begin again, by themselves.

use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;

/// A part of the account in which something can be due.
///
/// One step ends one thing, in O(log n). So the caller decides how many end at once.
pub trait Timed {
    /// When the first thing is due.
    fn due(&self) -> Option<Millis>;

    /// Ends the first thing, if it is due at this clock. Answers whose running weight that may change.
    fn end_first(&mut self, clock: Millis) -> Option<Whose>;
}

/// The owner of a limit, or of a thing that is due: a backend, or the pool as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose(u32);

impl Whose {
    /// The pool as a whole.
    pub const POOL: Whose = Whose(u32::MAX);

    /// The backend of this slot.
    pub fn of(slot: Slot) -> Whose {
        Whose(slot as u32)
    }

    /// The slot of the backend, if it is one's.
    pub fn slot(self) -> Option<Slot> {
        (self != Whose::POOL).then_some(self.0 as Slot)
    }
}
