//! Costs: named amounts that a pick takes beside the pick itself, out of a bucket of its backend and one of the pool.
//!
//! What a request costs shows only when it has ended. So a pick takes an estimate, and LB.DONE settles the difference: what was too much
//! goes back, and what was too little is taken too, below zero if need be. What a lease took stands beside the leases, by its number,
//! so that a lease without costs is as small as ever.
//!
//! Amounts differ from pick to pick, so there is no index of the backends that hold enough: a pick looks at the backend that it would
//! take (see `pool/costs.rs`). A bucket here keeps no backend out of other picks, and nothing is due in it.

use std::collections::BTreeMap;

use super::limit::{Bucket, DEBT_MAX, RATE_MAX, Rate};
use super::timed::Whose;
use crate::lb::ground::bounds::{NAME_MAX, Slot};
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, allocated, buffer};
use crate::lb::ground::name::Name;
use crate::lb::ground::saved::{Bytes, Malformed, Reader, Writer, checked};
use crate::lb::ground::sparse::Sparse;

/// The most different costs that are limited in one pool.
pub const COSTS_MAX: usize = 4;

/// The name of a cost, and an amount of it.
pub type Cost<'a> = (&'a [u8], u64);

/// The amounts that a request takes, at the places of the costs. None where it does not name the cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts([Option<u64>; COSTS_MAX]);

/// The costs that are limited in a pool.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// A cost has the first free place. Its name goes when nothing limits it any more.
    names: [Option<Name>; COSTS_MAX],
    /// What holds for each backend. Every backend has a bucket by it, where it has none of its own.
    each: [Option<Rate>; COSTS_MAX],
    of_pool: Purse,
    of_backends: Sparse<Purse>,
    /// How many backends have a bucket of each cost.
    held: [u32; COSTS_MAX],
    /// What each lease took, by its number. Only leases that took something are there.
    taken: BTreeMap<u64, Taken>,
}

/// The buckets of a backend or of the pool, by the places of their costs.
#[derive(Clone, Debug, Default)]
struct Purse(Vec<Held>);

#[derive(Clone, Debug)]
struct Held {
    cost: u8,
    /// Whether its rate is what holds for each backend.
    inherits: bool,
    /// The first lease that could take something out of it. A lease that is older settles from 0 here, whatever it took elsewhere.
    since: u64,
    bucket: Bucket,
}

/// What a lease took of each cost. An amount has 48 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken([[u16; 3]; COSTS_MAX]);

/// A limit of a cost, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostLimit<'a> {
    /// The name of the cost.
    pub name: &'a [u8],
    /// How much of it comes, in which time.
    pub rate: Rate,
    /// How much is left. Below zero it is a debt.
    pub left: i64,
    /// Whether it is what holds for each backend.
    pub inherits: bool,
}

/// When limits change: the clock, and the number of the next lease.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub clock: Millis,
    pub next_lease: u64,
}

static EMPTY: Purse = Purse(Vec::new());

impl Amounts {
    /// Whether no cost is named that is limited anywhere.
    pub fn is_none(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    fn of(&self, held: &Held) -> Option<u64> {
        self.0[usize::from(held.cost)]
    }
}

impl Taken {
    fn amount(&self, cost: usize) -> u64 {
        let [low, middle, high] = self.0[cost].map(u64::from);
        low | middle << 16 | high << 32
    }

    fn set(&mut self, cost: usize, amount: u64) {
        self.0[cost] = [amount as u16, (amount >> 16) as u16, (amount >> 32) as u16];
    }
}

impl Purse {
    fn find(&self, cost: usize) -> Result<usize, usize> {
        self.0.binary_search_by_key(&cost, |held| held.cost.into())
    }

    fn get_mut(&mut self, cost: usize) -> Option<&mut Held> {
        let place = self.find(cost).ok()?;
        Some(&mut self.0[place])
    }

    fn has(&self, cost: usize) -> bool {
        self.find(cost).is_ok()
    }

    /// The rate that is its own.
    fn own(&self, cost: usize) -> Option<Rate> {
        let held = &self.0[self.find(cost).ok()?];
        (!held.inherits).then_some(held.bucket.rate)
    }

    /// Sets a rate of its own; answers whether that changed anything. Where it is taken away, that of each backend holds.
    fn set(&mut self, cost: usize, rate: Option<Rate>, each: Option<Rate>, now: Now) -> bool {
        let changed = rate != self.own(cost);
        if changed {
            self.hold(cost, rate.or(each), rate.is_none(), now);
        }
        changed
    }

    /// Takes over what holds for each backend, where it has nothing of its own.
    fn inherit(&mut self, cost: usize, each: Option<Rate>, now: Now) {
        if self.own(cost).is_none() {
            self.hold(cost, each, true, now);
        }
    }

    fn hold(&mut self, cost: usize, rate: Option<Rate>, inherits: bool, now: Now) {
        match (self.find(cost), rate) {
            (Ok(place), Some(rate)) => {
                let held = &mut self.0[place];
                held.inherits = inherits;
                if held.bucket.rate != rate {
                    held.bucket = held.bucket.with_rate(rate, now.clock);
                }
            }
            (Ok(place), None) => {
                self.0.remove(place);
                self.0.shrink_to_fit();
            }
            (Err(place), Some(rate)) => {
                self.0.reserve_exact(1);
                self.0.insert(
                    place,
                    Held {
                        cost: cost as u8,
                        inherits,
                        since: now.next_lease,
                        bucket: Bucket::full(rate, now.clock),
                    },
                );
            }
            (Err(_), None) => {}
        }
    }

    fn affords(&self, amounts: &Amounts, clock: Millis) -> bool {
        (self.0.iter()).all(|held| amounts.of(held).is_none_or(|n| held.bucket.holds(n, clock)))
    }

    fn take(&mut self, amounts: &Amounts, clock: Millis) {
        for held in &mut self.0 {
            if let Some(amount) = amounts.of(held) {
                held.bucket.take(amount, clock);
            }
        }
    }

    fn next(&self, amounts: &Amounts, clock: Millis) -> Millis {
        let nexts = self.0.iter().filter_map(|held| {
            let amount = amounts.of(held)?;
            Some(held.bucket.next(amount, clock))
        });
        nexts.max().unwrap_or(clock)
    }

    fn save(&self, to: &mut Writer) {
        let bits = |held: &Held| (1 | u8::from(held.inherits) << COSTS_MAX) << held.cost;
        to.put(&self.0.iter().fold(0, |all, held| all | bits(held)));
        for held in &self.0 {
            if !held.inherits {
                to.put(&held.bucket.rate);
            }
            to.put(&held.bucket.standing());
            to.put(&held.since);
        }
    }

    /// Reads it. Every cost that holds for each backend is held, where the purse is a backend's.
    fn load(
        each: &[Option<Rate>; COSTS_MAX],
        now: Now,
        from: &mut Reader,
    ) -> Result<Purse, Malformed> {
        let bits: u8 = from.get()?;
        let mut purse = Purse::default();
        for (cost, each) in each.iter().enumerate() {
            let is_held = bits >> cost & 1 > 0;
            let inherits = bits >> cost >> COSTS_MAX & 1 > 0;
            let is_sound = match (is_held, inherits) {
                (true, false) => true,
                (is_held, inherits) => is_held == inherits && each.is_some() == inherits,
            };
            checked("cost", (), is_sound)?;
            if !is_held {
                continue;
            }
            let rate = match each.filter(|_| inherits) {
                Some(rate) => rate,
                None => from.get()?,
            };
            let (level, at) = from.get()?;
            // The level of a rate that is not sound could overflow.
            let rate = checked("cost", rate, rate.is_sound())?;
            let bucket = Bucket::restored(rate, level, at);
            let bucket = checked("cost", bucket, bucket.is_sound(DEBT_MAX, now.clock))?;
            purse.0.reserve_exact(1);
            purse.0.push(Held {
                cost: cost as u8,
                inherits,
                since: from.number("cost", now.next_lease)?,
                bucket,
            });
        }
        Ok(purse)
    }
}

impl Costs {
    /// Whether nothing is limited, and no lease took anything.
    pub fn is_default(&self) -> bool {
        self.names.iter().all(Option::is_none) && self.taken.is_empty()
    }

    /// Whether there are buckets.
    pub fn is_timed(&self) -> bool {
        self.held.iter().any(|held| *held > 0) || !self.of_pool.0.is_empty()
    }

    /// Whether anything holds for the pool as a whole, or for each backend.
    pub fn limits_pool(&self) -> bool {
        !self.of_pool.0.is_empty() || self.each.iter().any(Option::is_some)
    }

    fn purse(&self, whose: Whose) -> &Purse {
        match whose.slot() {
            Some(slot) => self.of_backends.get(slot).unwrap_or(&EMPTY),
            None => &self.of_pool,
        }
    }

    fn purse_mut(&mut self, whose: Whose) -> Option<&mut Purse> {
        match whose.slot() {
            Some(slot) => self.of_backends.get_mut(slot),
            None => Some(&mut self.of_pool),
        }
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let is_it = |n: &Option<Name>| n.as_ref().is_some_and(|n| n.as_bytes() == name);
        self.names.iter().position(is_it)
    }

    // Limits

    /// Whether all these costs can be limited, which differ from each other.
    pub fn has_room_for<'a>(&self, costs: impl Iterator<Item = &'a [u8]>) -> bool {
        let known = self.names.iter().flatten().count();
        known + costs.filter(|name| self.find(name).is_none()).count() <= COSTS_MAX
    }

    /// The place of a cost, a new one if need be. There is room for it.
    fn open(&mut self, name: &[u8]) -> Option<usize> {
        let place = (self.find(name)).or_else(|| self.names.iter().position(Option::is_none))?;
        self.names[place].get_or_insert_with(|| Name::new(name));
        Some(place)
    }

    /// Limits a cost of a backend or of the pool, or takes that away; answers whether that changed anything.
    pub fn set(&mut self, whose: Whose, name: &[u8], rate: Option<Rate>, now: Now) -> bool {
        let place = match rate {
            Some(_) => self.open(name),
            None => self.find(name),
        };
        let Some(cost) = place else {
            return false;
        };
        let each = self.each[cost].filter(|_| whose != Whose::POOL);
        let changed = self.change(whose, cost, |purse| purse.set(cost, rate, each, now));
        self.drop_unused_names();
        changed
    }

    /// Limits a cost of each of the backends in these slots, which are all, or takes that away; answers whether that changed anything.
    pub fn set_each(
        &mut self,
        slots: impl Iterator<Item = Slot>,
        name: &[u8],
        rate: Option<Rate>,
        now: Now,
    ) -> bool {
        let place = match rate {
            Some(_) => self.open(name),
            None => self.find(name),
        };
        let Some(cost) = place.filter(|cost| self.each[*cost] != rate) else {
            return false;
        };
        self.each[cost] = rate;
        for slot in slots {
            self.change(Whose::of(slot), cost, |purse| {
                purse.inherit(cost, rate, now)
            });
        }
        self.drop_unused_names();
        true
    }

    /// A newcomer has what holds for each backend.
    pub fn joined(&mut self, slot: Slot, now: Now) {
        for cost in 0..COSTS_MAX {
            if let Some(rate) = self.each[cost] {
                self.change(Whose::of(slot), cost, |p| p.inherit(cost, Some(rate), now));
            }
        }
    }

    fn change<T>(&mut self, whose: Whose, cost: usize, change: impl FnOnce(&mut Purse) -> T) -> T {
        let Some(slot) = whose.slot() else {
            return change(&mut self.of_pool);
        };
        let purse = self.of_backends.at(slot);
        let before = u32::from(purse.has(cost));
        let changed = change(purse);
        self.held[cost] = self.held[cost] - before + u32::from(purse.has(cost));
        changed
    }

    fn drop_unused_names(&mut self) {
        for cost in 0..COSTS_MAX {
            if !self.is_used(cost) {
                self.names[cost] = None;
            }
        }
    }

    fn is_used(&self, cost: usize) -> bool {
        self.held[cost] > 0 || self.each[cost].is_some() || self.of_pool.has(cost)
    }

    /// The costs that are limited for a backend or for the pool.
    pub fn limits(&self, whose: Whose, clock: Millis) -> impl Iterator<Item = CostLimit<'_>> {
        self.purse(whose).0.iter().map(move |held| CostLimit {
            name: self.name(held.cost.into()),
            rate: held.bucket.rate,
            left: held.bucket.tokens(clock),
            inherits: held.inherits,
        })
    }

    /// What holds for each backend.
    pub fn each(&self) -> impl Iterator<Item = (&[u8], Rate)> {
        let each = self.each.iter().enumerate();
        each.filter_map(|(cost, rate)| Some((self.name(cost), (*rate)?)))
    }

    fn name(&self, cost: usize) -> &[u8] {
        self.names[cost].as_ref().map_or(b"", Name::as_bytes)
    }

    // Picks

    /// The amounts of those of these costs that are limited somewhere.
    pub fn amounts(&self, costs: &[Cost]) -> Amounts {
        let mut amounts = Amounts::default();
        for (name, amount) in costs {
            if let Some(cost) = self.find(name) {
                amounts.0[cost] = Some(*amount);
            }
        }
        amounts
    }

    /// Whether a backend, or the pool, holds all these amounts. A bucket that is full holds any amount.
    pub fn affords(&self, whose: Whose, amounts: &Amounts, clock: Millis) -> bool {
        self.purse(whose).affords(amounts, clock)
    }

    /// When a backend, or the pool, holds them: now, or later.
    pub fn next(&self, whose: Whose, amounts: &Amounts, clock: Millis) -> Millis {
        self.purse(whose).next(amounts, clock)
    }

    /// A pick of this backend takes the amounts, which it and the pool hold. If it granted a lease, that has this number.
    pub fn take(&mut self, slot: Slot, lease: Option<u64>, amounts: &Amounts, clock: Millis) {
        let mut taken = Taken::default();
        for whose in [Whose::of(slot), Whose::POOL] {
            if let Some(purse) = self.purse_mut(whose) {
                purse.take(amounts, clock);
                for held in &purse.0 {
                    taken.set(held.cost.into(), amounts.of(held).unwrap_or(0));
                }
            }
        }
        if let Some(number) = lease.filter(|_| taken != Taken::default()) {
            self.taken.insert(number, taken);
        }
    }

    /// A lease on this backend has really cost these amounts.
    pub fn settle(&mut self, slot: Slot, number: u64, costs: &[Cost], clock: Millis) {
        let taken = self.taken.get(&number).copied().unwrap_or_default();
        for (name, real) in costs {
            let Some(cost) = self.find(name) else {
                continue;
            };
            for whose in [Whose::of(slot), Whose::POOL] {
                let held = self.purse_mut(whose).and_then(|purse| purse.get_mut(cost));
                if let Some(held) = held {
                    let took = if number >= held.since {
                        taken.amount(cost)
                    } else {
                        0
                    };
                    held.bucket.settle(took, *real, clock);
                }
            }
        }
    }

    /// A lease is over. What it took stays taken.
    pub fn ended(&mut self, number: u64) {
        self.taken.remove(&number);
    }

    /// Lets a backend have this amount left at most; answers whether it had more.
    pub fn lower(&mut self, slot: Slot, (name, left): Cost, clock: Millis) -> bool {
        let Some(cost) = self.find(name) else {
            return false;
        };
        let purse = self.of_backends.get_mut(slot);
        let held = purse.and_then(|purse| purse.get_mut(cost));
        held.is_some_and(|held| held.bucket.lower(left, clock))
    }

    // Saved

    /// Writes it, of the backends in these slots.
    pub fn save(&self, slots: &[Slot], to: &mut Writer) {
        for name in &self.names {
            to.put(&name.as_ref().map(|name| Bytes(name.as_bytes())));
        }
        to.put(&self.each);
        self.of_pool.save(to);
        for slot in slots {
            self.purse(Whose::of(*slot)).save(to);
        }
        for (number, taken) in &self.taken {
            let amounts: [u64; COSTS_MAX] = std::array::from_fn(|cost| taken.amount(cost));
            to.put(&(*number, amounts));
        }
    }

    /// Reads it, of a pool with this number of slots. The closure tells whether a lease is there.
    pub fn load(
        slots: usize,
        now: Now,
        has_lease: impl Fn(u64) -> bool,
        from: &mut Reader,
    ) -> Result<Costs, Malformed> {
        let mut costs = Costs::default();
        for place in 0..COSTS_MAX {
            let name: Option<Bytes> = from.get()?;
            let Some(Bytes(name)) = name else {
                continue;
            };
            let is_sound = (1..=NAME_MAX).contains(&name.len()) && costs.find(name).is_none();
            checked("cost", (), is_sound)?;
            costs.names[place] = Some(Name::new(name));
        }
        costs.each = from.get()?;
        let are_sound = costs.each.iter().flatten().all(|rate| rate.is_sound());
        checked("cost", (), are_sound)?;
        costs.of_pool = Purse::load(&[None; COSTS_MAX], now, from)?;
        for slot in 0..slots {
            let purse = Purse::load(&costs.each, now, from)?;
            for held in &purse.0 {
                costs.held[usize::from(held.cost)] += 1;
            }
            if !purse.0.is_empty() {
                *costs.of_backends.at(slot) = purse;
            }
        }
        for cost in 0..COSTS_MAX {
            checked(
                "cost",
                (),
                costs.is_used(cost) == costs.names[cost].is_some(),
            )?;
        }
        while !from.is_at_end() {
            let (number, amounts): (u64, [u64; COSTS_MAX]) = from.get()?;
            let mut taken = Taken::default();
            for (cost, amount) in amounts.into_iter().enumerate() {
                taken.set(cost, checked("cost", amount, amount <= RATE_MAX)?);
            }
            let last = costs.taken.last_key_value().map(|(number, _)| *number);
            let follows = last < Some(number) && taken != Taken::default();
            checked("cost", (), follows && has_lease(number))?;
            costs.taken.insert(number, taken);
        }
        Ok(costs)
    }

    /// Panics where it is not sound in itself. For the tests.
    pub fn check(&self, slots: &[Slot], has_lease: impl Fn(u64) -> bool) {
        let mut held = [0; COSTS_MAX];
        for slot in slots {
            let purse = self.purse(Whose::of(*slot));
            for (cost, rate) in self.each.iter().enumerate() {
                let place = purse.find(cost).ok();
                held[cost] += u32::from(place.is_some());
                let inherits = place.filter(|place| purse.0[*place].inherits);
                let inherited = inherits.map(|place| purse.0[place].bucket.rate);
                assert!(inherited == *rate || inherited.is_none() && purse.own(cost).is_some());
            }
        }
        assert_eq!(held, self.held);
        for cost in 0..COSTS_MAX {
            assert_eq!(self.is_used(cost), self.names[cost].is_some());
        }
        assert!(self.taken.keys().all(|number| has_lease(*number)));
    }
}

impl Kept for Costs {
    fn forget(&mut self, slot: Slot) {
        for held in self.of_backends.take(slot).0 {
            self.held[usize::from(held.cost)] -= 1;
        }
        self.drop_unused_names();
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.of_backends.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.of_backends.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        let names = self.names.iter().flatten().map(Name::heap_bytes);
        // Up to four of them, each of 64 bytes, are a size class of allocators.
        let held = self.held.iter().map(|held| *held as usize);
        // A leaf of a B-tree has room for eleven and holds six, where numbers only grow, to eight. So does a node above leaves.
        let leaves = self.taken.len().div_ceil(7);
        let leaf = allocated(11 * size_of::<(u64, Taken)>() + 16);
        names.sum::<usize>()
            + buffer(&self.of_pool.0)
            + self.of_backends.heap_bytes()
            + held.sum::<usize>() * size_of::<Held>()
            + leaves * leaf
            + leaves / 8 * (leaf + 96)
    }
}
