//! Time, leases and limits.

use super::parts::Pool;
use crate::lb::account::{Lease, LeaseId, Limits, Report, Tally, Timed, Whose};
use crate::lb::field::State;
use crate::lb::ground::bounds::{COUNTER_MAX, Slot};
use crate::lb::ground::clock::{self, Millis};
use crate::lb::pick::Own;

/// When a pool can be picked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Now.
    Available,
    /// Limits keep all backends out that could be picked. After this time, if not before, a pick finds the first one back.
    Limited(Millis),
    /// None comes back by itself: some are drained.
    Drained,
    /// Some are down.
    Down,
    /// All have weight 0.
    Quiesced,
    /// There are none.
    Empty,
}

/// How many things one step ends. Rules that let a tick end some and leave the others to the next tick will need no other step.
const BUDGET: usize = 1000;

impl Pool {
    // Time

    /// The pool's clock.
    pub fn clock(&self) -> Millis {
        self.account.as_ref().map_or(0, |account| account.clock())
    }

    /// Whether time changes anything in this pool. If not, its clock need not move.
    #[inline(always)]
    pub fn is_timed(&self) -> bool {
        self.account
            .as_ref()
            .is_some_and(|account| account.is_timed())
    }

    /// When something ends by itself or begins again.
    pub fn due(&self) -> Option<Millis> {
        self.account.as_ref()?.due()
    }

    /// The clock at which the things end that are due by that time, if there are any. An earlier one, if otherwise more than `most`
    /// leases would end that do not end together.
    pub fn due_by(&self, time: Millis, most: usize) -> Option<Millis> {
        self.due().filter(|due| *due <= time)?;
        Some(self.account.as_ref()?.due_by(time, most))
    }

    /// Moves the pool's clock forward, and ends all things that are due; answers whether the clock moved.
    pub fn tick(&mut self, clock: Millis) -> bool {
        if clock <= self.clock() {
            return false;
        }
        self.account().move_clock(clock);
        // By the rules of version 1 a tick ends all that is due.
        while self.end_due(BUDGET) {}
        true
    }

    /// Ends the first things that are due, `budget` of them at most; answers whether more may be.
    fn end_due(&mut self, budget: usize) -> bool {
        let clock = self.clock();
        for _ in 0..budget {
            match self.account().end_first(clock).map(Whose::slot) {
                Some(Some(slot)) => self.flow_changed(slot),
                Some(None) => _ = self.recheck(Whose::POOL),
                None => return false,
            }
        }
        true
    }

    // Leases

    /// From now on leases are of that epoch.
    pub fn open_epoch(&mut self, epoch: u64) {
        self.account().open_epoch(epoch);
    }

    /// Whether there are numbers for this number of leases. There are, save in a pool from a crafted payload.
    pub(super) fn has_numbers_for(&self, leases: usize) -> bool {
        match &self.account {
            Some(account) => account.has_numbers_for(leases),
            None => leases as u64 <= COUNTER_MAX,
        }
    }

    /// How many leases are open.
    pub fn leases(&self) -> usize {
        self.account.as_ref().map_or(0, |account| account.leases())
    }

    /// How many are open on a backend of this pool.
    pub fn leases_on(&self, slot: Slot) -> u32 {
        (self.account.as_ref()).map_or(0, |account| account.leases_on(slot))
    }

    /// The lease of that id, if it is open.
    pub fn lease(&self, id: LeaseId) -> Option<Lease<'_>> {
        self.account.as_ref()?.lease(id)
    }

    /// Ends a lease, and counts how it went; false where it is not open.
    pub fn done(&mut self, id: LeaseId, report: &Report) -> bool {
        let account = self.account.as_mut();
        let ended = account.and_then(|account| account.done(id, report));
        if let Some(slot) = ended {
            self.flow_changed(slot);
        }
        ended.is_some()
    }

    /// Lets a lease end that long from now; false where it is not open.
    pub fn renew(&mut self, id: LeaseId, span: Millis) -> bool {
        (self.account.as_mut()).is_some_and(|account| account.renew(id, span))
    }

    /// Ends all leases of that owner; answers how many.
    pub fn release(&mut self, owner: &[u8]) -> usize {
        let mut ended = 0;
        while let Some(slot) = (self.account.as_mut()).and_then(|a| a.end_first_of(owner)) {
            self.flow_changed(slot);
            ended += 1;
        }
        ended
    }

    /// Ends all leases on a backend.
    pub(super) fn end_leases_on(&mut self, slot: Slot) {
        while (self.account.as_mut()).is_some_and(|account| account.end_first_on(slot)) {
            self.flow_changed(slot);
        }
    }

    /// The oldest leases, `most` of them at most, of that backend and that owner where they are given.
    pub fn list_leases(
        &self,
        slot: Option<Slot>,
        owner: Option<&[u8]>,
        most: usize,
    ) -> Vec<Lease<'_>> {
        let account = self.account.as_ref();
        account.map_or(Vec::new(), |a| a.list_leases(slot, owner, most))
    }

    /// How the leases of a backend ended, where there were any.
    pub fn tally(&self, slot: Slot) -> Option<&Tally> {
        self.account.as_ref().map(|account| account.tally(slot))
    }

    // Limits

    /// Limits a backend, or the pool as a whole; answers whether that changed anything. A backend that is not there has no limits.
    pub fn set_limits(&mut self, backend: Option<&[u8]>, limits: &Limits) -> bool {
        let slot = match backend.map(|name| self.slot(name)) {
            None => None,
            Some(Some(slot)) => Some(slot),
            Some(None) => return false,
        };
        let mut changed = false;
        if let (Some(slot), Some(tier)) = (slot, limits.tier)
            && self.field.seats()[slot].tier() != tier
        {
            changed = true;
            self.suspend(slot);
            self.owns.moved(&self.field, slot);
            self.move_to_tier(slot, tier);
        }
        // Where there is nothing to take away, nothing is made for it.
        if (limits.max.is_some() || limits.rate.is_some())
            && (self.account.is_some() || limits.is_any())
        {
            let whose = slot.map_or(Whose::POOL, Whose::of);
            changed |= self.account().set_limit(whose, limits);
            self.recheck(whose);
        }
        changed
    }

    /// The limits that are set, of the backend in that slot or of the pool as a whole.
    pub fn limits(&self, slot: Option<Slot>) -> Limits {
        let whose = slot.map_or(Whose::POOL, Whose::of);
        let limits = self.account.as_ref().map(|account| account.limit(whose));
        let tier = slot.map(|slot| self.field.seats()[slot].tier());
        Limits {
            tier: tier.filter(|tier| *tier > 0),
            ..limits.unwrap_or_default()
        }
    }

    /// How many picks the rate of the backend in that slot, or of the pool as a whole, allows at the pool's clock, where one is set.
    pub fn tokens(&self, slot: Option<Slot>) -> Option<u64> {
        let whose = slot.map_or(Whose::POOL, Whose::of);
        self.account.as_ref()?.tokens(whose)
    }

    /// When a backend can be picked, and why not now.
    pub fn availability(&self) -> Availability {
        if self.available() > 0 {
            return Availability::Available;
        }
        let seats = self.field.seats();
        // Vacant slots have weight 0.
        let willing = (0..seats.len())
            .filter(|slot| seats[*slot].state == State::Up && seats[*slot].weight > 0);
        match self.account.as_ref().and_then(|a| a.first_back(willing)) {
            Some(time) => Availability::Limited(clock::shown(time) - self.clock()),
            None if self.is_empty() => Availability::Empty,
            None if self.backends().any(|b| b.state() == State::Drain) => Availability::Drained,
            None if self.backends().any(|b| b.state() == State::Down) => Availability::Down,
            None => Availability::Quiesced,
        }
    }
}
