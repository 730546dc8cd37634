//! Time, leases and limits.

use super::parts::Pool;
use crate::lb::account::{
    Account, Balance, KeptOut, Lease, LeaseId, Limits, Reason, Tally, Timed, Whose,
};
use crate::lb::field::State;
use crate::lb::ground::bounds::{COUNTER_MAX, Slot};
use crate::lb::ground::clock::{self, Millis};
use crate::lb::pick::Own;

/// When a pool can be picked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Now.
    Available,
    /// Limits keep all backends out that could be picked. After this time, if not before, a pick finds the first one back. Where
    /// that cannot be told at once, it is worth while to ask again then, and not before: something is over and not cleared yet, or
    /// more than 1,000 leases must end first.
    Limited(Millis),
    /// As before, where the first one back asked for a time without requests.
    Cooling(Millis),
    /// As before, where the first one back is ejected, and a probe of it is due then.
    Ejected(Millis),
    /// None comes back by itself: some are drained.
    Drained,
    /// Some are down.
    Down,
    /// All have weight 0.
    Quiesced,
    /// There are none.
    Empty,
}

/// How many things that are over one tick clears.
const BUDGET: usize = 1000;

/// The version of the rules from which on no command but a tick clears, and a tick clears some.
const BOUNDED: u8 = 2;

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

    /// Whether the clock need not be moved to that time: it is in the step of the clock, and not before the clock.
    #[inline(always)]
    pub fn is_in_step(&self, time: Millis) -> bool {
        match &self.account {
            Some(account) => account.is_in_step(time),
            None => false,
        }
    }

    /// When something ends by itself or begins again.
    #[inline(always)]
    pub fn due(&self) -> Option<Millis> {
        self.account.as_ref()?.due()
    }

    /// The value of a tick that ends things that are due by that time, if there are any. By the rules of version 1, which end all in
    /// one tick, an earlier time, if otherwise more than `most` leases would end that do not end together.
    pub fn due_by(&self, time: Millis, most: usize) -> Option<Millis> {
        self.due().filter(|due| *due <= time)?;
        match self.owns.rules < BOUNDED {
            true => Some(self.account.as_ref()?.due_by(time, most)),
            false => Some(time.max(self.clock())),
        }
    }

    /// Moves the pool's clock forward, or leaves it where it is, and clears the first 1,000 things that are over; answers whether
    /// that changed anything. A time before the clock changes nothing.
    pub fn tick(&mut self, clock: Millis) -> bool {
        self.tick_within(clock, BUDGET)
    }

    /// The same with another number of things. For the tests.
    #[doc(hidden)]
    pub fn tick_within(&mut self, clock: Millis, budget: usize) -> bool {
        let moves = clock > self.clock();
        if moves {
            self.account().move_clock(clock);
        }
        let clears = clock == self.clock() && self.is_any_over();
        if clears {
            let left = self.clear(budget);
            self.clear_all_if_old();
            if let Some(account) = &mut self.account {
                account.clear_sessions(left);
            }
        }
        moves || clears
    }

    /// Whether anything is over and not cleared yet. The next tick clears some of it.
    #[inline(always)]
    pub fn is_any_over(&self) -> bool {
        match &self.account {
            Some(account) => account.is_any_over() || account.is_any_session_over(),
            None => false,
        }
    }

    /// Clears the first things that are over, `budget` of them at most, sessions aside. Answers what is left of the budget.
    fn clear(&mut self, budget: usize) -> usize {
        let clock = self.clock();
        for cleared in 0..budget {
            let Some(account) = self.account.as_mut() else {
                return budget - cleared;
            };
            match account.end_first(clock).map(Whose::slot) {
                Some(Some(slot)) => {
                    self.refresh(slot);
                    self.flow_changed(slot);
                }
                Some(None) => _ = self.recheck(Whose::POOL),
                None => return budget - cleared,
            }
        }
        0
    }

    /// By the rules of version 1 all that is over is cleared at once. Sessions came later, and are cleared in portions by all rules.
    pub(super) fn clear_all_if_old(&mut self) {
        let is_any_over = |pool: &Pool| pool.account.as_ref().is_some_and(|a| a.is_any_over());
        while self.owns.rules < BOUNDED && is_any_over(self) {
            self.clear(BUDGET);
        }
    }

    /// Gives the pool the rules of this version; answers whether that changed anything. Rules are never taken back.
    pub fn raise_rules(&mut self, rules: u8) -> bool {
        let raises = self.owns.rules < rules && rules <= Pool::RULES;
        if raises {
            self.owns.rules = rules;
        }
        raises
    }

    /// Whether a primary gives this pool the newest rules before its first lease, or its first limit. A pool that had leases goes
    /// on by its own.
    pub fn is_due_for_new_rules(&self) -> bool {
        self.owns.rules < Pool::RULES && self.account.as_ref().is_none_or(|a| !a.had_leases())
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

    /// How many leases are open, or not cleared yet.
    pub fn leases(&self) -> usize {
        self.account.as_ref().map_or(0, |account| account.leases())
    }

    /// How many are open on a backend of this pool, or not cleared yet.
    pub fn leases_on(&self, slot: Slot) -> u32 {
        (self.account.as_ref()).map_or(0, |account| account.leases_on(slot))
    }

    /// Reads the id of a lease. Text that cannot be an id is that of no lease.
    #[inline(always)]
    pub fn read_id(&self, text: &[u8]) -> Option<LeaseId> {
        self.account.as_ref()?.read_id(text)
    }

    /// The lease of that id, if it is open.
    pub fn lease(&self, id: LeaseId) -> Option<Lease<'_>> {
        self.account.as_ref()?.lease(id)
    }

    /// Lets a lease end that long from now; false where it is not open.
    pub fn renew(&mut self, id: LeaseId, span: Millis) -> bool {
        (self.account.as_mut()).is_some_and(|account| account.renew(id, span))
    }

    /// Ends all leases of that owner; answers how many. They are over at once, and cleared by the next ticks.
    pub fn release(&mut self, owner: &[u8]) -> usize {
        let ended = self.account.as_mut().map_or(0, |a| a.release(owner));
        self.clear_all_if_old();
        ended
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

    /// The limits of the backend in that slot or of the pool as a whole: its own, and those that hold for each backend.
    pub fn limits(&self, slot: Option<Slot>) -> Limits {
        self.limits_by(slot, Account::limit)
    }

    /// Those that are its own.
    pub fn own_limits(&self, slot: Option<Slot>) -> Limits {
        self.limits_by(slot, Account::own_limit)
    }

    fn limits_by(&self, slot: Option<Slot>, limit: impl Fn(&Account, Whose) -> Limits) -> Limits {
        let whose = slot.map_or(Whose::POOL, Whose::of);
        let account = self.account.as_ref();
        let limits = account.map(|account| limit(account, whose));
        let tier = slot.map(|slot| self.field.seats()[slot].tier());
        Limits {
            tier: tier.filter(|tier| *tier > 0),
            ..limits.unwrap_or_default()
        }
    }

    /// The largest load that `hash` gives a backend, in percent of its share; 0 = any.
    pub fn balance(&self) -> u16 {
        (self.account.as_ref()).map_or(0, |account| account.balance().percent())
    }

    /// Sets it, 0 or in range; answers whether that changed anything.
    pub fn set_balance(&mut self, percent: u16) -> bool {
        let changed = percent != self.balance();
        if changed {
            self.account().set_balance(Balance::of(percent));
        }
        changed
    }

    /// How many picks the rate of the backend in that slot, or of the pool as a whole, allows at the pool's clock, where one is set.
    pub fn tokens(&self, slot: Option<Slot>) -> Option<u64> {
        let whose = slot.map_or(Whose::POOL, Whose::of);
        self.account.as_ref()?.tokens(whose)
    }

    /// When a backend can be picked, and why not now.
    pub fn availability(&self) -> Availability {
        match self.available() {
            0 => self.availability_by(|account, is_willing| {
                let kept_out = match self.field.eligible_in_all() + self.probes_open() {
                    0 => KeptOut::Each,
                    _ => KeptOut::ByThePool,
                };
                account.first_back(is_willing, kept_out)
            }),
            _ => Availability::Available,
        }
    }

    /// The same where none can be picked now: the first one back is told.
    pub(super) fn availability_by(
        &self,
        first_back: impl Fn(&Account, &dyn Fn(Slot) -> bool) -> Option<(Millis, Reason)>,
    ) -> Availability {
        let seats = self.field.seats();
        // Vacant slots have weight 0.
        let is_willing = |slot: Slot| seats[slot].state == State::Up && seats[slot].weight > 0;
        let account = self.account.as_ref();
        let limiting = account.filter(|_| (0..seats.len()).any(is_willing));
        let back = limiting.and_then(|account| match account.is_any_over() {
            true => Some((self.clock() + 1, Reason::Limited)),
            false => first_back(account, &is_willing),
        });
        match back {
            Some((time, reason)) => {
                let millis = clock::shown(time) - self.clock();
                match reason {
                    Reason::Limited => Availability::Limited(millis),
                    Reason::Cooling => Availability::Cooling(millis),
                    Reason::Ejected => Availability::Ejected(millis),
                }
            }
            None if self.is_empty() => Availability::Empty,
            None if self.backends().any(|b| b.state() == State::Drain) => Availability::Drained,
            None if self.backends().any(|b| b.state() == State::Down) => Availability::Down,
            None => Availability::Quiesced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_step_of_the_clock_until_that_ends() {
        let mut pool = Pool::new();
        assert!(!pool.is_in_step(0), "no clock was moved yet");
        for clock in [0, 1, 9, 10, 1_234_567] {
            let end = clock - clock % 10 + 10;
            pool.account().move_clock(clock);
            for time in clock.saturating_sub(20)..clock + 20 {
                let is_in_step = (clock..end).contains(&time);
                assert_eq!(pool.is_in_step(time), is_in_step, "{time} at {clock}");
            }
        }
    }
}
