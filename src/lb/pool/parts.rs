//! The parts of a pool, and how they are kept in step.

use crate::lb::account::{Account, Whose};
use crate::lb::field::{Field, Seat};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::Kept;
use crate::lb::ground::memory::{Mover, allocated};
use crate::lb::pick::{Own, Owns, View};
use crate::lb::roster::Roster;

/// A pool of backends.
///
/// A removed backend leaves its slot vacant, so that slots stay in order of addition; when half of them are vacant
/// the gaps are closed.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) roster: Roster,
    pub(super) field: Field,
    pub(super) owns: Owns,
    /// None in a pool that never used time, leases or limits.
    pub(super) account: Option<Box<Account>>,
    pub(super) chance: Chance,
    pub(super) picks: u64,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::new()
    }
}

impl Pool {
    /// The newest rules. Every pool begins with those of version 1, and keeps them until it is told: so a stream of any release
    /// gives the state that it gave there.
    pub const RULES: u8 = 2;

    /// A pool without backends and settings.
    pub fn new() -> Pool {
        Pool {
            roster: Roster::default(),
            field: Field::default(),
            owns: Owns {
                rules: 1,
                ..Owns::default()
            },
            account: None,
            chance: Chance::default(),
            picks: 0,
        }
    }

    /// The version of the rules that the pool runs by.
    pub fn rules(&self) -> u8 {
        self.owns.rules
    }

    /// How many bytes of memory the pool takes, with `beside` bytes beside it in the same block.
    pub fn bytes(&self, beside: usize) -> usize {
        allocated(size_of::<Pool>() + beside)
            + self.chance.heap_bytes()
            + self.roster.heap_bytes()
            + self.field.heap_bytes()
            + self.owns.heap_bytes()
            + self.account.heap_bytes()
    }

    /// Lets the mover move the buffers of the pool, but for the names.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        self.roster.relocate(by);
        self.field.relocate(by);
        self.owns.relocate(by);
        self.account.relocate(by);
    }

    /// Lets the mover move the names of `most` slots, from that slot on; answers the slot to go on from, if there is one.
    pub fn relocate_names(&mut self, by: &mut impl Mover, from: Slot, most: usize) -> Option<Slot> {
        self.roster.relocate_names(by, from, most)
    }

    // The parts of the steps

    /// The view of the algorithms.
    #[inline(always)]
    pub(super) fn see(&self) -> View<'_> {
        View::of(&self.field, self.account.as_deref())
    }

    /// The account, made where there was none.
    #[inline(always)]
    pub(super) fn account(&mut self) -> &mut Account {
        #[cold]
        fn made() -> Box<Account> {
            Box::default()
        }
        self.account.get_or_insert_with(made)
    }

    /// Gives a newcomer its seat. The roster has just taken in its name.
    pub(super) fn seat(&mut self, slot: Slot, seat: Seat) {
        self.field.add(seat);
        self.owns.grown(slot + 1);
        if let Some(account) = &mut self.account {
            account.joined(slot);
        }
        self.follow(slot);
        self.refresh(slot);
    }

    /// The weight of a backend where it is up, else 0.
    pub(super) fn weight_if_up(&self, slot: Slot) -> u16 {
        self.field.seats()[slot].weight_if_up()
    }

    /// The weight, the state or the health of a backend has changed.
    pub(super) fn follow(&mut self, slot: Slot) {
        if self.account.is_some() {
            let weight = self.weight_if_up(slot);
            self.account().follow(slot, weight);
        }
    }

    /// Removes the backend of a slot.
    pub(super) fn vacate(&mut self, slot: Slot) {
        self.suspend(slot);
        if let Some(account) = &mut self.account {
            account.follow(slot, 0);
            account.forget(slot);
        }
        self.owns.forget(slot);
        self.field.forget(slot);
        self.roster.forget(slot);
    }

    /// Closes the gaps when more than half of the slots are vacant, so that they cost O(1) a removal.
    pub(super) fn close_gaps(&mut self) {
        if self.roster.slots() <= 2 * self.len() {
            return;
        }
        let gaps = self.roster.gaps();
        self.owns.start_anew(&self.field);
        self.roster.renumber(&gaps);
        self.field.renumber(&gaps);
        self.owns.renumber(&gaps);
        self.account.renumber(&gaps);
    }

    /// The running weight that a backend should have: its weight times the factors of its state, its limit and its health.
    fn due_weight(&self, slot: Slot) -> u32 {
        let weight = self.weight_if_up(slot);
        match self.account.as_deref() {
            Some(account) if account.is_limited(Whose::of(slot)) => 0,
            Some(account) => account.running_weight(slot, weight),
            None => weight.into(),
        }
    }

    /// The unit of running weights: the weight 1 as a running weight.
    pub(super) fn unit(&self) -> u32 {
        (self.account.as_ref()).map_or(1, |account| account.unit())
    }

    /// Gives a backend the running weight that it should have; answers whether it had another one.
    pub(super) fn refresh(&mut self, slot: Slot) -> bool {
        let weight = self.due_weight(slot);
        let changed = self.field.seats()[slot].running_weight() != weight;
        if changed {
            self.run(slot, weight);
        }
        self.open_probe(slot);
        changed
    }

    /// Takes a backend out of the running, and lets no pick probe it, until it is refreshed; false where nothing was to be done.
    pub(super) fn suspend(&mut self, slot: Slot) -> bool {
        let is_eligible = self.field.seats()[slot].running_weight() > 0;
        if is_eligible {
            self.run(slot, 0);
        }
        self.close_probe(slot) || is_eligible
    }

    fn run(&mut self, slot: Slot, weight: u32) {
        self.owns.weight_changes(&self.field, slot);
        self.field.run(slot, weight);
        let see = View::of(&self.field, self.account.as_deref());
        self.owns.weight_changed(see, slot);
    }

    /// Gives a backend another weight; false where it has it already.
    pub(super) fn reweight(&mut self, slot: Slot, weight: u16) -> bool {
        let before = self.field.seats()[slot].weight;
        if weight == before {
            return false;
        }
        self.owns.weight_changes(&self.field, slot);
        self.owns.reweighted(&self.field, slot, before, weight);
        self.field.set_weight(slot, weight);
        self.follow(slot);
        self.field.run(slot, self.due_weight(slot));
        self.open_probe(slot);
        let see = View::of(&self.field, self.account.as_deref());
        self.owns.weight_changed(see, slot);
        true
    }

    /// Looks at a limit again; answers whether that changed the running weight of its backend.
    #[inline(always)]
    pub(super) fn recheck(&mut self, whose: Whose) -> bool {
        let changed = (self.account.as_mut()).is_some_and(|account| account.recheck(whose));
        changed && whose.slot().is_some_and(|slot| self.refresh(slot))
    }

    /// The leases on a backend have changed.
    #[inline(always)]
    pub(super) fn flow_changed(&mut self, slot: Slot) {
        self.recheck(Whose::POOL);
        if !self.recheck(Whose::of(slot)) {
            let see = View::of(&self.field, self.account.as_deref());
            self.owns.load_changed(see, slot);
        }
    }

    /// The credit of a backend in smooth weighted round robin.
    #[doc(hidden)]
    pub fn credit(&self, slot: Slot) -> i64 {
        self.owns.wrr.of(&self.field, slot)
    }

    /// Gives a backend a credit, as a payload can. For the tests.
    #[doc(hidden)]
    pub fn set_credit(&mut self, name: &[u8], credit: i64) {
        let slot = self.roster.find(name).expect("the backend is there");
        self.suspend(slot);
        self.field.seats()[slot].set_credit(credit);
        self.refresh(slot);
    }

    /// Panics where the parts are not in step, or not sound in themselves. For the tests.
    #[doc(hidden)]
    pub fn check(&self) {
        self.roster.check();
        self.field.check();
        self.owns.check(self.see());
        let slots = self.roster.slots();
        assert!(slots <= 2 * self.len());
        assert_eq!(self.field.seats().len(), slots);
        for slot in 0..slots {
            let running = self.field.seats()[slot].running_weight();
            assert_eq!(running, self.due_weight(slot), "{slot}");
        }
        if let Some(account) = self.account.as_deref() {
            account.check(&self.roster.members().collect::<Vec<_>>());
            self.check_probes(account);
            let mut again = account.clone();
            let backends = (0..slots).map(Whose::of);
            for whose in backends.chain([Whose::POOL]) {
                assert!(!again.recheck(whose), "{whose:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a pointer of the server's room it fills a size class of allocators, 224. Another field would cost 32 bytes.
    #[test]
    fn a_pool_of_three_is_one_small_allocation() {
        assert_eq!(size_of::<Pool>(), 216);
        let mut pool = Pool::new();
        for name in [b"192.168.100.101:8080", b"192.168.100.102:8080"] {
            pool.add(name, None);
            pool.pick(None);
        }
        pool.add(b"192.168.100.103:80800!", None);
        pool.pick(None);
        assert_eq!(pool.bytes(8), 224);
        pool.add(b"192.168.100.104:8080", None);
        assert_eq!(pool.bytes(8), 224 + 4 * (16 + 32));
    }
}
