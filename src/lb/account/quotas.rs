//! The limits of the backends and of the pool as a whole: which of them are reached, and until when.

use std::collections::BTreeSet;

use super::limit::{Bucket, Limit, Limits};
use super::timed::{Timed, Whose};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, allocated};
use crate::lb::ground::sparse::Sparse;

/// All limits of a pool.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    of_pool: Limit,
    of_backends: Sparse<Limit>,
    /// Empty buckets, by when they have a token again. Made of the buckets, not saved. Only those are saved that the clock has
    /// passed and no tick has reached yet.
    refills: BTreeSet<(Millis, Whose)>,
    /// How many backends have a bucket.
    buckets: usize,
}

/// The limit of a backend that has none.
static NO_LIMIT: Limit = Limit {
    max: 0,
    bucket: None,
    refill: None,
    is_reached: false,
};

/// The buckets before a token was taken out of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokensBefore {
    backend: Option<Bucket>,
    pool: Option<Bucket>,
}

impl Quotas {
    /// The limit of a backend or of the pool.
    #[inline(always)]
    pub fn of(&self, whose: Whose) -> &Limit {
        match whose.slot() {
            Some(slot) => self.of_backends.get(slot).unwrap_or(&NO_LIMIT),
            None => &self.of_pool,
        }
    }

    /// The limit of a backend or of the pool, to be changed. A backend that never had one has nothing there.
    fn find_mut(&mut self, whose: Whose) -> Option<&mut Limit> {
        match whose.slot() {
            Some(slot) => self.of_backends.get_mut(slot),
            None => Some(&mut self.of_pool),
        }
    }

    /// Whether a limit cannot be reached, and shows nowhere that it could be before.
    #[inline(always)]
    pub fn is_idle(&self, whose: Whose) -> bool {
        let limit = self.of(whose);
        !limit.is_set() && limit.refill.is_none() && !limit.is_reached
    }

    /// Whether nothing is limited.
    pub fn is_default(&self) -> bool {
        !self.of_pool.is_set() && self.of_backends.iter().all(|(_, l)| !l.is_set())
    }

    /// Whether there are buckets.
    #[inline(always)]
    pub fn is_timed(&self) -> bool {
        self.buckets > 0 || self.of_pool.bucket.is_some()
    }

    /// Looks at a limit again, where this number of leases is open. Answers whether it is reached now and was not before, or the other
    /// way round.
    #[inline(never)]
    pub fn recheck(&mut self, whose: Whose, leases: u32, clock: Millis) -> bool {
        let Some(limit) = self.find_mut(whose) else {
            return false;
        };
        let next = limit.next(0);
        // Only a tick clears a refill that the clock has passed.
        let is_to_come = next > clock || limit.refill == Some(next);
        let refill = (limit.bucket.is_some() && is_to_come).then_some(next);
        let is_reached = refill.is_some() || limit.is_reached_by(leases);
        let was_reached = std::mem::replace(&mut limit.is_reached, is_reached);
        let before = std::mem::replace(&mut limit.refill, refill);
        if before != refill {
            if let Some(before) = before {
                self.refills.remove(&(before, whose));
            }
            self.refills.extend(refill.map(|refill| (refill, whose)));
        }
        was_reached != is_reached
    }

    /// Sets a limit; answers whether that changed anything.
    pub fn set(&mut self, whose: Whose, limits: &Limits, clock: Millis) -> bool {
        self.change(whose, |limit| limit.set(limits, clock))
    }

    /// Sets a limit that was read, where none is set.
    pub fn load(&mut self, whose: Whose, limit: Limit) {
        if limit.is_set() {
            self.change(whose, |old| *old = limit);
        }
    }

    fn change<T>(&mut self, whose: Whose, change: impl FnOnce(&mut Limit) -> T) -> T {
        let limit = match whose.slot() {
            Some(slot) => self.of_backends.at(slot),
            None => &mut self.of_pool,
        };
        let before = usize::from(limit.bucket.is_some());
        let changed = change(limit);
        let after = usize::from(limit.bucket.is_some());
        if whose != Whose::POOL {
            self.buckets = self.buckets - before + after;
        }
        changed
    }

    /// A pick of this backend takes a token out of its bucket and out of the pool's, where they have one.
    #[inline(always)]
    pub fn take_tokens(&mut self, slot: Slot, clock: Millis) -> TokensBefore {
        match self.is_timed() {
            true => self.take_some(slot, clock),
            false => TokensBefore::default(),
        }
    }

    #[inline(never)]
    fn take_some(&mut self, slot: Slot, clock: Millis) -> TokensBefore {
        let mut take = |whose| {
            let bucket = self.find_mut(whose)?.bucket.as_deref_mut()?;
            let before = *bucket;
            bucket.take(clock);
            Some(before)
        };
        TokensBefore {
            backend: take(Whose::of(slot)),
            pool: take(Whose::POOL),
        }
    }

    /// Puts the tokens back.
    pub fn put_back(&mut self, slot: Slot, before: TokensBefore) {
        for (whose, before) in [
            (Whose::of(slot), before.backend),
            (Whose::POOL, before.pool),
        ] {
            if let Some((limit, before)) = self.find_mut(whose).zip(before) {
                limit.bucket = Some(Box::new(before));
            }
        }
    }

    /// When the first bucket of these backends has a token again. It looks at `most` buckets; if more matter, it answers a time
    /// before which none has one.
    pub fn first_refill(&self, most: usize, is_one: impl Fn(Slot) -> bool) -> Option<Millis> {
        let mut refills = self.refills.iter().enumerate();
        let first =
            refills.find(|(at, (_, whose))| *at == most || whose.slot().is_some_and(&is_one));
        first.map(|(_, (refill, _))| *refill)
    }

    /// The buckets that the clock has refilled, and that no tick has reached yet.
    pub fn overdue(&self, clock: Millis) -> impl Iterator<Item = Whose> {
        let overdue = self
            .refills
            .iter()
            .take_while(move |(refill, _)| *refill <= clock);
        overdue.map(|(_, whose)| *whose)
    }

    /// Notes that no tick has reached this bucket yet, as a saved pool says; false if that cannot be. All limits were looked at
    /// before.
    pub fn load_overdue(&mut self, whose: Whose, clock: Millis) -> bool {
        let Some(limit) = self.find_mut(whose) else {
            return false;
        };
        // The time of the refill, not later than it.
        let refill = limit.next(0);
        let is_sound =
            limit.bucket.is_some() && 0 < refill && refill <= clock && limit.refill.is_none();
        if is_sound {
            (limit.refill, limit.is_reached) = (Some(refill), true);
            self.refills.insert((refill, whose));
        }
        is_sound
    }
}

impl Kept for Quotas {
    fn forget(&mut self, slot: Slot) {
        let limit = self.of_backends.take(slot);
        self.buckets -= usize::from(limit.bucket.is_some());
        if let Some(refill) = limit.refill {
            self.refills.remove(&(refill, Whose::of(slot)));
        }
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.of_backends.renumber(gaps);
        let refills = std::mem::take(&mut self.refills);
        let renumbered = |(refill, whose): (Millis, Whose)| match whose.slot() {
            Some(slot) => (refill, Whose::of(gaps.before_slot(slot))),
            None => (refill, whose),
        };
        self.refills = refills.into_iter().map(renumbered).collect();
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.of_backends.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        // A leaf of a B-tree has room for eleven and holds six, where times only grow, to eight. So does a node above leaves.
        let leaves = self.refills.len().div_ceil(7);
        let leaf = allocated(11 * size_of::<(Millis, Whose)>() + 16);
        let refills = leaves * leaf + leaves / 8 * (leaf + 96);
        let buckets = self.buckets + usize::from(self.of_pool.bucket.is_some());
        self.of_backends.heap_bytes() + buckets * allocated(size_of::<Bucket>()) + refills
    }
}

impl Timed for Quotas {
    fn due(&self) -> Option<Millis> {
        self.refills.first().map(|(refill, _)| *refill)
    }

    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        let (_, whose) = (self.refills.first()).filter(|(refill, _)| *refill <= clock)?;
        let whose = *whose;
        self.refills.pop_first();
        if let Some(limit) = self.find_mut(whose) {
            limit.refill = None;
        }
        Some(whose)
    }
}
