//! The limits of the backends and of the pool as a whole: which of them are reached, and until when.

use std::collections::BTreeSet;

use super::limit::{Bucket, Each, LEASES_MAX, Limit, Limits, Rate};
use super::timed::{Timed, Whose};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, allocated};
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};
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
    /// What holds for each backend, if anything does. Every limit of a backend has it in itself, where it has no other: so to look at a
    /// limit is to look at one place.
    each: Option<Box<Each>>,
}

/// Where nothing holds for each backend.
pub static NOTHING: Each = Each { max: 0, rate: None };
/// In the saved form: whether a backend has its limits from what holds for each one.
const INHERITS_MAX: u8 = 1;
const INHERITS_RATE: u8 = 2;

/// The limit of a backend that has none.
pub static NO_LIMIT: Limit = Limit {
    max: 0,
    bucket: None,
    refill: None,
    is_reached: false,
    inherits_max: false,
    inherits_rate: false,
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
    fn is_idle(&self, whose: Whose) -> bool {
        let limit = self.of(whose);
        !limit.is_set() && limit.refill.is_none() && !limit.is_reached
    }

    /// Whether nothing is limited.
    pub fn is_default(&self) -> bool {
        self.each.is_none()
            && !self.of_pool.is_set()
            && self.of_backends.iter().all(|(_, l)| !l.is_set())
    }

    /// Whether there are buckets.
    #[inline(always)]
    pub fn is_timed(&self) -> bool {
        self.buckets > 0 || self.of_pool.bucket.is_some()
    }

    /// Looks at a limit again, where this number of leases is open. Answers whether it is reached now and was not before, or the other
    /// way round.
    pub fn recheck(&mut self, whose: Whose, leases: u32, clock: Millis) -> bool {
        if self.is_idle(whose) {
            return false;
        }
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
        let each = match whose {
            Whose::POOL => NOTHING,
            _ => *self.each(),
        };
        self.change(whose, |limit| limit.set(limits, &each, clock))
    }

    /// What holds for each backend that has nothing of its own.
    pub fn each(&self) -> &Each {
        self.each.as_deref().unwrap_or(&NOTHING)
    }

    /// Whether anything holds for each backend.
    pub fn holds_for_each(&self) -> bool {
        self.each.is_some()
    }

    /// Sets what holds for each backend; answers whether that changed anything. Then all backends must take it over.
    pub fn set_each(&mut self, limits: &Limits) -> bool {
        let before = self.each();
        let each = Each {
            max: limits.max.unwrap_or(before.max),
            rate: limits.rate.unwrap_or(before.rate),
        };
        let changed = each != *before;
        self.each = (each != NOTHING).then(|| Box::new(each));
        changed
    }

    /// A backend takes over what holds for each one, where it has nothing of its own.
    pub fn inherit(&mut self, slot: Slot, clock: Millis) {
        let each = *self.each();
        self.change(Whose::of(slot), |limit| limit.inherit(&each, clock));
    }

    /// Panics where a backend of these slots lacks what holds for each one. For the tests.
    pub fn check(&self, slots: &[Slot]) {
        let each = self.each();
        for slot in slots {
            let limit = self.of(Whose::of(*slot));
            let inherits = |own: bool, each: bool| !own && each;
            assert_eq!(
                limit.inherits_max,
                inherits(limit.own_max() > 0, each.max > 0)
            );
            assert!(!limit.inherits_max || limit.max == each.max);
            let own = limit.own_rate();
            assert_eq!(
                limit.inherits_rate,
                inherits(own.is_some(), each.rate.is_some())
            );
            let has = limit.bucket.as_ref().map(|bucket| bucket.rate);
            assert_eq!(has, own.or(each.rate));
        }
    }

    /// Writes what holds for each backend, and which of those in these slots have it.
    pub fn save_each(&self, slots: &[Slot], to: &mut Writer) {
        if let Some(each) = &self.each {
            to.put(&each.max);
            to.put(&each.rate);
            for slot in slots {
                let limit = self.of(Whose::of(*slot));
                let max = if limit.inherits_max { INHERITS_MAX } else { 0 };
                let rate = if limit.inherits_rate {
                    INHERITS_RATE
                } else {
                    0
                };
                to.put(&(max | rate));
            }
        }
    }

    /// Reads it, of a pool with this number of slots. All limits were read before.
    pub fn load_each(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
        let max = from.number("limit", LEASES_MAX)?;
        let rate: Option<Rate> = from.get()?;
        let is_sound = rate.map_or(max > 0, |rate| rate.is_sound());
        let rate = checked("limit", rate, is_sound)?;
        for slot in 0..slots {
            let inherits: u8 = from.number("limit", INHERITS_MAX | INHERITS_RATE)?;
            let mut none = Limit::default();
            let limit = self.find_mut(Whose::of(slot)).unwrap_or(&mut none);
            limit.inherits_max = inherits & INHERITS_MAX > 0;
            limit.inherits_rate = inherits & INHERITS_RATE > 0;
            // It has what holds for each backend, or its own.
            let is_max_sound = match limit.inherits_max {
                true => max > 0 && limit.max == max,
                false => max == 0 || limit.max > 0,
            };
            let has = limit.bucket.as_ref().map(|bucket| bucket.rate);
            let is_rate_sound = match limit.inherits_rate {
                true => rate.is_some() && has == rate,
                false => rate.is_none() || has.is_some(),
            };
            checked("limit", (), is_max_sound && is_rate_sound)?;
        }
        self.each = Some(Box::new(Each { max, rate }));
        Ok(())
    }

    /// Sets a limit that was read, where none is set.
    pub fn load(&mut self, whose: Whose, limit: Limit) {
        self.change(whose, |old| *old = limit);
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
            bucket.take(1, clock);
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
        let each = self
            .each
            .as_ref()
            .map_or(0, |_| allocated(size_of::<Each>()));
        self.of_backends.heap_bytes() + buckets * allocated(size_of::<Bucket>()) + refills + each
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
