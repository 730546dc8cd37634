//! Adaptation: running weights that follow the load, until all backends are equally loaded.
//!
//! A backend's load grows with its share of the requests. So its capacity is its share divided by its load, and all would be equally
//! loaded if each had a share by its capacity: their load would be the sum of the shares divided by the sum of the capacities. Both
//! sums are kept. At a step the inverse of a backend's factor moves an eighth of the way to the one that would bring its load
//! there. That reacts soon where a backend is overloaded, and slowly where it is idle; it is steady also where loads are reported up to
//! ten steps late by chance. Rejected: the mean load as the target, by which all factors drift together.

use serde::{Deserialize, Serialize};

use crate::lb::account::agenda::Agenda;
use crate::lb::account::report::Outcome;
use crate::lb::account::timed::Whose;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};
use crate::lb::ground::sparse::Sparse;

/// A whole load, in LOAD's unit: millionths.
pub const LOAD_ONE: u32 = 1_000_000;
/// The largest load.
pub const LOAD_MAX: u32 = 1000 * LOAD_ONE;
/// The factor of a backend that does not adapt.
pub const FACTOR_ONE: u32 = 1 << 16;
const FACTOR_MAX: u32 = FACTOR_ONE << 4;
const FACTOR_MIN: u32 = FACTOR_ONE >> 4;
/// A load below it counts as this: loads of nearly nothing say nothing about capacities.
const LOAD_MIN: u32 = LOAD_ONE / 16;
/// After this number of steps without a report of load or failure a factor is 1 again.
const SILENCE: Millis = 10;

/// How backends adapt.
#[derive(Clone, Debug, Default)]
pub struct Adaptations {
    of: Sparse<Adaptation>,
    /// Sums over all whose load is known: of their shares, and of their shares divided by their loads.
    shares: u128,
    capacities: u128,
    /// When each of those that report was heard last.
    heard: Agenda,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Adaptation {
    /// Its weight where it is up, else 0, once it reported. The operator's settings say so, so it is not saved.
    #[serde(skip)]
    weight: u16,
    factor: u32,
    /// Its load at its last step, 0 = not known.
    load: u32,
    /// Whether it told its load since it was silent last.
    tells_load: bool,
    /// The reports since its last step.
    period: Option<Period>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Period {
    began: Millis,
    /// When it last reported a load or a failure; at first when it reported anything.
    heard: Millis,
    load_sum: u64,
    loads: u32,
    reports: u32,
    failures: u32,
}

impl Default for Adaptation {
    fn default() -> Adaptation {
        Adaptation {
            weight: 0,
            factor: FACTOR_ONE,
            load: 0,
            tells_load: false,
            period: None,
        }
    }
}

impl Period {
    fn new(began: Millis, heard: Millis) -> Period {
        Period {
            began,
            heard,
            load_sum: 0,
            loads: 0,
            reports: 0,
            failures: 0,
        }
    }

    /// The mean of the loads, and the share of failures.
    fn load(&self) -> u32 {
        let mean = self.load_sum.checked_div(self.loads.into()).unwrap_or(0);
        let failures = u64::from(self.failures) * u64::from(LOAD_ONE);
        let share = failures.checked_div(self.reports.into()).unwrap_or(0);
        (mean + share).min(LOAD_MAX.into()) as u32
    }
}

impl Adaptation {
    /// When it was heard last, if it reports.
    fn heard(&self) -> Option<Millis> {
        Some(self.period.as_ref()?.heard)
    }

    fn share(&self) -> u64 {
        match self.load {
            0 => 0,
            _ => u64::from(self.weight) * u64::from(self.factor),
        }
    }

    /// In parts of 1/2^32.
    fn capacity(&self) -> u128 {
        match self.load {
            0 => 0,
            load => (u128::from(self.share()) << 32) / u128::from(load),
        }
    }
}

impl Adaptations {
    /// The factor of a backend, as parts of [`FACTOR_ONE`].
    pub fn factor(&self, slot: Slot) -> u32 {
        self.of.get(slot).map_or(FACTOR_ONE, |one| one.factor)
    }

    /// The load of a backend at its last step, where it is known.
    pub fn load_of(&self, slot: Slot) -> Option<u32> {
        Some(self.of.get(slot)?.load).filter(|load| *load > 0)
    }

    /// Whether nothing is kept.
    pub fn is_default(&self) -> bool {
        self.of.iter().all(|(_, adaptation)| {
            let weight = adaptation.weight;
            *adaptation
                == Adaptation {
                    weight,
                    ..Adaptation::default()
                }
        })
    }

    /// The weight of a backend where it is up, else 0, as the operator set it.
    pub fn set_weight(&mut self, slot: Slot, weight: u16) {
        if self.of.get(slot).is_some_and(|one| one.weight != weight) {
            self.change(slot, |adaptation| adaptation.weight = weight);
        }
    }

    /// A backend of this weight reports an outcome, or a load, or both; a step takes this time at least. Answers whether its factor
    /// changed.
    pub fn report(
        &mut self,
        slot: Slot,
        weight: u16,
        outcome: Option<Outcome>,
        load: Option<u32>,
        step: Millis,
        clock: Millis,
    ) -> bool {
        let adaptation = self.of.at(slot);
        if adaptation.weight != weight {
            self.change(slot, |adaptation| adaptation.weight = weight);
        }
        let adaptation = self.of.at(slot);
        let heard_before = adaptation.heard();
        let period = (adaptation.period).get_or_insert_with(|| Period::new(clock, clock));
        if outcome.is_some() {
            period.reports = period.reports.saturating_add(1);
        }
        if outcome == Some(Outcome::Fail) {
            period.failures = period.failures.saturating_add(1);
        }
        if let Some(load) = load {
            period.load_sum = period.load_sum.saturating_add(load.into());
            period.loads = period.loads.saturating_add(1);
            adaptation.tells_load = true;
        }
        let tells = load.is_some() || outcome == Some(Outcome::Fail);
        if tells {
            period.heard = clock;
        }
        let is_step = tells && clock - period.began >= step;
        let heard = Some(period.heard);
        self.heard.moved(slot, heard_before, heard);
        is_step && self.step(slot, clock)
    }

    fn step(&mut self, slot: Slot, clock: Millis) -> bool {
        self.change(slot, |adaptation| {
            if let Some(period) = &mut adaptation.period {
                adaptation.load = period.load().max(LOAD_MIN);
                *period = Period::new(clock, clock);
            }
        });
        let Adaptation { load, factor, .. } = *self.of.at(slot);
        let (load, factor) = (u128::from(load), u128::from(factor));
        let Some(equal) = (self.shares << 32).checked_div(self.capacities) else {
            return false;
        };
        // All loads are at least LOAD_MIN, and so is the equal one.
        let is_near = equal.abs_diff(load) * 16 <= equal;
        let next = factor * 8 * equal / (7 * equal + load);
        let next = (next as u32).clamp(FACTOR_MIN, FACTOR_MAX);
        if is_near || u128::from(next) == factor {
            return false;
        }
        self.change(slot, |adaptation| adaptation.factor = next);
        true
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Adaptation)) {
        let adaptation = self.of.at(slot);
        self.shares -= u128::from(adaptation.share());
        self.capacities -= adaptation.capacity();
        let heard_before = adaptation.heard();
        change(adaptation);
        self.heard.moved(slot, heard_before, adaptation.heard());
        self.shares += u128::from(adaptation.share());
        self.capacities += adaptation.capacity();
    }

    /// When the first one has been silent for too long, where a step takes this time.
    pub fn due(&self, step: Millis) -> Option<Millis> {
        let (heard, _) = self.heard.first()?;
        Some(heard + SILENCE * step)
    }

    /// Forgets the one that has been silent for too long first, if there is one. Who never told its load is known to be idle, and who
    /// told it once is not known any more.
    pub fn end_first(&mut self, step: Millis, clock: Millis) -> Option<Whose> {
        self.due(step).filter(|due| *due <= clock)?;
        let (_, slot) = self.heard.first()?;
        self.change(slot, |adaptation| {
            adaptation.factor = FACTOR_ONE;
            adaptation.load = match std::mem::take(&mut adaptation.tells_load) {
                true => 0,
                false => LOAD_MIN,
            };
            adaptation.period = None;
        });
        Some(Whose::of(slot))
    }

    /// Writes how a backend adapts.
    pub fn save(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.of.get(slot).copied().unwrap_or_default());
    }

    /// Reads how a backend adapts.
    pub fn load(
        &mut self,
        slot: Slot,
        step: Millis,
        clock: Millis,
        from: &mut Reader,
    ) -> Result<(), Malformed> {
        let loaded: Adaptation = from.get()?;
        let is_period = loaded.period.is_none_or(|period| {
            let most = u64::from(period.loads) * u64::from(LOAD_MAX);
            let counts = period.failures <= period.reports && period.load_sum <= most;
            counts && period.began <= clock && period.heard <= clock && step > 0
        });
        let is_sound = (FACTOR_MIN..=FACTOR_MAX).contains(&loaded.factor)
            && (loaded.load == 0 || (LOAD_MIN..=LOAD_MAX).contains(&loaded.load))
            && is_period;
        let loaded = checked("adaptation", loaded, is_sound)?;
        if loaded != Adaptation::default() {
            self.change(slot, |adaptation| *adaptation = loaded);
        }
        Ok(())
    }

    /// Panics where the sums are wrong. For the tests.
    pub fn check(&self) {
        let all = || self.of.iter().map(|(_, adaptation)| adaptation);
        let shares = all().map(|a| u128::from(a.share()));
        assert_eq!(self.shares, shares.sum::<u128>());
        let capacities = all().map(Adaptation::capacity);
        assert_eq!(self.capacities, capacities.sum::<u128>());
        let all = self.of.iter();
        let mut heard: Vec<_> = all
            .filter_map(|(slot, a)| Some((a.heard()?, slot)))
            .collect();
        heard.sort_unstable();
        assert!(self.heard.iter().eq(heard));
    }
}

impl Kept for Adaptations {
    fn forget(&mut self, slot: Slot) {
        if self.of.get(slot).is_some() {
            self.change(slot, |adaptation| *adaptation = Adaptation::default());
        }
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.of.renumber(gaps);
        self.heard.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.of.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.of.heap_bytes() + self.heard.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Millis = 100;

    /// Backends that serve requests by their running weights.
    struct World {
        adaptations: Adaptations,
        capacities: Vec<f64>,
        offered: f64,
        /// The loads after each step.
        loads: Vec<Vec<f64>>,
        chance: u64,
    }

    impl World {
        fn of(capacities: &[f64], offered: f64) -> World {
            World {
                adaptations: Adaptations::default(),
                capacities: capacities.to_vec(),
                offered,
                loads: vec![],
                chance: 1,
            }
        }

        fn below(&mut self, n: u64) -> u64 {
            self.chance = self
                .chance
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1);
            (self.chance >> 33) % n
        }

        /// Each backend reports the load that it had up to this number of steps ago, give or take this share.
        fn step(&mut self, late: u64, noise: f64) {
            let factors = (0..self.capacities.len()).map(|s| self.adaptations.factor(s) as f64);
            let factors: Vec<f64> = factors.collect();
            let sum: f64 = factors.iter().sum();
            let shares = factors.iter().zip(&self.capacities);
            let loads = shares.map(|(factor, capacity)| self.offered * factor / sum / capacity);
            self.loads.push(loads.collect());
            let now = self.loads.len() as u64;
            for slot in 0..self.capacities.len() {
                let ago = self.below(late) as usize;
                let load = self.loads[(now as usize - 1).saturating_sub(ago)][slot];
                let noise = 1.0 + noise * (self.below(2001) as f64 / 1000.0 - 1.0);
                let load = (load * noise * f64::from(LOAD_ONE)) as u32;
                let outcome = Some(Outcome::Ok);
                let clock = now * STEP;
                (self.adaptations).report(slot, 10, outcome, Some(load), STEP, clock);
            }
            self.adaptations.check();
        }

        fn highest(&self) -> f64 {
            let last = self.loads.last().expect("there was a step");
            last.iter().copied().fold(0.0, f64::max)
        }
    }

    #[test]
    fn unequal_backends_are_equally_loaded_soon_also_where_loads_are_told_late() {
        for late in 1..=10 {
            let mut world = World::of(&[1.0, 2.0, 4.0], 4.9);
            (0..12).for_each(|_| world.step(late, 0.0));
            assert!(world.highest() < 0.9, "{late}: {}", world.highest());
            for _ in 0..200 {
                world.step(late, 0.0);
                assert!(world.highest() < 0.9, "{late}: {}", world.highest());
            }
            assert!(world.highest() < 0.76, "{late}: {}", world.highest());
        }
    }

    #[test]
    fn noise_does_not_let_a_steady_pool_drift() {
        let mut world = World::of(&[1.0, 2.0, 4.0], 4.9);
        (0..60).for_each(|_| world.step(3, 0.05));
        let factor = world.adaptations.factor(0);
        for _ in 0..5000 {
            world.step(3, 0.05);
            assert!(world.highest() < 0.78, "{}", world.highest());
        }
        let moved = world.adaptations.factor(0).abs_diff(factor);
        assert!(moved * 5 < factor, "{moved} of {factor}");
    }

    #[test]
    fn one_that_loses_three_quarters_of_its_capacity_is_relieved_in_twenty_steps() {
        let mut world = World::of(&[4.0, 4.0, 4.0], 6.0);
        (0..50).for_each(|_| world.step(1, 0.0));
        world.capacities[2] = 1.0;
        (0..20).for_each(|_| world.step(1, 0.0));
        // All together have 9 now.
        assert!(world.highest() < 6.0 / 9.0 * 1.13, "{}", world.highest());
    }

    /// Where nobody tells a load, shares of failures are compared; those that never fail are idle.
    #[test]
    fn one_that_fails_often_gets_less_and_is_whole_again_when_it_does_not() {
        let mut adaptations = Adaptations::default();
        let mut factors = vec![];
        for clock in (0..20_000).step_by(10) {
            while adaptations.end_first(STEP, clock).is_some() {}
            for slot in 0..3 {
                let fails = slot == 0 && clock < 10_000 && clock % 30 == 0;
                let outcome = if fails { Outcome::Fail } else { Outcome::Ok };
                adaptations.report(slot, 1, Some(outcome), None, STEP, clock);
            }
            adaptations.check();
            factors.push([0, 1, 2].map(|slot| adaptations.factor(slot)));
        }
        assert_eq!(factors[999], [FACTOR_MIN, FACTOR_ONE, FACTOR_ONE]);
        assert_eq!(factors[1999], [FACTOR_ONE; 3]);
    }

    /// One that is silent takes no more than its share, and holds none of the others down.
    #[test]
    fn one_that_tells_its_load_no_more_is_whole_and_not_known() {
        let mut adaptations = Adaptations::default();
        for clock in (0..5_000).step_by(50) {
            adaptations.report(0, 1, None, Some(LOAD_ONE), STEP, clock);
            if clock < 1000 {
                adaptations.report(1, 1, None, Some(LOAD_ONE / 2), STEP, clock);
            }
            while adaptations.end_first(STEP, clock).is_some() {}
        }
        adaptations.check();
        assert_eq!(
            (adaptations.load_of(1), adaptations.factor(1)),
            (None, FACTOR_ONE)
        );
        assert!(adaptations.factor(0) > FACTOR_MIN);
    }
}
