//! The turns of `lc` and of `ewma`: among equals the one is picked that had its last turn longest ago.

use std::fmt::Debug;

use super::by_tier::ByTier;
use super::own::{Before, Own};
use super::view::View;
use crate::lb::field::Field;
use crate::lb::ground::bounds::{COUNTER_MAX, Slot, counted};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, buffer};
use crate::lb::ground::saved::{Malformed, Reader, Writer};

/// The competition of the eligible backends of a tier.
pub trait Contest: Clone + Debug + PartialEq {
    /// Whether the turns are a section of their own in a saved pool.
    const HAS_SECTION: bool;

    /// The contest of that tier. The last turns of all slots are handed in here and below.
    fn of(see: View<'_>, tier: u8, last: &[u64]) -> Self;

    /// Makes room for the slot that was added last, which is not eligible yet; false where all must be played again.
    fn grown(&mut self, slots: usize) -> bool;

    /// The measure or the last turn of a slot has changed.
    fn replay(&mut self, see: View<'_>, tier: u8, last: &[u64], slot: Slot);

    /// The backend that comes first.
    fn leader(&self, see: View<'_>, last: &[u64]) -> Option<Slot>;

    /// Lets the mover move all that is on the heap.
    fn relocate(&mut self, by: &mut impl Mover);

    /// How many bytes it takes on the heap.
    fn heap_bytes(&self) -> usize;
}

/// The turns of an algorithm: how many there were, and when each backend had its last one.
#[derive(Clone, Debug)]
pub struct TurnsOf<C> {
    /// How many picks it has made.
    turns: u64,
    /// When it picked each slot last, in its own picks.
    last: Vec<u64>,
    contests: ByTier<C>,
}

impl<C> Default for TurnsOf<C> {
    fn default() -> TurnsOf<C> {
        TurnsOf {
            turns: 0,
            last: Vec::new(),
            contests: ByTier::default(),
        }
    }
}

impl<C: Contest> TurnsOf<C> {
    /// The turns of a pool with this number of slots, before the first pick.
    pub fn of(slots: usize) -> TurnsOf<C> {
        TurnsOf {
            last: vec![0; slots],
            ..TurnsOf::default()
        }
    }

    /// How many picks it has made.
    pub fn made(&self) -> u64 {
        self.turns
    }

    /// Reads how many picks it has made.
    pub fn load(slots: usize, from: &mut Reader) -> Result<TurnsOf<C>, Malformed> {
        Ok(TurnsOf {
            turns: from.number("turns", COUNTER_MAX)?,
            ..TurnsOf::of(slots)
        })
    }

    /// Writes when it picked a slot last.
    pub fn save_last(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.last[slot]);
    }

    /// Reads when it picked a slot last.
    pub fn load_last(&mut self, slot: Slot, from: &mut Reader) -> Result<(), Malformed> {
        self.last[slot] = from.number("turn", self.turns)?;
        Ok(())
    }

    /// Picks the backend that comes first. There is an eligible one.
    pub fn pick(&mut self, see: View<'_>) -> Slot {
        let slot = self.leader(see);
        let turn = counted(self.turns);
        self.picked(see, slot, turn, turn);
        slot
    }

    /// As [`Pick::pick_ahead`](super::own::Pick::pick_ahead).
    pub fn pick_ahead(&mut self, see: View<'_>) -> Option<(Slot, Before)> {
        let turn = counted(self.turns);
        if turn == COUNTER_MAX {
            return None;
        }
        let slot = self.leader(see);
        let before = self.last[slot];
        self.picked(see, slot, turn, turn);
        Some((slot, before))
    }

    /// As [`Pick::take_back`](super::own::Pick::take_back).
    pub fn take_back(&mut self, see: View<'_>, slot: Slot, before: Before) {
        self.picked(see, slot, self.turns - 1, before);
    }

    fn leader(&mut self, see: View<'_>) -> Slot {
        let (last, tier) = (&self.last, see.tier());
        let make = || C::of(see, tier, last);
        let contest = self.contests.serving(tier, see.seats(), make);
        let leader = contest.leader(see, last);
        leader.expect("there is an eligible backend")
    }

    fn picked(&mut self, see: View<'_>, slot: Slot, turns: u64, last: u64) {
        self.turns = turns;
        self.last[slot] = last;
        self.load_changed(see, slot);
    }
}

impl<C: Contest> Own for TurnsOf<C> {
    fn weight_changed(&mut self, see: View<'_>, slot: Slot) {
        self.load_changed(see, slot);
    }

    fn load_changed(&mut self, see: View<'_>, slot: Slot) {
        let tier = see.seats()[slot].tier();
        if let Some(contest) = self.contests.get_mut(tier) {
            contest.replay(see, tier, &self.last, slot);
        }
    }

    fn start_anew(&mut self, _: &Field) {
        self.contests = ByTier::default();
    }

    fn save_section(&self, slots: &[Slot], to: &mut Writer) {
        if C::HAS_SECTION && self.turns > 0 {
            to.put(&self.turns);
            slots.iter().for_each(|slot| self.save_last(*slot, to));
        }
    }

    fn load_section(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
        if !C::HAS_SECTION {
            return Err(Malformed::Version);
        }
        *self = TurnsOf::load(slots, from)?;
        (0..slots).try_for_each(|slot| self.load_last(slot, from))
    }

    fn check(&self, see: View<'_>) {
        for (tier, contest) in self.contests.all() {
            assert_eq!(*contest, C::of(see, *tier, &self.last));
        }
    }
}

impl<C: Contest> Kept for TurnsOf<C> {
    fn grown(&mut self, slots: usize) {
        self.last.resize(slots, 0);
        self.contests.retain(|contest| contest.grown(slots));
    }

    fn forget(&mut self, slot: Slot) {
        self.last[slot] = 0;
    }

    fn renumber(&mut self, gaps: &Gaps) {
        gaps.close(&mut self.last);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.last);
        self.contests.relocate(by, C::relocate);
    }

    fn heap_bytes(&self) -> usize {
        buffer(&self.last) + self.contests.heap_bytes(C::heap_bytes)
    }
}
