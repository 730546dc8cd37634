//! The account of a pool: its clock, its leases, its limits, and how its leases ended.
//!
//! It knows no pool and no algorithm. A pool that never used any of this has no account, and pays nothing for it.

mod agenda;
mod balance;
mod costs;
mod deadlines;
mod entry;
mod epochs;
mod health;
mod latency;
mod lease;
mod lease_id;
mod leases_saved;
mod limit;
mod owners;
mod places;
mod queue;
mod quotas;
mod report;
mod sessions;
mod tally;
mod timed;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

pub use balance::{BALANCE_LEAST, BALANCE_MOST, Balance, Bound};
pub use costs::{Amounts, COSTS_MAX, Cost, CostLimit};
use costs::{Costs, Now};
pub use health::{
    Effects, FAILS_MAX, HealthSettings, HealthWord, LOAD_MAX, LOAD_ONE, Outage, Outages, Reason,
};
use health::{Health, Moment, Prober};
pub use latency::Latencies;
pub use lease::Lease;
use lease::{At, Leases};
pub use lease_id::{EpochText, IdText, LeaseId};
pub use leases_saved::{LeasesHead, LeasesSaved};
use limit::Limit;
pub use limit::{LEASES_MAX, Limits, RATE_MAX, Rate};
pub use queue::{Order, QueueSettings, WAITING_MAX};
pub use quotas::TokensBefore;
use quotas::{NO_LIMIT, NOTHING as NO_EACH, Quotas};
pub use report::{Outcome, Report, Source};
use sessions::Sessions;
use tally::Tallies;
pub use tally::Tally;
pub use timed::{Timed, Whose};

use crate::lb::ground::bounds::{COUNTER_MAX, Slot};
use crate::lb::ground::chains::Found;
use crate::lb::ground::clock::{self, CLOCK_MAX, Millis, STEP};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};

/// The clock, the leases, the limits and the tallies of a pool.
#[derive(Clone, Debug, Default)]
pub struct Account {
    clock: Millis,
    /// From this time on the clock is to be moved: at the end of its step, or at once where it never was.
    step_ends: Millis,
    leases: Leases,
    tallies: Tallies,
    /// None in a pool that never limited leases or picks.
    quotas: Option<Box<Quotas>>,
    /// None in a pool that never used it.
    health: Option<Box<Health>>,
    /// None in a pool that never picked by latency.
    latencies: Option<Box<Latencies>>,
    /// None in a pool that never limited a cost.
    costs: Option<Box<Costs>>,
    /// None in a pool that never had any.
    sessions: Option<Box<Sessions>>,
    queue: QueueSettings,
    balance: Balance,
    /// How many leases a look ahead counts on which backends. None while nobody looks ahead.
    ahead: Option<Box<Ahead>>,
}

/// The leases that a look ahead counts.
#[derive(Clone, Debug, Default)]
struct Ahead {
    on: HashMap<Slot, u32>,
    all: u32,
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
            && self.quotas.as_ref().is_none_or(|q| q.is_default())
            && self.tallies.is_default()
            && self.latencies.is_none()
            && self.costs.as_ref().is_none_or(|costs| costs.is_default())
            && !self.has_sessions()
            && self.queue == QueueSettings::default()
            && self.balance == Balance::default()
            && self
                .health
                .as_ref()
                .is_none_or(|health| health.is_default())
    }

    // Time

    /// The pool's clock.
    pub fn clock(&self) -> Millis {
        self.clock
    }

    /// Moves the clock forward.
    pub fn move_clock(&mut self, clock: Millis) {
        self.clock = clock;
        self.step_ends = clock - clock % STEP + STEP;
    }

    /// Whether a time is in the step of the clock, and not before the clock.
    #[inline(always)]
    pub fn is_in_step(&self, time: Millis) -> bool {
        (self.clock..self.step_ends).contains(&time)
    }

    /// Whether time changes anything here.
    pub fn is_timed(&self) -> bool {
        !self.leases.is_empty()
            || self.quotas.as_ref().is_some_and(|q| q.is_timed())
            || self.latencies.is_some()
            || self.health.as_ref().is_some_and(|h| h.is_timed())
            || self.costs.as_ref().is_some_and(|costs| costs.is_timed())
            || self.has_sessions()
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
        self.leases.len() + self.ahead.as_ref().map_or(0, |ahead| ahead.all as usize)
    }

    /// How many leases are open on a backend, or not cleared yet.
    #[inline(always)]
    pub fn leases_on(&self, slot: Slot) -> u32 {
        match &self.ahead {
            None => self.leases.on(slot),
            Some(ahead) => self.leases.on(slot) + ahead.on.get(&slot).copied().unwrap_or(0),
        }
    }

    /// A look ahead counts one lease more on a backend.
    pub fn lease_ahead(&mut self, slot: Slot) {
        let ahead = self.ahead.get_or_insert_default();
        *ahead.on.entry(slot).or_insert(0) += 1;
        ahead.all += 1;
    }

    /// It does so no longer.
    pub fn end_ahead(&mut self, slot: Slot) {
        if let Some(ahead) = &mut self.ahead {
            ahead.on.entry(slot).and_modify(|leases| *leases -= 1);
            ahead.all -= 1;
        }
        self.ahead.take_if(|ahead| ahead.all == 0);
    }

    /// The lease of that id, if it is open.
    pub fn lease(&self, id: LeaseId) -> Option<Lease<'_>> {
        Some(self.leases.lease(self.open(id)?.at))
    }

    /// Reads the id of a lease.
    #[inline(always)]
    pub fn read_id(&self, text: &[u8]) -> Option<LeaseId> {
        self.leases.epochs().read(text)
    }

    /// The text of a lease's id.
    #[inline(always)]
    pub fn id_text(&self, id: LeaseId) -> IdText {
        self.leases.epochs().text(id)
    }

    #[inline(always)]
    fn open(&self, id: LeaseId) -> Option<Found> {
        let found = self.leases.find(id)?;
        match self.leases.is_over(found.at, self.clock) {
            true => None,
            false => Some(found),
        }
    }

    /// Grants a lease.
    #[inline(always)]
    pub fn grant(&mut self, slot: Slot, terms: &LeaseTerms) -> LeaseId {
        let deadline = clock::deadline(self.clock, terms.span);
        (self.leases).grant(slot, terms.owner, self.clock, deadline)
    }

    /// Ends a lease, and heeds what is told of its request. Answers the backend's slot, if the lease was open, and what followed.
    #[inline(always)]
    pub fn done(&mut self, id: LeaseId, report: &Report) -> Option<(Slot, Effects)> {
        let slot = self.leases.end_found(self.open(id)?)?;
        if let Some(costs) = &mut self.costs {
            costs.ended(id.number);
        }
        self.tallies.done(slot, report);
        Some((slot, self.heed(slot, Source::Lease(id.number), report)))
    }

    /// Heeds what is told of a backend by a caller; answers what followed.
    pub fn report(&mut self, slot: Slot, report: &Report) -> Effects {
        self.tallies.reported(slot, report);
        self.heed(slot, Source::Caller, report)
    }

    #[inline(always)]
    fn heed(&mut self, slot: Slot, source: Source, report: &Report) -> Effects {
        match (&self.health, &self.latencies) {
            (None, None) => Effects::default(),
            _ => self.heed_health(slot, source, report),
        }
    }

    fn heed_health(&mut self, slot: Slot, source: Source, report: &Report) -> Effects {
        let moment = self.moment();
        let effects = match (&mut self.health, &self.latencies) {
            (Some(health), _) => health.report(slot, source, report, moment),
            (None, latencies) => Effects {
                counted: latencies.as_ref().is_some_and(|l| l.is_in(slot)),
                ..Effects::default()
            },
        };
        let outcome = report.outcome.filter(|_| effects.counted);
        if let (Some(latencies), Some(outcome)) = (&mut self.latencies, outcome) {
            let leases = self.leases.len();
            latencies.report(slot, outcome, report.latency, leases, moment.clock);
        }
        effects
    }

    fn moment(&self) -> Moment {
        Moment {
            clock: self.clock,
            next_lease: self.leases.next,
        }
    }

    // Health and latencies

    /// The health, made where there was none. These are the backends' weights where they are up, else 0, of each slot.
    pub fn health_of(&mut self, weights: impl Iterator<Item = u16>) -> &mut Health {
        self.health
            .get_or_insert_with(|| Box::new(Health::of(weights)))
    }

    /// The health, if there is one.
    #[inline(always)]
    pub fn health(&self) -> Option<&Health> {
        self.health.as_deref()
    }

    /// The running weight of a backend that the operator gave this weight.
    #[inline(always)]
    pub fn running_weight(&self, slot: Slot, weight: u16) -> u32 {
        match &self.health {
            Some(health) => health.running_weight(slot, weight),
            None => weight.into(),
        }
    }

    /// The unit of running weights.
    pub fn unit(&self) -> u32 {
        self.health.as_ref().map_or(1, |health| health.unit())
    }

    /// The latencies, if there are any.
    #[inline(always)]
    pub fn latencies(&self) -> Option<&Latencies> {
        self.latencies.as_deref()
    }

    /// From now on reports move latencies. The same weights as for [`Account::health_of`].
    pub fn heed_latencies(&mut self, weights: impl Iterator<Item = u16>) {
        if self.latencies.is_none() {
            self.latencies = Some(Box::default());
            let all = weights.enumerate();
            all.for_each(|(slot, weight)| self.follow(slot, weight));
        }
    }

    /// Whether newcomers of this weight in all start slowly, in a pool that has picked before.
    pub fn slows(&self, newcomers: u64) -> bool {
        (self.health.as_ref()).is_some_and(|health| health.slows(newcomers))
    }

    /// A newcomer starts slowly.
    pub fn slow(&mut self, slot: Slot) {
        if let Some(health) = &mut self.health {
            health.slow(slot, self.clock);
        }
    }

    /// The weight of a backend where it is up, else 0, or its health has changed.
    #[inline(always)]
    pub fn follow(&mut self, slot: Slot, weight: u16) {
        if let Some(health) = &mut self.health {
            health.set_weight(slot, weight);
        }
        if let Some(latencies) = &mut self.latencies {
            let is_fit = self.health.as_ref().is_none_or(|h| h.is_in(slot));
            latencies.set_in(slot, weight > 0 && is_fit, self.clock);
        }
    }

    /// Changes the settings of health, where it was made; answers whether the running weights of all backends may be others then.
    pub fn set_health(&mut self, settings: HealthSettings) -> bool {
        let moment = self.moment();
        let health = self.health.as_mut();
        health.is_some_and(|health| health.set(settings, moment))
    }

    /// The operator says that a backend is well; answers whether it was out.
    pub fn restore(&mut self, slot: Slot) -> bool {
        let moment = self.moment();
        let health = self.health.as_mut();
        health.is_some_and(|health| health.restore(slot, moment))
    }

    /// Lets picks of this tier take the probe of a backend, if one is due and no limit of its own keeps it out; of none, no pick.
    /// Answers whether that changed anything.
    #[inline(always)]
    pub fn open_probe(&mut self, slot: Slot, tier: Option<u8>) -> bool {
        let is_limited = self.is_limited(Whose::of(slot));
        let health = self.health.as_mut();
        health.is_some_and(|health| health.open_probe(slot, tier.filter(|_| !is_limited)))
    }

    /// A backend was picked. If a probe of it was due, it is this pick.
    #[inline(always)]
    pub fn picked(&mut self, slot: Slot, lease: Option<LeaseId>) {
        if self.health.is_some() {
            self.take_probe(slot, lease);
        }
    }

    fn take_probe(&mut self, slot: Slot, lease: Option<LeaseId>) {
        if let Some(health) = self.health.as_mut().filter(|h| h.outages().is_due(slot)) {
            let by = lease.map_or(Prober::Unleased, |id| Prober::Lease(id.number));
            health.take_probe(slot, by, self.clock);
        }
    }

    /// A look ahead takes the probe of a backend, which is due. Answers what takes that back.
    pub fn take_probe_ahead(&mut self, slot: Slot) -> Option<Outage> {
        let clock = self.clock;
        let health = self.health.as_mut()?;
        let before = health.outages().outage(slot);
        health.take_probe(slot, Prober::Unleased, clock);
        Some(before)
    }

    /// Takes it back.
    pub fn put_back_probe(&mut self, slot: Slot, before: Outage) {
        if let Some(health) = &mut self.health {
            health.put_back_probe(slot, before);
        }
    }

    /// Ends a lease of which nobody told how its request went.
    fn end_untold(&mut self, at: At) -> Option<Slot> {
        if let Some(costs) = &mut self.costs {
            costs.ended(self.leases.lease(at).id.number);
        }
        let Some(health) = &mut self.health else {
            return self.leases.end(at);
        };
        let number = self.leases.lease(at).id.number;
        let slot = self.leases.end(at)?;
        health.lease_ended(slot, number, self.clock);
        Some(slot)
    }

    /// Ends the first lease of the oldest mark. Answers whose count that changes.
    fn end_first_marked(&mut self) -> Option<Whose> {
        let at = self.leases.first_marked()?;
        Some(self.end_untold(at).map_or(Whose::POOL, Whose::of))
    }

    fn end_first_of_health(&mut self, clock: Millis) -> Option<Whose> {
        let health = self.health.as_mut()?;
        let at = health.due().filter(|due| *due <= clock).unwrap_or(clock);
        let whose = health.end_first(clock)?;
        if let (Some(latencies), Some(slot)) = (&mut self.latencies, whose.slot()) {
            let is_in = health.outages().serves(slot) && health.is_in(slot);
            latencies.set_in(slot, is_in, at);
        }
        Some(whose)
    }

    /// Lets a lease end that long from now; false where it is not open.
    pub fn renew(&mut self, id: LeaseId, span: Millis) -> bool {
        let found = self.open(id);
        if let Some(Found { at, .. }) = found {
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

    /// Whether anything is over and not cleared yet, sessions aside.
    #[inline(always)]
    pub fn is_any_over(&self) -> bool {
        let is_over = |due: Option<Millis>| due.is_some_and(|due| due <= self.clock);
        self.leases.is_any_marked()
            || self.leases.due() <= self.clock
            || is_over(self.quotas.as_ref().and_then(|q| q.due()))
            || is_over(self.health.as_ref().and_then(|health| health.first()))
            || is_over(self.latencies.as_ref().and_then(|l| l.first()))
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

    // Sessions

    fn has_sessions(&self) -> bool {
        self.sessions.as_ref().is_some_and(|s| !s.is_empty())
    }

    /// How many sessions are pinned, or not cleared yet.
    pub fn sessions(&self) -> usize {
        self.sessions.as_ref().map_or(0, |s| s.len())
    }

    /// How many sessions are pinned to a backend, or not cleared yet.
    pub fn sessions_on(&self, slot: Slot) -> u32 {
        self.sessions.as_ref().map_or(0, |s| s.on(slot))
    }

    /// The slot that a session is pinned to.
    pub fn pinned(&self, session: u64) -> Option<Slot> {
        self.sessions.as_ref()?.pinned(session, self.clock)
    }

    /// Pins a session to a slot for that long from now.
    pub fn pin(&mut self, session: u64, slot: Slot, span: Millis) {
        let deadline = clock::deadline(self.clock, span);
        let sessions = self.sessions.get_or_insert_default();
        sessions.pin(session, slot, deadline);
    }

    /// Ends the pin of a session; false where there is none.
    pub fn unpin(&mut self, session: u64) -> bool {
        let sessions = self.sessions.as_mut();
        sessions.is_some_and(|s| s.unpin(session, self.clock))
    }

    /// Whether any session is over and not cleared yet. That keeps nobody from being served.
    #[inline(always)]
    pub fn is_any_session_over(&self) -> bool {
        (self.sessions.as_ref()).is_some_and(|s| s.is_any_over(self.clock))
    }

    /// Clears the first sessions that are over, `most` of them at most.
    pub fn clear_sessions(&mut self, most: usize) {
        if let Some(sessions) = &mut self.sessions {
            let mut left = 0..most;
            while left.next().is_some() && sessions.end_first(self.clock) {}
        }
    }

    // Limits

    /// The limit of a backend or of the pool, its own or that of each backend.
    pub fn limit(&self, whose: Whose) -> Limits {
        let limit = self.quota(whose);
        limits(limit.max, limit.bucket.as_ref().map(|bucket| bucket.rate))
    }

    /// The limit that a backend or the pool has of its own.
    pub fn own_limit(&self, whose: Whose) -> Limits {
        let limit = self.quota(whose);
        limits(limit.own_max(), limit.own_rate())
    }

    /// The limit that holds for each backend that has none of its own.
    pub fn limit_of_each(&self) -> Limits {
        let each = self.quotas.as_ref().map_or(&NO_EACH, |q| q.each());
        limits(each.max, each.rate)
    }

    /// How many picks the rate of a backend or of the pool allows, where one is set.
    pub fn tokens(&self, whose: Whose) -> Option<u64> {
        let bucket = self.quota(whose).bucket.as_ref()?;
        Some(bucket.tokens(self.clock) as u64)
    }

    /// Sets the limit of a backend or of the pool; answers whether that changed anything.
    pub fn set_limit(&mut self, whose: Whose, limits: &Limits) -> bool {
        match &mut self.quotas {
            None if !limits.is_any() => false,
            quotas => (quotas.get_or_insert_default()).set(whose, limits, self.clock),
        }
    }

    /// Sets the limit of each of the backends in these slots, which are all; answers whether that changed anything. Then all of them
    /// are to be looked at again.
    pub fn set_limit_of_each(
        &mut self,
        slots: impl Iterator<Item = Slot>,
        limits: &Limits,
    ) -> bool {
        if self.quotas.is_none() && !limits.is_any() {
            return false;
        }
        let quotas = self.quotas.get_or_insert_default();
        let changed = quotas.set_each(limits);
        if changed {
            slots.for_each(|slot| quotas.inherit(slot, self.clock));
        }
        changed
    }

    /// A newcomer has the limits that hold for each backend.
    pub fn joined(&mut self, slot: Slot) {
        if let Some(quotas) = self.quotas.as_mut().filter(|q| q.holds_for_each()) {
            quotas.inherit(slot, self.clock);
        }
        let now = self.now();
        if let Some(costs) = &mut self.costs {
            costs.joined(slot, now);
        }
    }

    /// Whether the pool as a whole is limited by anything, or each backend.
    pub fn limits_pool(&self) -> bool {
        self.quota(Whose::POOL).is_set()
            || self.quotas.as_ref().is_some_and(|q| q.holds_for_each())
            || self.balance != Balance::default()
            || self.costs.as_ref().is_some_and(|costs| costs.limits_pool())
    }

    #[inline(always)]
    fn quota(&self, whose: Whose) -> &Limit {
        match &self.quotas {
            None => &NO_LIMIT,
            Some(quotas) => quotas.of(whose),
        }
    }

    /// Whether the limit of a backend or of the pool is reached, as it was when it was looked at last.
    #[inline(always)]
    pub fn is_limited(&self, whose: Whose) -> bool {
        self.quota(whose).is_reached
    }

    /// Looks at a limit again. Answers whether it is reached now and was not before, or the other way round.
    #[inline(always)]
    pub fn recheck(&mut self, whose: Whose) -> bool {
        self.quotas.is_some() && self.recheck_limit(whose)
    }

    #[inline(never)]
    fn recheck_limit(&mut self, whose: Whose) -> bool {
        let leases = match whose.slot() {
            Some(slot) => self.leases_on(slot),
            None => self.leases() as u32,
        };
        let quotas = self.quotas.as_mut();
        quotas.is_some_and(|quotas| quotas.recheck(whose, leases, self.clock))
    }

    /// Takes a token out of each bucket that a pick of this backend needs one of.
    #[inline(always)]
    pub fn take_tokens(&mut self, slot: Slot) -> TokensBefore {
        match &mut self.quotas {
            None => TokensBefore::default(),
            Some(quotas) => quotas.take_tokens(slot, self.clock),
        }
    }

    /// Puts the tokens back.
    pub fn put_back(&mut self, slot: Slot, before: TokensBefore) {
        if let Some(quotas) = &mut self.quotas {
            quotas.put_back(slot, before);
        }
    }

    // Costs

    fn now(&self) -> Now {
        Now {
            clock: self.clock,
            next_lease: self.leases.next,
        }
    }

    /// Limits a cost of a backend or of the pool, or takes that away; answers whether that changed anything.
    pub fn set_cost(&mut self, whose: Whose, name: &[u8], rate: Option<Rate>) -> bool {
        let now = self.now();
        let costs = self.costs.get_or_insert_default();
        costs.set(whose, name, rate, now)
    }

    /// The same for each of the backends in these slots, which are all.
    pub fn set_cost_of_each(
        &mut self,
        slots: impl Iterator<Item = Slot>,
        name: &[u8],
        rate: Option<Rate>,
    ) -> bool {
        let now = self.now();
        let costs = self.costs.get_or_insert_default();
        costs.set_each(slots, name, rate, now)
    }

    /// Whether all these costs can be limited, which differ from each other.
    pub fn has_room_for_costs<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> bool {
        match &self.costs {
            Some(costs) => costs.has_room_for(names),
            None => names.count() <= COSTS_MAX,
        }
    }

    /// The costs that are limited for a backend or for the pool.
    pub fn cost_limits(&self, whose: Whose) -> impl Iterator<Item = CostLimit<'_>> {
        let costs = self.costs.iter();
        costs.flat_map(move |costs| costs.limits(whose, self.clock))
    }

    /// Those that are limited for each backend.
    pub fn costs_of_each(&self) -> impl Iterator<Item = (&[u8], Rate)> {
        self.costs.iter().flat_map(|costs| costs.each())
    }

    /// The amounts of those of these costs that are limited somewhere; none where there are none.
    pub fn amounts(&self, costs: &[Cost]) -> Option<Amounts> {
        let amounts = self.costs.as_ref()?.amounts(costs);
        (!amounts.is_none()).then_some(amounts)
    }

    /// Whether a backend, or the pool, holds all these amounts.
    pub fn affords(&self, whose: Whose, amounts: &Amounts) -> bool {
        let costs = self.costs.as_ref();
        costs.is_none_or(|costs| costs.affords(whose, amounts, self.clock))
    }

    /// When a backend and the pool hold them, if nothing else happens: now, or later.
    pub fn affords_from(&self, whose: Whose, amounts: &Amounts) -> Millis {
        let costs = self.costs.as_ref();
        costs.map_or(self.clock, |costs| costs.next(whose, amounts, self.clock))
    }

    /// A pick of this backend takes the amounts, which it and the pool hold.
    pub fn pay(&mut self, slot: Slot, lease: Option<LeaseId>, amounts: &Amounts) {
        let lease = lease.map(|id| id.number);
        if let Some(costs) = &mut self.costs {
            costs.take(slot, lease, amounts, self.clock);
        }
    }

    /// A lease has really cost these amounts, if it is open.
    pub fn settle(&mut self, id: LeaseId, costs: &[Cost]) {
        let slot = self
            .open(id)
            .and_then(|found| self.leases.lease(found.at).slot);
        if let (Some(slot), Some(kept)) = (slot, &mut self.costs) {
            kept.settle(slot, id.number, costs, self.clock);
        }
    }

    /// Lets a backend have this amount left at most; answers whether it had more.
    pub fn lower(&mut self, slot: Slot, left: Cost) -> bool {
        let clock = self.clock;
        let costs = self.costs.as_mut();
        costs.is_some_and(|costs| costs.lower(slot, left, clock))
    }

    /// The time at which the first willing backend is back, if nothing else happens, and why it is out. Some backend is willing, nothing
    /// is over, and limits and outages keep all out: each backend, or only the pool as a whole.
    ///
    /// It looks at [`LOOKED_AT`] leases and as many buckets at most. If more of them matter, it answers a time before which nobody
    /// comes back.
    pub fn first_back(
        &self,
        is_willing: impl Fn(Slot) -> bool,
        kept_out: KeptOut,
    ) -> Option<(Millis, Reason)> {
        let is_free = |slot: Slot| {
            let limit = self.quota(Whose::of(slot));
            is_willing(slot) && excess(limit, self.leases.on(slot)) == 0
        };
        let refill = match kept_out {
            KeptOut::ByThePool => Some(self.clock),
            KeptOut::Each => (self.quotas.as_ref()).and_then(|quotas| {
                quotas.first_refill(LOOKED_AT, |slot| {
                    self.out_for(slot).is_none() && is_free(slot)
                })
            }),
        };
        let mut first = refill.map(|refill| (refill, Reason::Limited));
        let out = self.health.iter().flat_map(|health| health.outages().out());
        for (looked_at, (wakes, slot)) in out.enumerate() {
            if looked_at == LOOKED_AT {
                return first.into_iter().chain([(wakes, Reason::Ejected)]).min();
            }
            if let Some((back, reason)) = self.out_for(slot).filter(|_| is_free(slot)) {
                let limit = self.quota(Whose::of(slot));
                let back = back.max(limit.next(self.clock));
                first = first.into_iter().chain([(back, reason)]).min();
            }
        }
        let later = |whose, time| self.quota(whose).next(time);
        self.first_by_leases(first, is_willing, later)
    }

    /// The same of a request for these amounts, which backends may lack that no limit keeps out otherwise. O(n), and a look at
    /// [`LOOKED_AT`] leases at most.
    pub fn first_affording(
        &self,
        slots: std::ops::Range<Slot>,
        is_willing: impl Fn(Slot) -> bool,
        amounts: &Amounts,
    ) -> Option<(Millis, Reason)> {
        let later = |whose, time: Millis| {
            let token = self.quota(whose).next(time);
            token.max(self.affords_from(whose, amounts))
        };
        let is_free = |slot: Slot| excess(self.quota(Whose::of(slot)), self.leases.on(slot)) == 0;
        let free = slots.filter(|slot| is_willing(*slot) && is_free(*slot));
        let backs = free.map(|slot| {
            let (out, reason) = self.out_for(slot).unwrap_or((0, Reason::Limited));
            (later(Whose::of(slot), self.clock).max(out), reason)
        });
        self.first_by_leases(backs.min(), is_willing, later)
    }

    /// The first of that one and of those whose leases must end first. `later` tells when a backend, or the pool, has what a pick takes out
    /// of its buckets: at that time, or later.
    fn first_by_leases(
        &self,
        mut first: Option<(Millis, Reason)>,
        is_willing: impl Fn(Slot) -> bool,
        later: impl Fn(Whose, Millis) -> Millis,
    ) -> Option<(Millis, Reason)> {
        let pool = self.quota(Whose::POOL);
        let mut pool_excess = excess(pool, self.leases.len() as u32);
        let mut pool_back = later(Whose::POOL, self.clock);
        let mut ended = HashMap::new();
        for (looked_at, lease) in self.leases.by_deadline().enumerate() {
            if pool_excess == 0 && first.is_some_and(|(first, _)| first < lease.deadline) {
                break;
            }
            if looked_at == LOOKED_AT {
                return Some((lease.deadline, Reason::Limited));
            }
            if pool_excess > 0 {
                pool_excess -= 1;
                pool_back = pool_back.max(lease.deadline);
            }
            if let Some(slot) = lease.slot.filter(|slot| is_willing(*slot)) {
                let ended = ended.entry(slot).or_insert(0);
                *ended += 1;
                let limit = self.quota(Whose::of(slot));
                if *ended == excess(limit, self.leases.on(slot)) {
                    let back = lease.deadline.max(later(Whose::of(slot), lease.deadline));
                    let (out, reason) = self.out_for(slot).unwrap_or((0, Reason::Limited));
                    first = first.into_iter().chain([(back.max(out), reason)]).min();
                }
            }
        }
        first.map(|(first, reason)| match first < pool_back {
            true => (pool_back, Reason::Limited),
            false => (first, reason),
        })
    }

    /// Until when a backend is ejected or cools, if it does so. A probe that is on its way may end with its lease.
    fn out_for(&self, slot: Slot) -> Option<(Millis, Reason)> {
        let outages = self.health.as_ref()?.outages();
        let (wakes, reason) = outages.out_for(slot)?;
        let lease = outages.probing_lease(slot);
        let ends = lease.and_then(|number| self.leases.deadline_of(number));
        let ends = ends.map(|ends| ends.max(outages.cools_until(slot)));
        Some((ends.map_or(wakes, |ends| ends.min(wakes)), reason))
    }

    // The queue

    /// The settings of the queue.
    pub fn queue_settings(&self) -> QueueSettings {
        self.queue
    }

    /// Changes them.
    pub fn set_queue(&mut self, settings: QueueSettings) {
        self.queue = settings;
    }

    /// The setting of bounded load.
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// Changes it.
    pub fn set_balance(&mut self, balance: Balance) {
        self.balance = balance;
    }

    // Saved as sections of the second form: see `pool/saved.rs`

    /// Writes the clock.
    pub fn save_clock(&self, to: &mut Writer) {
        to.put(&self.clock);
    }

    /// Reads the clock.
    pub fn load_clock(&mut self, from: &mut Reader) -> Result<(), Malformed> {
        self.move_clock(from.number("clock", CLOCK_MAX)?);
        Ok(())
    }

    /// Writes a limit.
    pub fn save_limit(&self, whose: Whose, to: &mut Writer) {
        self.quota(whose).save(to);
    }

    /// Reads a limit.
    pub fn load_limit(&mut self, whose: Whose, from: &mut Reader) -> Result<(), Malformed> {
        let limit = Limit::load(from, self.clock)?;
        if limit.is_set() {
            let quotas = self.quotas.get_or_insert_default();
            quotas.load(whose, limit);
        }
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
        let quotas = self.quotas.iter();
        let overdue: Vec<u32> = (quotas.flat_map(|quotas| quotas.overdue(self.clock)))
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
            let quotas = self.quotas.as_mut();
            let is_sound = quotas.is_some_and(|q| q.load_overdue(whose, self.clock));
            checked("buckets", (), is_sound)?;
        }
        leases_saved::load_marks(&mut self.leases, gone, from)
    }

    /// Writes the health of the backends in these slots, if there is anything in it.
    pub fn save_health(&self, slots: &[Slot], to: &mut Writer) {
        if let Some(health) = self.health.as_ref().filter(|health| !health.is_default()) {
            health.save(slots, to);
        }
    }

    /// Reads it, in a pool with this number of slots.
    pub fn load_health(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
        self.health = Some(Box::new(Health::load(slots, self.clock, from)?));
        Ok(())
    }

    /// Writes the latencies of the backends in these slots, if reports move any.
    pub fn save_latencies(&self, slots: &[Slot], to: &mut Writer) {
        if let Some(latencies) = &self.latencies {
            latencies.save_head(to);
            slots.iter().for_each(|slot| latencies.save(*slot, to));
        }
    }

    /// Reads them, in a pool with this number of slots.
    pub fn load_latencies(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
        let mut latencies = Latencies::load_head(from)?;
        (0..slots).try_for_each(|slot| latencies.load(slot, self.clock, from))?;
        self.latencies = Some(Box::new(latencies));
        Ok(())
    }

    /// Writes the limits that hold for each backend, and which of those in these slots have them, if there are any.
    pub fn save_each(&self, slots: &[Slot], to: &mut Writer) {
        if let Some(quotas) = &self.quotas {
            quotas.save_each(slots, to);
        }
    }

    /// Reads them, in a pool with this number of slots.
    pub fn load_each(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
        let quotas = self.quotas.get_or_insert_default();
        quotas.load_each(slots, from)
    }

    /// Writes the costs of the backends in these slots, if there are any.
    pub fn save_costs(&self, slots: &[Slot], to: &mut Writer) {
        if let Some(costs) = self.costs.as_ref().filter(|costs| !costs.is_default()) {
            costs.save(slots, to);
        }
    }

    /// Reads them, in a pool with this number of slots. The leases were read before.
    pub fn load_costs(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
        let has_lease = |number| self.leases.has(number);
        self.costs = Some(Box::new(Costs::load(slots, self.now(), has_lease, from)?));
        Ok(())
    }

    /// Writes the sessions, of a pool with this number of backends, if there are any.
    pub fn save_sessions(&self, gaps: &Gaps, members: usize, to: &mut Writer) {
        if let Some(sessions) = &self.sessions {
            sessions.save(gaps, members, to);
        }
    }

    /// Reads them.
    pub fn load_sessions(&mut self, members: usize, from: &mut Reader) -> Result<(), Malformed> {
        let sessions = Sessions::load(members, self.clock, from)?;
        self.sessions = Some(Box::new(sessions));
        Ok(())
    }

    /// Writes the settings of the queue, if they are not the default.
    pub fn save_queue(&self, to: &mut Writer) {
        self.queue.save(to);
    }

    /// Reads them.
    pub fn load_queue(&mut self, from: &mut Reader) -> Result<(), Malformed> {
        self.queue = QueueSettings::load(from)?;
        Ok(())
    }

    /// Writes the setting of bounded load, if it is not the default.
    pub fn save_balance(&self, to: &mut Writer) {
        self.balance.save(to);
    }

    /// Reads it.
    pub fn load_balance(&mut self, from: &mut Reader) -> Result<(), Malformed> {
        self.balance = Balance::load(from)?;
        Ok(())
    }

    /// All was read of a backend, which has this weight if it is up, else 0.
    pub fn loaded(&mut self, slot: Slot, weight: u16) {
        if let Some(health) = &mut self.health {
            health.set_weight(slot, weight);
        }
        if let Some(latencies) = &mut self.latencies {
            let is_fit = self.health.as_ref().is_none_or(|h| h.is_in(slot));
            latencies.load_in(slot, weight > 0 && is_fit);
        }
    }

    /// Whether every lease of a backend that is gone is over by a mark.
    pub fn are_gone_marked(&self) -> bool {
        self.leases.are_gone_marked()
    }

    /// Panics where the ways to find something disagree. The backends are in these slots. For the tests.
    pub fn check(&self, slots: &[Slot]) {
        self.leases.check();
        self.quotas.iter().for_each(|quotas| quotas.check(slots));
        let is_moved = self.clock > 0 || self.step_ends > 0;
        assert!(!is_moved || self.step_ends == (self.clock + 1).next_multiple_of(STEP));
        let costs = self.costs.iter();
        costs.for_each(|costs| costs.check(slots, |number| self.leases.has(number)));
        self.health.iter().for_each(|health| health.check());
        self.latencies
            .iter()
            .for_each(|latencies| latencies.check());
        self.sessions.iter().for_each(|sessions| sessions.check());
    }
}

/// How many leases must end before one more is allowed.
fn excess(limit: &Limit, leases: u32) -> u32 {
    match limit.max {
        0 => 0,
        max => (leases + 1).saturating_sub(max),
    }
}

fn limits(max: u32, rate: Option<Rate>) -> Limits {
    Limits {
        max: Some(max).filter(|max| *max > 0),
        rate: rate.map(Some),
        tier: None,
    }
}

impl Kept for Account {
    /// The backend's leases are over.
    fn forget(&mut self, slot: Slot) {
        self.leases.forget(slot);
        self.quotas.forget(slot);
        self.tallies.forget(slot);
        self.health.forget(slot);
        self.latencies.forget(slot);
        self.costs.forget(slot);
        self.sessions.forget(slot);
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.leases.renumber(gaps);
        self.quotas.renumber(gaps);
        self.tallies.renumber(gaps);
        self.health.renumber(gaps);
        self.latencies.renumber(gaps);
        self.costs.renumber(gaps);
        self.sessions.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.leases.relocate(by);
        self.quotas.relocate(by);
        self.tallies.relocate(by);
        self.health.relocate(by);
        self.latencies.relocate(by);
        self.costs.relocate(by);
        self.sessions.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.leases.heap_bytes()
            + self.quotas.heap_bytes()
            + self.tallies.heap_bytes()
            + self.health.heap_bytes()
            + self.latencies.heap_bytes()
            + self.costs.heap_bytes()
            + self.sessions.heap_bytes()
    }
}

impl Timed for Account {
    /// A time that no clock can show does not come. The deadline of a session lets nobody be served, so it is none of these times:
    /// only when the clock has passed it, for another reason, its session is due to be cleared.
    #[inline(always)]
    fn due(&self) -> Option<Millis> {
        if self.leases.is_any_marked() || self.is_any_session_over() {
            return Some(self.clock);
        }
        let mut due = self.leases.due();
        if let Some(quotas) = &self.quotas {
            due = due.min(quotas.due().unwrap_or(Millis::MAX));
        }
        if let Some(health) = &self.health {
            due = due.min(health.due().unwrap_or(Millis::MAX));
        }
        (due <= CLOCK_MAX).then_some(due)
    }

    /// The leases that are due in the order (deadline, number), then the buckets by their times, then the leases that are over by
    /// marks in the order in which the marks were made.
    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        if let Some((_, at)) = self.leases.first_due().filter(|(due, _)| *due <= clock) {
            let is_marked = self.leases.lease(at).is_marked;
            let slot = self.end_untold(at);
            // It had ended before its deadline came, whatever was cleared first.
            if let Some(slot) = slot.filter(|_| !is_marked) {
                self.tallies.expired(slot);
            }
            return Some(slot.map_or(Whose::POOL, Whose::of));
        }
        let refilled = self.quotas.as_mut().and_then(|q| q.end_first(clock));
        let mut first = refilled.or_else(|| self.end_first_marked());
        if first.is_none() {
            first = self.end_first_of_health(clock);
        }
        if first.is_none() {
            first = self.latencies.as_mut().and_then(|l| l.end_first(clock));
        }
        first
    }
}
