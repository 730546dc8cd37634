//! The limits of the backends and of the pool as a whole: which of them are reached, and until when.

use std::collections::BTreeSet;

use super::limit::{Bucket, Limit, Limits};
use super::timed::{Timed, Whose};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, allocated, buffer};

/// All limits of a pool.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    of_pool: Limit,
    /// One for each slot.
    of_backends: Vec<Limit>,
    /// Empty buckets, by when they have a token again. Made of the buckets, not saved.
    refills: BTreeSet<(Millis, Whose)>,
    /// How many backends have a bucket.
    buckets: usize,
}

/// The buckets before a token was taken out of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokensBefore {
    backend: Option<Bucket>,
    pool: Option<Bucket>,
}

impl Quotas {
    /// The limit of a backend or of the pool.
    pub fn of(&self, whose: Whose) -> &Limit {
        match whose.slot() {
            Some(slot) => &self.of_backends[slot],
            None => &self.of_pool,
        }
    }

    fn of_mut(&mut self, whose: Whose) -> &mut Limit {
        match whose.slot() {
            Some(slot) => &mut self.of_backends[slot],
            None => &mut self.of_pool,
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
        !self.of_pool.is_set() && self.of_backends.iter().all(|limit| !limit.is_set())
    }

    /// Whether there are buckets.
    pub fn is_timed(&self) -> bool {
        self.buckets > 0 || self.of_pool.bucket.is_some()
    }

    /// Looks at a limit again, where this number of leases is open. Answers whether it is reached now and was not before, or the other
    /// way round.
    pub fn recheck(&mut self, whose: Whose, leases: u32, clock: Millis) -> bool {
        let limit = self.of_mut(whose);
        let next = limit.next(clock);
        let refill = (next > clock).then_some(next);
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
        self.change(whose, |old| *old = limit);
    }

    fn change<T>(&mut self, whose: Whose, change: impl FnOnce(&mut Limit) -> T) -> T {
        let limit = self.of_mut(whose);
        let before = usize::from(limit.bucket.is_some());
        let changed = change(limit);
        let after = usize::from(limit.bucket.is_some());
        if whose != Whose::POOL {
            self.buckets = self.buckets - before + after;
        }
        changed
    }

    /// A pick of this backend takes a token out of its bucket and out of the pool's, where they have one.
    #[inline]
    pub fn take_tokens(&mut self, slot: Slot, clock: Millis) -> TokensBefore {
        if !self.is_timed() {
            return TokensBefore::default();
        }
        let mut take = |whose| {
            let bucket = &mut self.of_mut(whose).bucket;
            let before = bucket.as_deref().copied();
            if let Some(bucket) = bucket {
                bucket.take(clock);
            }
            before
        };
        TokensBefore {
            backend: take(Whose::of(slot)),
            pool: take(Whose::POOL),
        }
    }

    /// Puts the tokens back.
    pub fn put_back(&mut self, slot: Slot, before: TokensBefore) {
        self.of_mut(Whose::of(slot)).bucket = before.backend.map(Box::new);
        self.of_mut(Whose::POOL).bucket = before.pool.map(Box::new);
    }
}

impl Kept for Quotas {
    fn grown(&mut self, slots: usize) {
        self.of_backends.resize_with(slots, Limit::default);
    }

    fn forget(&mut self, slot: Slot) {
        let limit = std::mem::take(&mut self.of_backends[slot]);
        self.buckets -= usize::from(limit.bucket.is_some());
        if let Some(refill) = limit.refill {
            self.refills.remove(&(refill, Whose::of(slot)));
        }
    }

    fn renumber(&mut self, gaps: &Gaps) {
        gaps.close(&mut self.of_backends);
        let refills = std::mem::take(&mut self.refills);
        let renumbered = |(refill, whose): (Millis, Whose)| match whose.slot() {
            Some(slot) => (refill, Whose::of(gaps.before_slot(slot))),
            None => (refill, whose),
        };
        self.refills = refills.into_iter().map(renumbered).collect();
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.of_backends);
    }

    fn heap_bytes(&self) -> usize {
        // A leaf of a B-tree has room for eleven and holds about eight. So does a node above leaves.
        let leaves = self.refills.len().div_ceil(8);
        let leaf = allocated(11 * size_of::<(Millis, Whose)>() + 16);
        let refills = leaves * leaf + leaves / 8 * (leaf + 96);
        let buckets = self.buckets + usize::from(self.of_pool.bucket.is_some());
        buffer(&self.of_backends) + buckets * allocated(size_of::<Bucket>()) + refills
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
        self.of_mut(whose).refill = None;
        Some(whose)
    }
}
