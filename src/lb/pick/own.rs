//! The traits of an algorithm, and of its memory.

use std::fmt::Debug;

use super::view::View;
use crate::lb::field::Field;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::Kept;
use crate::lb::ground::saved::{Malformed, Reader, Writer};

/// A way to choose backends.
pub trait Pick {
    /// The user's word for it.
    const NAME: &'static str;
    /// Its code in saved pools. Never reused.
    const CODE: u8;
    /// What decides.
    const DEPENDS_ON: DependsOn = DependsOn::State;

    /// Its memory in each pool.
    type Own: Own;

    /// Chooses an eligible backend. There is at least one.
    fn pick(own: &mut Self::Own, see: View<'_>, chance: &mut Chance) -> Slot;

    /// The same, if there is one.
    #[inline(always)]
    fn pick_if_any(own: &mut Self::Own, see: View<'_>, chance: &mut Chance) -> Option<Slot> {
        see.has_eligible().then(|| Self::pick(own, see, chance))
    }

    /// Picks in a way that can be taken back. Where that cannot be done, this answers nothing and changes nothing: then a copy of the
    /// pool looks ahead.
    fn pick_ahead(_own: &mut Self::Own, _see: View<'_>) -> Option<(Slot, Before)> {
        None
    }

    /// Takes back the pick of that slot, which was the latest. All is again as it was just after it.
    fn take_back(_own: &mut Self::Own, _see: View<'_>, _slot: Slot, _before: Before) {
        unreachable!("{} does not pick ahead", Self::NAME)
    }
}

/// What decides on the picks of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependsOn {
    /// The state of the pool alone, so that the next picks can be told beforehand.
    State,
    /// The pool's generator of chance too.
    Chance,
    /// The item that is asked for, and nothing that happened before. Probes are no concern of such a pick.
    Item,
}

/// The memory that a pick has overwritten, in a form of the algorithm's own.
pub type Before = u64;

/// The memory of an algorithm in a pool. It implements the changes that matter to it.
pub trait Own: Kept + Clone + Debug + Default {
    /// The running weight of a backend is about to change.
    fn weight_changes(&mut self, _field: &Field, _slot: Slot) {}

    /// The running weight of a backend has changed.
    fn weight_changed(&mut self, _see: View<'_>, _slot: Slot) {}

    /// The operator gives a backend another weight. This comes between the two above.
    fn reweighted(&mut self, _field: &Field, _slot: Slot, _from: u16, _to: u16) {}

    /// A backend that takes no part was moved to another tier, where it is a newcomer.
    fn moved(&mut self, _field: &Field, _slot: Slot) {}

    /// The leases on a backend have changed, and its running weight has not.
    fn load_changed(&mut self, _see: View<'_>, _slot: Slot) {}

    /// The gaps are about to be closed, or all running weights to change. To play all anew, once it is needed, costs less than to follow
    /// each change.
    fn start_anew(&mut self, _field: &Field) {}

    /// Writes its section of a saved pool, if there is something in it. The backends are in these slots.
    ///
    /// rr, wrr and lc write none: the first two forms of a saved pool have a place for each of them.
    fn save_section(&self, _slots: &[Slot], _to: &mut Writer) {}

    /// Reads its section. The pool has this number of slots, and no slot is vacant.
    fn load_section(&mut self, _slots: usize, _from: &mut Reader) -> Result<(), Malformed> {
        Err(Malformed::Version)
    }

    /// Panics where it does not agree with the view. For the tests.
    fn check(&self, _see: View<'_>) {}
}

impl Own for () {}

/// Made when it is first needed.
impl<T: Own> Own for Option<Box<T>> {
    fn weight_changes(&mut self, field: &Field, slot: Slot) {
        if let Some(own) = self {
            own.weight_changes(field, slot);
        }
    }

    fn weight_changed(&mut self, see: View<'_>, slot: Slot) {
        if let Some(own) = self {
            own.weight_changed(see, slot);
        }
    }

    fn reweighted(&mut self, field: &Field, slot: Slot, from: u16, to: u16) {
        if let Some(own) = self {
            own.reweighted(field, slot, from, to);
        }
    }

    fn moved(&mut self, field: &Field, slot: Slot) {
        if let Some(own) = self {
            own.moved(field, slot);
        }
    }

    #[inline(always)]
    fn load_changed(&mut self, see: View<'_>, slot: Slot) {
        if let Some(own) = self {
            own.load_changed(see, slot);
        }
    }

    fn start_anew(&mut self, field: &Field) {
        if let Some(own) = self {
            own.start_anew(field);
        }
    }

    fn save_section(&self, slots: &[Slot], to: &mut Writer) {
        if let Some(own) = self {
            own.save_section(slots, to);
        }
    }

    fn load_section(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
        let mut own = T::default();
        own.grown(slots);
        own.load_section(slots, from)?;
        *self = Some(Box::new(own));
        Ok(())
    }

    fn check(&self, see: View<'_>) {
        if let Some(own) = self {
            own.check(see);
        }
    }
}
