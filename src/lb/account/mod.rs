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
mod owners;
mod places;
mod quotas;
mod tally;
mod timed;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

pub use lease::Lease;
use lease::{At, Leases};
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
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};

/// The clock, the leases, the limits and the tallies of a pool.
#[derive(Clone, Debug, Default)]
pub struct Account {
    clock: Millis,
    leases: Leases,
    quotas: Quotas,
    tallies: Tallies,
}

/// Where limits keep all willing backends out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptOut {
    /// A limit of the pool as a whole does, and some backend's own does not.
    ByThePool,
    /// Each backend's own limit does.
    Each,
}

/// How many leases, and how many buckets, [`Account::first_back`] looks at.
pub const LOOKED_AT: usize = 1000;

/// The terms of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms<'a> {
    /// How long it lasts at most.
    pub span: Millis,
    /// Its owner.
    pub owner: Option<&'a [u8]>,
}

impl Account {
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

    /// Whether there are leases, or were any.
    pub fn had_leases(&self) -> bool {
        self.leases.next > 0
    }

    /// From now on leases are of that epoch.
    pub fn open_epoch(&mut self, epoch: u64) {
        self.leases.open_epoch(epoch);
    }

    /// Whether there are numbers for this number of leases. There are, save in a pool from a crafted payload.
    pub fn has_numbers_for(&self, leases: usize) -> bool {
        self.leases.next + leases as u64 <= COUNTER_MAX
    }

    /// How many leases are open, or not cleared yet.
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// How many leases are open on a backend, or not cleared yet.
    pub fn leases_on(&self, slot: Slot) -> u32 {
        self.leases.on(slot)
    }

    /// The lease of that id, if it is open.
    pub fn lease(&self, id: LeaseId) -> Option<Lease<'_>> {
        Some(self.leases.lease(self.open(id)?))
    }

    fn open(&self, id: LeaseId) -> Option<At> {
        let found = self.leases.find(id);
        found.filter(|at| !self.leases.is_over(*at, self.clock))
    }

    /// Grants a lease.
    pub fn grant(&mut self, slot: Slot, terms: &LeaseTerms) -> LeaseId {
        let deadline = clock::deadline(self.clock, terms.span);
        (self.leases).grant(slot, terms.owner, self.clock, deadline)
    }

    /// Ends a lease, and counts how it went. Answers the backend's slot, if the lease was open.
    pub fn done(&mut self, id: LeaseId, report: &Report) -> Option<Slot> {
        let slot = self.leases.end(self.open(id)?)?;
        self.tallies.done(slot, report);
        Some(slot)
    }

    /// Lets a lease end that long from now; false where it is not open.
    pub fn renew(&mut self, id: LeaseId, span: Millis) -> bool {
        let found = self.open(id);
        if let Some(at) = found {
            self.leases.renew(at, clock::deadline(self.clock, span));
        }
        found.is_some()
    }

    /// From now on the leases of an owner are over; answers how many were not.
    pub fn release(&mut self, owner: &[u8]) -> usize {
        self.leases.release(owner)
    }

    /// From now on the leases on a backend are over.
    pub fn end_on(&mut self, slot: Slot) {
        self.leases.end_on(slot);
    }

    /// How many leases on a backend are not over by a mark of the backend.
    pub fn unmarked_on(&self, slot: Slot) -> u32 {
        self.leases.unmarked_on(slot)
    }

    /// Whether anything is over and not cleared yet.
    pub fn is_any_over(&self) -> bool {
        let due = [
            self.leases.first_due().map(|(due, _)| due),
            self.quotas.due(),
        ];
        self.leases.is_any_marked() || due.into_iter().flatten().any(|due| due <= self.clock)
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
                    let is_there = match slot {
                        Some(_) => lease.slot == slot,
                        None => lease.slot.is_some(),
                    };
                    listed.extend(is_there.then_some(lease));
                    next = leases.next_of_owner(at);
                }
            }
            (Some(slot), None) => {
                let first = leases.first_on(slot);
                let all = std::iter::successors(first, |at| leases.next_on_slot(*at));
                listed.extend(all.take(most).map(|at| leases.lease(at)));
            }
            (None, None) => {
                // Merges the lists of the backends. Each list is in order of age.
                let entry = |at| Reverse((leases.lease(at).id.number, at));
                let firsts: Vec<_> = leases.firsts().map(entry).collect();
                let mut front = BinaryHeap::from(firsts);
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

    /// The time at which a limit lets the first willing backend in again, if nothing else happens. Some backend is willing, nothing is
    /// over, and limits keep all out: each backend, or only the pool as a whole.
    ///
    /// It looks at [`LOOKED_AT`] leases and as many buckets at most. If more of them matter, it answers a time before which nobody
    /// comes back.
    pub fn first_back(
        &self,
        is_willing: impl Fn(Slot) -> bool,
        kept_out: KeptOut,
    ) -> Option<Millis> {
        // How many leases must end before one more is allowed.
        let excess = |limit: &Limit, leases: u32| match limit.max {
            0 => 0,
            max => (leases + 1).saturating_sub(max),
        };
        let mut first = match kept_out {
            KeptOut::ByThePool => Some(self.clock),
            KeptOut::Each => self.quotas.first_refill(LOOKED_AT, |slot| {
                let limit = self.quotas.of(Whose::of(slot));
                is_willing(slot) && excess(limit, self.leases.on(slot)) == 0
            }),
        };
        let pool = self.quotas.of(Whose::POOL);
        let mut pool_excess = excess(pool, self.leases.len() as u32);
        let mut pool_back = pool.next(self.clock);
        let mut ended = HashMap::new();
        for (looked_at, lease) in self.leases.by_deadline().enumerate() {
            if pool_excess == 0 && first.is_some_and(|first| first <= lease.deadline) {
                break;
            }
            if looked_at == LOOKED_AT {
                return Some(lease.deadline);
            }
            if pool_excess > 0 {
                pool_excess -= 1;
                pool_back = pool_back.max(lease.deadline);
            }
            if let Some(slot) = lease.slot.filter(|slot| is_willing(*slot)) {
                let ended = ended.entry(slot).or_insert(0);
                *ended += 1;
                let limit = self.quotas.of(Whose::of(slot));
                if *ended == excess(limit, self.leases.on(slot)) {
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

    /// Reads the leases, of a pool with this number of backends. Their head was read before. Answers the groups of leases whose
    /// backends are gone: see [`Account::load_over`].
    pub fn load_leases(
        &mut self,
        head: &LeasesHead,
        members: usize,
        from: &mut Reader,
    ) -> Result<Vec<u32>, Malformed> {
        head.load_leases(&mut self.leases, self.clock, members, from)
    }

    /// Writes the marks and the overdue buckets, if there are any. Which leases are due, their deadlines say.
    pub fn save_over(&self, gaps: &Gaps, to: &mut Writer) {
        let overdue: Vec<u32> = (self.quotas.overdue(self.clock))
            .map(|whose| {
                whose
                    .slot()
                    .map_or(0, |slot| gaps.before_slot(slot) as u32 + 1)
            })
            .collect();
        if !overdue.is_empty() || self.leases.is_any_marked() {
            to.put(&overdue);
            leases_saved::save_marks(&self.leases, gaps, to);
        }
    }

    /// Reads what [`Account::save_over`] writes. All limits were looked at before.
    pub fn load_over(&mut self, gone: &[u32], from: &mut Reader) -> Result<(), Malformed> {
        for _ in 0..from.get::<u32>()? {
            let whose = match from.get::<u32>()? {
                0 => Whose::POOL,
                place => Whose::of(place as Slot - 1),
            };
            checked("buckets", (), self.quotas.load_overdue(whose, self.clock))?;
        }
        leases_saved::load_marks(&mut self.leases, gone, from)
    }

    /// Whether every lease of a backend that is gone is over by a mark.
    pub fn are_gone_marked(&self) -> bool {
        self.leases.are_gone_marked()
    }

    /// Panics where the ways to find something disagree. For the tests.
    pub fn check(&self) {
        self.leases.check();
    }
}

impl Kept for Account {
    /// The backend's leases are over.
    fn forget(&mut self, slot: Slot) {
        self.leases.forget(slot);
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
        let leases = self.leases.first_due().map(|(deadline, _)| deadline);
        let due = leases.into_iter().chain(self.quotas.due()).min();
        let due = due.filter(|due| *due <= CLOCK_MAX);
        match self.leases.is_any_marked() {
            true => Some(self.clock),
            false => due,
        }
    }

    /// The leases that are due in the order (deadline, number), then the buckets by their times, then the leases that are over by
    /// marks in the order in which the marks were made.
    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        if let Some((_, at)) = self.leases.first_due().filter(|(due, _)| *due <= clock) {
            let is_marked = self.leases.lease(at).is_marked;
            let slot = self.leases.end(at);
            // It had ended before its deadline came, whatever was cleared first.
            if let Some(slot) = slot.filter(|_| !is_marked) {
                self.tallies.expired(slot);
            }
            return Some(slot.map_or(Whose::POOL, Whose::of));
        }
        let refilled = self.quotas.end_first(clock);
        refilled.or_else(|| self.leases.end_first_marked())
    }
}
