//! The account of a pool: its clock, its leases, its limits, and how its leases ended.
//!
//! It knows no pool and no algorithm. A pool that never used any of this has no account, and pays nothing for it.

mod agenda;
mod entry;
mod health;
mod latency;
mod lease;
mod lease_id;
mod leases_saved;
mod limit;
mod numbers;
mod owners;
mod quotas;
mod tally;
mod timed;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

pub use lease::Lease;
use lease::Leases;
pub use lease_id::LeaseId;
pub use leases_saved::{LeasesHead, LeasesSaved};
use limit::Limit;
pub use limit::{LEASES_MAX, Limits, RATE_MAX, Rate};
use quotas::Quotas;
pub use quotas::TokensBefore;
use tally::Tallies;
pub use tally::{Report, Tally};
pub use timed::{Timed, Whose};

use crate::lb::ground::bounds::{COUNTER_MAX, Slot};
use crate::lb::ground::clock::{self, CLOCK_MAX, Millis};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::saved::{Malformed, Reader, Writer};

/// The clock, the leases, the limits and the tallies of a pool.
#[derive(Clone, Debug, Default)]
pub struct Account {
    clock: Millis,
    leases: Leases,
    quotas: Quotas,
    tallies: Tallies,
}

/// The terms of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms<'a> {
    /// How long it lasts at most.
    pub span: Millis,
    /// Its owner.
    pub owner: Option<&'a [u8]>,
}

impl Account {
    /// The account of a pool with this number of slots which had none.
    pub fn of(slots: usize) -> Account {
        let mut account = Account::default();
        account.grown(slots);
        account
    }

    /// Whether it is as good as none.
    pub fn is_default(&self) -> bool {
        self.clock == 0
            && self.leases.is_default()
            && self.quotas.is_default()
            && self.tallies.is_default()
    }

    // Time

    /// The pool's clock.
    pub fn clock(&self) -> Millis {
        self.clock
    }

    /// Moves the clock forward.
    pub fn move_clock(&mut self, clock: Millis) {
        self.clock = clock;
    }

    /// Whether time changes anything here.
    pub fn is_timed(&self) -> bool {
        !self.leases.is_empty() || self.quotas.is_timed()
    }

    /// The clock at which the things end that are due by that time. An earlier one, if otherwise more than `most` leases would end
    /// that do not end together. Something is due by that time.
    pub fn due_by(&self, time: Millis, most: usize) -> Millis {
        let one_too_many = self.leases.by_deadline().nth(most);
        let one_too_many = one_too_many.filter(|lease| lease.deadline <= time);
        one_too_many.map_or(time, |lease| lease.deadline)
    }

    // Leases

    /// From now on leases are of that epoch.
    pub fn open_epoch(&mut self, epoch: u64) {
        self.leases.open_epoch(epoch);
    }

    /// Whether there are numbers for this number of leases. There are, save in a pool from a crafted payload.
    pub fn has_numbers_for(&self, leases: usize) -> bool {
        self.leases.next + leases as u64 <= COUNTER_MAX
    }

    /// How many leases are open.
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// How many leases are open on a backend.
    pub fn leases_on(&self, slot: Slot) -> u32 {
        self.leases.on(slot)
    }

    /// The lease of that id, if it is open.
    pub fn lease(&self, id: LeaseId) -> Option<Lease<'_>> {
        Some(self.leases.lease(self.leases.find(id)?))
    }

    /// Grants a lease.
    pub fn grant(&mut self, slot: Slot, terms: &LeaseTerms) -> LeaseId {
        let deadline = clock::deadline(self.clock, terms.span);
        (self.leases).grant(slot, terms.owner, self.clock, deadline)
    }

    /// Ends a lease, and counts how it went. Answers the backend's slot, if the lease was open.
    pub fn done(&mut self, id: LeaseId, report: &Report) -> Option<Slot> {
        let slot = self.leases.end(self.leases.find(id)?);
        self.tallies.done(slot, report);
        Some(slot)
    }

    /// Lets a lease end that long from now; false where it is not open.
    pub fn renew(&mut self, id: LeaseId, span: Millis) -> bool {
        let found = self.leases.find(id);
        if let Some(at) = found {
            self.leases.renew(at, clock::deadline(self.clock, span));
        }
        found.is_some()
    }

    /// Ends the oldest lease of an owner. Answers the backend's slot.
    pub fn end_first_of(&mut self, owner: &[u8]) -> Option<Slot> {
        Some(self.leases.end(self.leases.first_of(owner)?))
    }

    /// Ends the oldest lease on a backend, if there is one.
    pub fn end_first_on(&mut self, slot: Slot) -> bool {
        let first = self.leases.first_on(slot);
        first.map(|at| self.leases.end(at)).is_some()
    }

    /// The oldest leases, `most` of them, of that backend and that owner where they are given.
    pub fn list_leases(
        &self,
        slot: Option<Slot>,
        owner: Option<&[u8]>,
        most: usize,
    ) -> Vec<Lease<'_>> {
        let leases = &self.leases;
        let mut listed = Vec::new();
        match (slot, owner) {
            (_, Some(owner)) => {
                let mut next = leases.first_of(owner);
                while let Some(at) = next.filter(|_| listed.len() < most) {
                    let lease = leases.lease(at);
                    listed.extend(Some(lease).filter(|l| slot.is_none_or(|s| l.slot == s)));
                    next = leases.next_of_owner(at);
                }
            }
            (slot, None) => {
                // Merges the lists of the backends. Each list is in order of age.
                let slots = slot.map_or(0..leases.slots(), |slot| slot..slot + 1);
                let firsts = slots.filter_map(|slot| leases.first_on(slot));
                let entry = |at| Reverse((leases.lease(at).id.number, at));
                let mut front: BinaryHeap<_> = firsts.map(entry).collect();
                while listed.len() < most
                    && let Some(Reverse((_, at))) = front.pop()
                {
                    listed.push(leases.lease(at));
                    front.extend(leases.next_on_slot(at).map(entry));
                }
            }
        }
        listed
    }

    /// How the leases of a backend ended.
    pub fn tally(&self, slot: Slot) -> &Tally {
        self.tallies.of(slot)
    }

    // Limits

    /// The limit of a backend or of the pool.
    pub fn limit(&self, whose: Whose) -> Limits {
        let limit = self.quotas.of(whose);
        Limits {
            max: Some(limit.max).filter(|max| *max > 0),
            rate: (limit.bucket.as_ref()).map(|bucket| Some(bucket.rate)),
            tier: None,
        }
    }

    /// How many picks the rate of a backend or of the pool allows, where one is set.
    pub fn tokens(&self, whose: Whose) -> Option<u64> {
        let bucket = self.quotas.of(whose).bucket.as_ref()?;
        Some(bucket.tokens(self.clock))
    }

    /// Sets the limit of a backend or of the pool; answers whether that changed anything.
    pub fn set_limit(&mut self, whose: Whose, limits: &Limits) -> bool {
        self.quotas.set(whose, limits, self.clock)
    }

    /// Whether the pool as a whole is limited by anything.
    pub fn limits_pool(&self) -> bool {
        self.quotas.of(Whose::POOL).is_set()
    }

    /// Whether the limit of a backend or of the pool is reached, as it was when it was looked at last.
    #[inline(always)]
    pub fn is_limited(&self, whose: Whose) -> bool {
        self.quotas.of(whose).is_reached
    }

    /// Looks at a limit again. Answers whether it is reached now and was not before, or the other way round.
    pub fn recheck(&mut self, whose: Whose) -> bool {
        let leases = match whose.slot() {
            Some(slot) => self.leases.on(slot),
            None => self.leases.len() as u32,
        };
        self.quotas.recheck(whose, leases, self.clock)
    }

    /// Takes a token out of each bucket that a pick of this backend needs one of.
    pub fn take_tokens(&mut self, slot: Slot) -> TokensBefore {
        self.quotas.take_tokens(slot, self.clock)
    }

    /// Puts the tokens back.
    pub fn put_back(&mut self, slot: Slot, before: TokensBefore) {
        self.quotas.put_back(slot, before);
    }

    /// The time at which a limit lets the first of these backends in again, if nothing else happens. Nothing else keeps them out.
    pub fn first_back(&self, candidates: impl Iterator<Item = Slot>) -> Option<Millis> {
        // How many leases must end before one more is allowed.
        let excess = |limit: &Limit, leases: u32| match limit.max {
            0 => 0,
            max => (leases + 1).saturating_sub(max),
        };
        let mut waiting = HashMap::new();
        let mut first: Option<Millis> = None;
        for slot in candidates {
            let limit = self.quotas.of(Whose::of(slot));
            match excess(limit, self.leases.on(slot)) {
                0 => first = first.into_iter().chain([limit.next(self.clock)]).min(),
                excess => _ = waiting.insert(slot, excess),
            }
        }
        let pool = self.quotas.of(Whose::POOL);
        let mut pool_excess = excess(pool, self.leases.len() as u32);
        let mut pool_back = pool.next(self.clock);
        for lease in self.leases.by_deadline() {
            if pool_excess == 0 && first.is_some_and(|first| first <= lease.deadline) {
                break;
            }
            if pool_excess > 0 {
                pool_excess -= 1;
                pool_back = pool_back.max(lease.deadline);
            }
            if let Some(excess) = waiting.get_mut(&lease.slot) {
                *excess -= 1;
                if *excess == 0 {
                    waiting.remove(&lease.slot);
                    let limit = self.quotas.of(Whose::of(lease.slot));
                    let back = lease.deadline.max(limit.next(lease.deadline));
                    first = first.into_iter().chain([back]).min();
                }
            }
        }
        first.map(|first| first.max(pool_back))
    }

    // Saved as sections of the second form: see `pool/saved.rs`

    /// Writes the clock.
    pub fn save_clock(&self, to: &mut Writer) {
        to.put(&self.clock);
    }

    /// Reads the clock.
    pub fn load_clock(&mut self, from: &mut Reader) -> Result<(), Malformed> {
        self.clock = from.number("clock", CLOCK_MAX)?;
        Ok(())
    }

    /// Writes a limit.
    pub fn save_limit(&self, whose: Whose, to: &mut Writer) {
        self.quotas.of(whose).save(to);
    }

    /// Reads a limit.
    pub fn load_limit(&mut self, whose: Whose, from: &mut Reader) -> Result<(), Malformed> {
        self.quotas.load(whose, Limit::load(from, self.clock)?);
        Ok(())
    }

    /// Writes the tally of a backend.
    pub fn save_tally(&self, slot: Slot, to: &mut Writer) {
        self.tallies.save(slot, to);
    }

    /// Reads the tally of a backend.
    pub fn load_tally(&mut self, slot: Slot, from: &mut Reader) -> Result<(), Malformed> {
        self.tallies.load(slot, from)
    }

    /// The leases, to be written.
    pub fn save_leases(&self) -> LeasesSaved<'_> {
        LeasesSaved::of(&self.leases)
    }

    /// Reads the leases. Their head was read before.
    pub fn load_leases(&mut self, head: &LeasesHead, from: &mut Reader) -> Result<(), Malformed> {
        head.load_leases(&mut self.leases, self.clock, from)
    }

    /// Panics where the ways to find something disagree. For the tests.
    pub fn check(&self) {
        self.leases.check();
    }
}

impl Kept for Account {
    fn grown(&mut self, slots: usize) {
        self.leases.grown(slots);
        self.quotas.grown(slots);
        self.tallies.grown(slots);
    }

    /// The backend's leases have ended.
    fn forget(&mut self, slot: Slot) {
        self.quotas.forget(slot);
        self.tallies.forget(slot);
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.leases.renumber(gaps);
        self.quotas.renumber(gaps);
        self.tallies.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.leases.relocate(by);
        self.quotas.relocate(by);
        self.tallies.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.leases.heap_bytes() + self.quotas.heap_bytes() + self.tallies.heap_bytes()
    }
}

impl Timed for Account {
    /// A time that no clock can show does not come.
    fn due(&self) -> Option<Millis> {
        let parts = [self.leases.due(), self.quotas.due()];
        let due = parts.into_iter().flatten().min();
        due.filter(|due| *due <= CLOCK_MAX)
    }

    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        if let Some(whose) = self.leases.end_first(clock) {
            let slot = whose.slot();
            slot.into_iter().for_each(|slot| self.tallies.expired(slot));
            return Some(whose);
        }
        self.quotas.end_first(clock)
    }
}
