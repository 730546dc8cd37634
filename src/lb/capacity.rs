//! What a pool has in flight, how much it may take, and since when: leases, limits and the clock.
//!
//! A pool that uses none of these has no such part, and pays nothing for it.

use std::collections::{BTreeSet, HashMap};

use super::backend::{Backend, State};
use super::clock::{self, CLOCK_MAX, Millis};
use super::lease::{Lease, LeaseId, Leases};
use super::limit::{Bucket, Limit, Limits};
use super::pool::{COUNTER_MAX, Pool, counted};
use super::{Mover, Slot, allocated};

/// The part of a pool that knows of time and of work in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Capacity {
    /// The pool's clock.
    pub clock: Millis,
    pub leases: Leases,
    /// One for each slot.
    pub records: Vec<Record>,
    /// The limit of the pool as a whole.
    pub limit: Limit,
    /// Empty buckets, by when they have a token again; that of the pool is at [`POOL`]. Made of the buckets, not saved.
    refills: BTreeSet<(Millis, Slot)>,
    /// How many backends have a bucket.
    buckets: usize,
    /// How many picks least connections has made.
    pub turns: u64,
}

const POOL: Slot = Slot::MAX;

/// What is kept of a backend beside its membership, in pools that need it.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub(super) limit: Limit,
    /// When least connections picked it last, in its own picks.
    pub(super) last: u64,
    /// Leases that LB.DONE ended.
    pub done: u64,
    /// Those of them that had failed.
    pub failed: u64,
    /// Leases that ended by their deadline.
    pub expired: u64,
    /// The latencies that were reported, all together, in microseconds.
    pub latency: u64,
    /// How many were reported.
    pub latencies: u64,
}

/// What a lease is granted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms<'a> {
    /// How long at most.
    pub span: Millis,
    /// To whom.
    pub owner: Option<&'a [u8]>,
}

/// How it went, as LB.DONE tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// It failed.
    pub failed: bool,
    /// How long it took, in microseconds.
    pub latency: Option<u64>,
}

/// When a pool can be picked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now.
    Available,
    /// Limits keep all out that could be picked; whoever comes in so many milliseconds finds the first one back, if not
    /// before.
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

/// The buckets before a token was taken out of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Untaken {
    backend: Option<Bucket>,
    pool: Option<Bucket>,
}

impl Record {
    /// The mean of the latencies that were reported, in microseconds; 0 where none was.
    pub fn mean_latency(&self) -> u64 {
        self.latency.checked_div(self.latencies).unwrap_or(0)
    }
}

impl Capacity {
    /// That of a pool with these slots which had none.
    pub fn of(backends: &[Backend]) -> Capacity {
        let mut capacity = Capacity {
            records: vec![Record::default(); backends.len()],
            ..Capacity::default()
        };
        capacity.leases.added(backends.len());
        capacity
    }

    /// Makes room for the slot that was added last.
    pub fn added(&mut self, slots: usize) {
        self.records.resize_with(slots, Record::default);
        self.leases.added(slots);
    }

    /// Whether it is as good as none.
    pub fn is_default(&self) -> bool {
        let is_unlimited = !self.limit.is_set() && self.buckets == 0;
        let unused = |r: &Record| !r.limit.is_set() && r.last == 0 && r.done == 0 && r.expired == 0;
        let is_unused = self.clock == 0 && self.turns == 0 && self.leases.next == 0;
        is_unlimited
            && is_unused
            && self.leases.epochs().next().is_none()
            && self.records.iter().all(unused)
    }

    /// Whether time changes anything here.
    fn is_timed(&self) -> bool {
        !self.leases.is_empty() || self.buckets > 0 || self.limit.bucket.is_some()
    }

    fn limit_at(&mut self, at: Slot) -> &mut Limit {
        match at {
            POOL => &mut self.limit,
            slot => &mut self.records[slot].limit,
        }
    }

    /// Whether the limit there, of a backend or of the pool, is reached; notes when it will not be for lack of a token.
    fn is_limited(&mut self, at: Slot) -> bool {
        let leases = match at {
            POOL => self.leases.len() as u32,
            slot => self.leases.on(slot),
        };
        let clock = self.clock;
        let limit = self.limit_at(at);
        let next = limit.next(clock);
        let refill = (next > clock).then_some(next);
        let is_limited = refill.is_some() || limit.is_reached_by(leases);
        let before = std::mem::replace(&mut limit.refill, refill);
        if before != refill {
            if let Some(before) = before {
                self.refills.remove(&(before, at));
            }
            self.refills.extend(refill.map(|refill| (refill, at)));
        }
        is_limited
    }

    /// A bucket that has a token again at that clock, and is not known to have.
    fn refill_due(&self, clock: Millis) -> Option<(Millis, Slot)> {
        self.refills
            .first()
            .filter(|(refill, _)| *refill <= clock)
            .copied()
    }

    /// Forgets the slot's backend, whose leases have ended.
    fn forget(&mut self, slot: Slot) {
        let record = std::mem::take(&mut self.records[slot]);
        self.buckets -= usize::from(record.limit.bucket.is_some());
        if let Some(refill) = record.limit.refill {
            self.refills.remove(&(refill, slot));
        }
    }

    /// Sets the limit there, of a backend or of the pool; says whether that changed anything.
    fn set_limit(&mut self, at: Slot, limits: &Limits) -> bool {
        let clock = self.clock;
        let limit = self.limit_at(at);
        let before = usize::from(limit.bucket.is_some());
        let changed = limit.set(limits, clock);
        let after = usize::from(limit.bucket.is_some());
        if at != POOL {
            self.buckets = self.buckets - before + after;
        }
        changed
    }

    /// A limit out of a saved pool.
    pub fn restore_limit(&mut self, slot: Option<Slot>, max: u32, bucket: Option<Bucket>) {
        self.buckets += usize::from(slot.is_some() && bucket.is_some());
        let limit = self.limit_at(slot.unwrap_or(POOL));
        limit.max = max;
        limit.bucket = bucket.map(Box::new);
    }

    /// The slots have other numbers now: what was slot `n` is `slots[n]`.
    pub fn renumber(&mut self, slots: &[Slot], vacant: impl Fn(Slot) -> bool, len: usize) {
        self.leases.renumber(slots, len);
        let mut slot = 0;
        self.records.retain(|_| {
            slot += 1;
            !vacant(slot - 1)
        });
        self.records.shrink_to_fit();
        let refills = std::mem::take(&mut self.refills);
        let renumbered = |(refill, at): (Millis, Slot)| match at {
            POOL => (refill, POOL),
            slot => (refill, slots[slot]),
        };
        self.refills = refills.into_iter().map(renumbered).collect();
    }

    /// Lets the mover at what is on the heap in one piece each.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        self.leases.relocate(by);
        by.vec(&mut self.records);
    }

    /// How many bytes it takes.
    pub fn heap_bytes(&self) -> usize {
        // A leaf of a B-tree has room for eleven, of which about eight are used, and so has a node above leaves.
        let leaves = self.refills.len().div_ceil(8);
        let leaf = allocated(11 * size_of::<(Millis, Slot)>() + 16);
        let refills = leaves * leaf + leaves / 8 * (leaf + 96);
        allocated(size_of::<Capacity>())
            + allocated(self.records.capacity() * size_of::<Record>())
            + self.leases.heap_bytes()
            + (self.buckets + usize::from(self.limit.bucket.is_some()))
                * allocated(size_of::<Bucket>())
            + refills
    }
}

/// The steps of a pool that have to do with time, leases and limits.
impl Pool {
    /// The part that knows of them, made where there was none.
    pub(super) fn capacity(&mut self) -> &mut Capacity {
        let backends = &self.backends;
        (self.capacity).get_or_insert_with(|| Box::new(Capacity::of(backends)))
    }

    // Time

    /// The pool's clock.
    pub fn clock(&self) -> Millis {
        self.capacity.as_ref().map_or(0, |c| c.clock)
    }

    /// Whether time changes anything in this pool. If not, nobody needs to know what time it is.
    #[inline(always)]
    pub fn is_timed(&self) -> bool {
        self.capacity.as_ref().is_some_and(|c| c.is_timed())
    }

    /// When something ends by itself or begins again. What no clock can show does not come.
    pub fn due(&self) -> Option<Millis> {
        let capacity = self.capacity.as_ref()?;
        let lease = capacity.leases.first_due().map(|(deadline, _)| deadline);
        let refill = capacity.refills.first().map(|(refill, _)| *refill);
        let due = lease.into_iter().chain(refill).min();
        due.filter(|due| *due <= CLOCK_MAX)
    }

    /// To what the clock can be moved to end what is due by that time; nothing where that is nothing. Not so far that more
    /// than so many leases end, unless they end together.
    pub fn due_by(&self, time: Millis, most: usize) -> Option<Millis> {
        self.due().filter(|due| *due <= time)?;
        let mut leases = self.capacity.as_ref()?.leases.by_deadline();
        let one_too_many = leases.nth(most).filter(|lease| lease.deadline <= time);
        Some(one_too_many.map_or(time, |lease| lease.deadline))
    }

    /// Moves the pool's clock forward, and ends what is due; says whether the clock moved.
    pub fn tick(&mut self, clock: Millis) -> bool {
        if clock <= self.clock() {
            return false;
        }
        let capacity = self.capacity();
        capacity.clock = clock;
        while let Some((_, at)) = (self.capacity().leases.first_due()).filter(|due| due.0 <= clock)
        {
            let slot = self.end(at);
            let expired = &mut self.capacity().records[slot].expired;
            *expired = counted(*expired);
        }
        while let Some((_, at)) = self.capacity().refill_due(clock) {
            self.relimit(at);
        }
        true
    }

    // Leases

    /// From now on leases are of that epoch.
    pub fn open_epoch(&mut self, epoch: u64) {
        self.capacity().leases.open_epoch(epoch);
    }

    /// Whether there are numbers for so many leases. There are, save in a pool from a crafted payload.
    pub(super) fn has_numbers_for(&self, leases: usize) -> bool {
        let next = self.capacity.as_ref().map_or(0, |c| c.leases.next);
        next + leases as u64 <= COUNTER_MAX
    }

    /// How many leases are open.
    pub fn leases(&self) -> usize {
        self.capacity.as_ref().map_or(0, |c| c.leases.len())
    }

    /// How many are open on a backend of this pool.
    pub fn leases_on(&self, slot: Slot) -> u32 {
        self.capacity.as_ref().map_or(0, |c| c.leases.on(slot))
    }

    /// The lease of that id, if it is open.
    pub fn lease(&self, id: LeaseId) -> Option<Lease<'_>> {
        let leases = &self.capacity.as_ref()?.leases;
        Some(leases.lease(leases.find(id)?))
    }

    /// Ends a lease, and counts how it went; false where it is not open.
    pub fn done(&mut self, id: LeaseId, report: &Report) -> bool {
        let Some(at) = self.find_lease(id) else {
            return false;
        };
        let slot = self.end(at);
        let record = &mut self.capacity().records[slot];
        record.done = counted(record.done);
        if report.failed {
            record.failed = counted(record.failed);
        }
        if let Some(latency) = report.latency {
            record.latency = record.latency.saturating_add(latency).min(i64::MAX as u64);
            record.latencies = counted(record.latencies);
        }
        true
    }

    /// Lets a lease end so long from now; false where it is not open.
    pub fn renew(&mut self, id: LeaseId, span: Millis) -> bool {
        let found = self.find_lease(id);
        if let Some(at) = found {
            let capacity = self.capacity();
            let deadline = clock::deadline(capacity.clock, span);
            capacity.leases.renew(at, deadline);
        }
        found.is_some()
    }

    /// Ends all leases of that owner; answers how many.
    pub fn release(&mut self, owner: &[u8]) -> usize {
        let mut ended = 0;
        while let Some(at) = (self.capacity.as_ref()).and_then(|c| c.leases.first_of(owner)) {
            self.end(at);
            ended += 1;
        }
        ended
    }

    /// The oldest leases, so many at most, of that backend and that owner where they are given.
    pub fn list_leases(
        &self,
        slot: Option<Slot>,
        owner: Option<&[u8]>,
        most: usize,
    ) -> Vec<Lease<'_>> {
        let Some(capacity) = self.capacity.as_ref() else {
            return Vec::new();
        };
        let leases = &capacity.leases;
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
                // Merges the lists of the backends, each of which is in order of age.
                let slots = slot.map_or(0..self.backends.len(), |slot| slot..slot + 1);
                let firsts = slots.filter_map(|slot| leases.first_on(slot));
                let entry = |at| std::cmp::Reverse((leases.lease(at).id.number, at));
                let mut front: std::collections::BinaryHeap<_> = firsts.map(entry).collect();
                while listed.len() < most
                    && let Some(std::cmp::Reverse((_, at))) = front.pop()
                {
                    listed.push(leases.lease(at));
                    front.extend(leases.next_on_slot(at).map(entry));
                }
            }
        }
        listed
    }

    /// What is kept of a backend beside its membership, where anything is.
    pub fn record(&self, slot: Slot) -> Option<&Record> {
        self.capacity.as_ref().map(|c| &c.records[slot])
    }

    fn find_lease(&self, id: LeaseId) -> Option<u32> {
        self.capacity.as_ref()?.leases.find(id)
    }

    /// The one place where a lease ends; answers on which slot it was.
    fn end(&mut self, at: u32) -> Slot {
        let slot = self.capacity().leases.end(at);
        self.reload(slot);
        self.relimit(slot);
        self.relimit(POOL);
        slot
    }

    /// Ends all leases of a slot.
    pub(super) fn end_all(&mut self, slot: Slot) {
        while let Some(at) = (self.capacity.as_ref()).and_then(|c| c.leases.first_on(slot)) {
            self.end(at);
        }
    }

    /// Forgets the slot's backend, whose leases have ended.
    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(capacity) = &mut self.capacity {
            capacity.forget(slot);
        }
    }

    // Limits

    /// Limits a backend, or the pool as a whole; says whether that changed anything. A backend that is not there has no limits.
    pub fn set_limits(&mut self, backend: Option<&[u8]>, limits: &Limits) -> bool {
        let at = match backend.map(|name| self.find(name)) {
            None => POOL,
            Some(Some(slot)) => slot,
            Some(None) => return false,
        };
        let mut changed = false;
        if let Some(tier) = limits.tier
            && at != POOL
            && self.backends[at].tier() != tier
        {
            changed = true;
            // What a pool is saved with goes by this.
            self.capacity();
            // There it is a newcomer: it starts neutral.
            self.set_tier(at, tier, 0);
        }
        // Where there is nothing to take away, nothing is made for it.
        if (limits.max.is_some() || limits.rate.is_some())
            && (self.capacity.is_some() || limits.is_any())
        {
            changed |= self.capacity().set_limit(at, limits);
            self.relimit(at);
        }
        changed
    }

    /// The limits that are set, of the backend in that slot or of the pool as a whole.
    pub fn limits(&self, slot: Option<Slot>) -> Limits {
        let limit = self.limit(slot);
        Limits {
            max: limit.map(|l| l.max).filter(|max| *max > 0),
            rate: (limit.and_then(|l| l.bucket.as_ref())).map(|bucket| Some(bucket.rate)),
            tier: slot
                .map(|slot| self.backends[slot].tier())
                .filter(|tier| *tier > 0),
        }
    }

    /// How many picks the rate there allows at the pool's clock, where one is set.
    pub fn tokens(&self, slot: Option<Slot>) -> Option<u64> {
        let bucket = self.limit(slot)?.bucket.as_ref()?;
        Some(bucket.tokens(self.clock()))
    }

    fn limit(&self, slot: Option<Slot>) -> Option<&Limit> {
        let capacity = self.capacity.as_ref()?;
        Some(match slot {
            Some(slot) => &capacity.records[slot].limit,
            None => &capacity.limit,
        })
    }

    /// Whether the pool as a whole is limited by anything.
    pub(super) fn is_limited(&self) -> bool {
        self.capacity.as_ref().is_some_and(|c| c.limit.is_set())
    }

    /// A backend was picked, in a pool that keeps account: tokens go, and a lease begins.
    pub(super) fn spend(&mut self, slot: Slot, terms: Option<&Terms>) -> Option<LeaseId> {
        self.take_tokens(slot);
        let capacity = self.capacity();
        let id = terms.map(|terms| {
            let deadline = clock::deadline(capacity.clock, terms.span);
            (capacity.leases).grant(slot, terms.owner, capacity.clock, deadline)
        });
        if id.is_some() {
            self.reload(slot);
        }
        self.relimit(slot);
        self.relimit(POOL);
        id
    }

    /// Takes a token out of each bucket that the pick of this slot needs one of.
    pub(super) fn take_tokens(&mut self, slot: Slot) -> Untaken {
        let capacity = self.capacity();
        let clock = capacity.clock;
        let mut take = |at| {
            let bucket = &mut capacity.limit_at(at).bucket;
            let before = bucket.as_deref().copied();
            if let Some(bucket) = bucket {
                bucket.take(clock);
            }
            before
        };
        Untaken {
            backend: take(slot),
            pool: take(POOL),
        }
    }

    /// What [`Pool::spend`] does to a look ahead, which takes no lease.
    pub(super) fn spend_for_now(&mut self, slot: Slot) -> Option<Untaken> {
        self.capacity.as_ref()?;
        let untaken = self.take_tokens(slot);
        self.relimit(slot);
        self.relimit(POOL);
        Some(untaken)
    }

    /// Puts the tokens back.
    pub(super) fn unspend(&mut self, slot: Slot, untaken: Untaken) {
        let capacity = self.capacity();
        capacity.limit_at(slot).bucket = untaken.backend.map(Box::new);
        capacity.limit_at(POOL).bucket = untaken.pool.map(Box::new);
        self.relimit(slot);
        self.relimit(POOL);
    }

    /// Lets the limit there decide again whether its backend, or the pool, can be picked.
    pub(super) fn relimit(&mut self, at: Slot) {
        let is_limited = self.capacity().is_limited(at);
        if at == POOL {
            self.is_closed = is_limited;
        } else if is_limited != self.backends[at].is_limited {
            self.backends[at].is_limited = is_limited;
            self.resume(at);
        }
    }

    /// Lets all limits decide again, after the pool was read.
    pub(super) fn relimit_all(&mut self) {
        (0..self.backends.len())
            .chain([POOL])
            .for_each(|at| self.relimit(at));
    }

    /// What least connections looks at has changed in that slot.
    pub(super) fn reload(&mut self, slot: Slot) {
        if let Some(capacity) = &self.capacity {
            let tier = self.backends[slot].tier();
            let lane = super::pool::lane(&mut self.lane, &mut self.parked, tier);
            lane.reload(&self.backends, capacity, slot);
        }
    }

    // Looking

    /// When a backend can be picked, and why not now.
    pub fn when(&self) -> When {
        if self.available() > 0 {
            return When::Available;
        }
        match self.first_back() {
            Some(time) => When::Limited(clock::shown(time) - self.clock()),
            None if self.is_empty() => When::Empty,
            None if self.backends().any(|b| b.state == State::Drain) => When::Drained,
            None if self.backends().any(|b| b.state == State::Down) => When::Down,
            None => When::Quiesced,
        }
    }

    /// When the first one is back that only limits keep out, if nothing else happens.
    fn first_back(&self) -> Option<Millis> {
        let capacity = self.capacity.as_ref()?;
        // How many leases must end before one more is allowed.
        let excess = |limit: &Limit, leases: u32| match limit.max {
            0 => 0,
            max => (leases + 1).saturating_sub(max),
        };
        let mut waiting = HashMap::new();
        let mut first: Option<Millis> = None;
        for (slot, backend) in self.backends.iter().enumerate() {
            if backend.weight == 0 || backend.state != State::Up {
                continue;
            }
            let limit = &capacity.records[slot].limit;
            match excess(limit, capacity.leases.on(slot)) {
                0 => first = first.into_iter().chain([limit.next(capacity.clock)]).min(),
                excess => _ = waiting.insert(slot, excess),
            }
        }
        let mut pool_excess = excess(&capacity.limit, capacity.leases.len() as u32);
        let mut pool_back = capacity.limit.next(capacity.clock);
        for lease in capacity.leases.by_deadline() {
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
                    let back = lease
                        .deadline
                        .max(capacity.records[lease.slot].limit.next(lease.deadline));
                    first = first.into_iter().chain([back]).min();
                }
            }
        }
        first.map(|first| first.max(pool_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::codec::{self, Stored};

    /// A newcomer is of tier 0, so there must be room for that one whatever the others are of.
    #[test]
    fn a_pool_of_as_many_tiers_as_there_can_be_takes_newcomers_and_can_be_loaded() {
        let mut pool = Pool::new();
        let mut tiers = 0;
        for tier in 1..=40u8 {
            pool.add(&[tier], None);
            if pool.has_room_for_tier(tier) {
                let limits = Limits {
                    tier: Some(tier),
                    ..Limits::default()
                };
                pool.set_limits(Some(&[tier]), &limits);
                tiers += 1;
            }
        }
        // Only those are left that are not of tier 0.
        (20..=40u8).for_each(|tier| _ = pool.remove(&[tier]));
        pool.add(b"newcomer", None);
        pool.check();
        assert_eq!(tiers, super::super::TIERS_MAX - 1);
        assert!(matches!(
            codec::decode(&codec::encode(&pool)),
            Ok(Stored::Pool(_))
        ));
    }

    /// While none is eligible a tier serves that nobody may be of any more.
    #[test]
    fn tiers_that_come_and_go_leave_no_lanes() {
        let mut pool = Pool::new();
        let names: Vec<[u8; 1]> = (0..20).map(|n| [n]).collect();
        let set_tier = |pool: &mut Pool, name: &[u8], tier| {
            assert!(pool.has_room_for_tier(tier));
            let limits = Limits {
                tier: Some(tier),
                ..Limits::default()
            };
            pool.set_limits(Some(name), &limits);
        };
        names.iter().for_each(|name| _ = pool.add(name, None));
        (names[1..].iter()).for_each(|name| _ = pool.set_state(name, State::Drain));
        set_tier(&mut pool, &names[0], 200);
        pool.set_state(&names[0], State::Drain);
        set_tier(&mut pool, &names[0], 0);
        for tier in 1..super::super::TIERS_MAX as u8 {
            set_tier(&mut pool, &names[usize::from(tier)], tier);
        }
        let bytes = pool.bytes(0);
        for tier in 20..180 {
            set_tier(&mut pool, &names[1], 0);
            set_tier(&mut pool, &names[1], tier);
            pool.check();
        }
        assert!(
            pool.bytes(0) < bytes + bytes / 4,
            "{bytes}, {}",
            pool.bytes(0)
        );
    }
}
