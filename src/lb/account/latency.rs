//! The latency that each backend is thought to have: what `ewma` goes by.
//!
//! An answer moves it an eighth of the way, a failure doubles it, and without a report for ten seconds it halves, so that the
//! backend is tried again. All in whole numbers of 1/16 microsecond.
//!
//! Failures raise it up to 64 × (mean leases + 1)² times the mean of the others: then the measure of a backend that fails at once,
//! so that it never has leases, is 64 times that of the others with theirs. With a bound of 64 times the mean alone, a backend that
//! fails fast drew 8 % of the requests from nine others with 40 leases each (`tests/bench/exponent.rs`).
//!
//! The mean is over those whose last report was a success. If that of those that fail counted too, two of them would raise each
//! other without end.

use serde::{Deserialize, Serialize};

use super::agenda::Agenda;
use super::report::Outcome;
use super::timed::{Timed, Whose};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};
use crate::lb::ground::sparse::Sparse;

/// A microsecond.
const MICRO: u64 = 16;
/// The lowest level: a microsecond.
const LEVEL_MIN: u64 = MICRO;
/// The highest level: nine hours. The measure of `ewma` fits into 128 bits up to it.
pub const LEVEL_MAX: u64 = (1 << 39) - 1;
/// Without a report for this time a level halves.
const HALVING: Millis = 10_000;
/// How many times the mean of the others a level can be.
const BOUND: u64 = 64;

/// The latencies of the backends of a pool.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    of: Sparse<Latency>,
    well: Well,
    /// When each level halves.
    halvings: Agenda,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Latency {
    /// In 1/16 microsecond, 0 = there was no report yet.
    level: u64,
    /// Whether its last report was a success.
    is_well: bool,
    /// When it last had a report, or came back with a level, or was halved.
    since: Millis,
    /// Whether it is not up, has no weight, or is ejected or cools. The others say so, so it is not saved.
    #[serde(skip)]
    is_out: bool,
}

impl Latency {
    /// When it halves, if it does.
    fn halves(&self) -> Option<Millis> {
        let falls = !self.is_out && self.level > LEVEL_MIN;
        falls.then_some(self.since + HALVING)
    }
}

/// The number and the sum of levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Well {
    number: u64,
    /// Of at most 2^24 levels.
    sum: u64,
}

impl Well {
    fn of(latency: &Latency) -> Well {
        Well {
            number: latency.is_well.into(),
            sum: u64::from(latency.is_well) * latency.level,
        }
    }

    fn without(self, other: Well) -> Well {
        Well {
            number: self.number - other.number,
            sum: self.sum - other.sum,
        }
    }

    fn with(self, other: Well) -> Well {
        Well {
            number: self.number + other.number,
            sum: self.sum + other.sum,
        }
    }

    fn mean(self) -> Option<u64> {
        self.sum.checked_div(self.number)
    }
}

impl Latencies {
    /// The level of a backend, if there was a report.
    #[inline(always)]
    pub fn level(&self, slot: Slot) -> Option<u64> {
        Some(self.of.get(slot)?.level).filter(|level| *level > 0)
    }

    /// The level of a backend without a report: the mean of those that are well.
    #[inline(always)]
    pub fn mean(&self) -> u64 {
        self.well.mean().unwrap_or(LEVEL_MIN)
    }

    /// Whether a backend is up, has a weight, and is neither ejected nor cooling.
    pub fn is_in(&self, slot: Slot) -> bool {
        !self.of.get(slot).is_some_and(|latency| latency.is_out)
    }

    /// When the first level halves.
    pub fn first(&self) -> Option<Millis> {
        self.halvings.first().map(|(time, _)| time)
    }

    /// The latency of a backend in microseconds, as it is thought to be.
    pub fn micros(&self, slot: Slot) -> u64 {
        self.level(slot).unwrap_or(self.mean()) / MICRO
    }

    /// A request ended with that outcome, after this number of microseconds if that was told. A success without a latency tells nothing.
    /// The pool has this number of leases.
    pub fn report(
        &mut self,
        slot: Slot,
        outcome: Outcome,
        micros: Option<u64>,
        leases: usize,
        clock: Millis,
    ) {
        if outcome == Outcome::Ok && micros.is_none() {
            return;
        }
        let others = self.well.without(Well::of(self.of.at(slot)));
        let loaded = (leases as u64 / self.well.number.max(1) + 1).min(1 << 20);
        self.change(slot, |latency| {
            latency.since = clock;
            match (outcome, micros, others.mean()) {
                (Outcome::Ok, Some(micros), mean) => {
                    let told = micros.saturating_mul(MICRO).clamp(LEVEL_MIN, LEVEL_MAX);
                    let before = match latency.level {
                        0 => told,
                        level => level,
                    };
                    let most = mean.map_or(LEVEL_MAX, |mean| mean * BOUND);
                    let moved = before as i64 + (told as i64 - before as i64) / 8;
                    latency.level = (moved as u64).min(most.max(before)).min(LEVEL_MAX);
                    latency.is_well = true;
                }
                (Outcome::Fail, _, Some(mean)) => {
                    let before = match latency.level {
                        0 => mean,
                        level => level,
                    };
                    let bound = u128::from(mean * BOUND) * u128::from(loaded * loaded);
                    let most = bound.min(LEVEL_MAX.into()) as u64;
                    latency.level = (2 * before).min(most.max(before)).min(LEVEL_MAX);
                    latency.is_well = false;
                }
                // Where no other is well there is no better one to turn to.
                (Outcome::Fail, _, None) | (Outcome::Ok, None, _) => {}
            }
        });
    }

    /// Whether a backend is up, has a weight, and is neither ejected nor cooling. If it came back, it did so at that time.
    pub fn set_in(&mut self, slot: Slot, is_in: bool, at: Millis) {
        if is_in == self.is_in(slot) {
            return;
        }
        self.change(slot, |latency| {
            if is_in && latency.level > 0 {
                latency.since = latency.since.max(at);
            }
            latency.is_out = !is_in;
        });
    }

    /// As [`Latencies::set_in`], of a backend that was read as it is.
    pub fn load_in(&mut self, slot: Slot, is_in: bool) {
        if !is_in {
            self.change(slot, |latency| latency.is_out = true);
        }
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Latency)) {
        let latency = self.of.at(slot);
        let before = *latency;
        change(latency);
        let well = self.well.without(Well::of(&before));
        self.well = well.with(Well::of(latency));
        (self.halvings).moved(slot, before.halves(), latency.halves());
    }

    /// Writes that there are latencies: a section is not empty, also where there are no backends.
    pub fn save_head(&self, to: &mut Writer) {
        to.put(&0u8);
    }

    /// Reads that.
    pub fn load_head(from: &mut Reader) -> Result<Latencies, Malformed> {
        from.number("latency", 0u8)?;
        Ok(Latencies::default())
    }

    /// Writes what is known of a backend.
    pub fn save(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.of.get(slot).copied().unwrap_or_default());
    }

    /// Reads what is known of a backend.
    pub fn load(&mut self, slot: Slot, clock: Millis, from: &mut Reader) -> Result<(), Malformed> {
        let loaded: Latency = from.get()?;
        let is_level = loaded.level == 0 || (LEVEL_MIN..=LEVEL_MAX).contains(&loaded.level);
        let is_sound = is_level && (loaded.level > 0 || !loaded.is_well) && loaded.since <= clock;
        let loaded = checked("latency", loaded, is_sound)?;
        if loaded != Latency::default() {
            self.change(slot, |latency| *latency = loaded);
        }
        Ok(())
    }

    /// Panics where the sums are wrong, or a halving would be missed. For the tests.
    pub fn check(&self) {
        let all = self.of.iter();
        let well = all.fold(Well::default(), |sum, (_, l)| sum.with(Well::of(l)));
        assert_eq!(self.well, well);
        let all = self.of.iter();
        let mut halvings: Vec<_> = all
            .filter_map(|(slot, l)| Some((l.halves()?, slot)))
            .collect();
        halvings.sort_unstable();
        assert!(self.halvings.iter().eq(halvings));
    }
}

impl Kept for Latencies {
    fn forget(&mut self, slot: Slot) {
        if self.of.get(slot).is_some() {
            self.change(slot, |latency| *latency = Latency::default());
        }
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.of.renumber(gaps);
        self.halvings.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.of.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.of.heap_bytes() + self.halvings.heap_bytes()
    }
}

/// Halvings wait for a tick that comes anyway: they let nobody be served.
impl Timed for Latencies {
    fn due(&self) -> Option<Millis> {
        None
    }

    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        let (_, slot) = self.halvings.first().filter(|(time, _)| *time <= clock)?;
        self.change(slot, |latency| {
            while latency.halves().is_some_and(|time| time <= clock) {
                latency.level = (latency.level / 2).max(LEVEL_MIN);
                latency.since += HALVING;
            }
        });
        Some(Whose::of(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(latencies: &mut Latencies, clock: Millis) {
        while latencies.end_first(clock).is_some() {}
        latencies.check();
    }

    /// Three backends with a latency of a millisecond each.
    fn three() -> Latencies {
        let mut latencies = Latencies::default();
        for slot in 0..3 {
            latencies.set_in(slot, true, 0);
            latencies.report(slot, Outcome::Ok, Some(1000), 0, 0);
        }
        latencies
    }

    #[test]
    fn an_answer_moves_it_an_eighth_of_the_way_and_the_first_one_sets_it() {
        let mut latencies = three();
        latencies.report(0, Outcome::Ok, Some(9000), 0, 5);
        assert_eq!(latencies.micros(0), 2000);
        latencies.report(0, Outcome::Ok, Some(0), 0, 5);
        assert_eq!(latencies.micros(0), 1750);
        latencies.report(0, Outcome::Ok, None, 0, 5);
        assert_eq!(latencies.micros(0), 1750);
        latencies.report(0, Outcome::Ok, Some(u64::MAX), 0, 5);
        assert_eq!(
            latencies.micros(0),
            64_000,
            "64 times the mean of the others"
        );
    }

    #[test]
    fn failures_double_it_up_to_a_bound_that_grows_with_the_load() {
        for (leases, bound) in [
            (0, 64_000),
            (8, 64_000 * 9),
            (u32::MAX as usize, LEVEL_MAX / 16),
        ] {
            let mut latencies = three();
            latencies.report(2, Outcome::Fail, None, leases, 0);
            assert_eq!(latencies.micros(2), 2000);
            for _ in 0..60 {
                latencies.report(2, Outcome::Fail, Some(1), leases / 3 * 2, 0);
            }
            latencies.check();
            assert_eq!(latencies.micros(2), bound);
            assert_eq!(latencies.mean(), 16_000, "it counts no more");
        }
    }

    #[test]
    fn those_that_fail_do_not_raise_each_other_and_the_last_one_stays_where_it_is() {
        let mut latencies = three();
        for _ in 0..100 {
            (0..3).for_each(|slot| latencies.report(slot, Outcome::Fail, None, 0, 0));
        }
        let micros = [0, 1, 2].map(|slot| latencies.micros(slot));
        assert_eq!(micros, [64_000, 64_000, 1000]);
    }

    #[test]
    fn one_without_a_report_has_the_mean_of_the_others() {
        let mut latencies = three();
        latencies.grown(5);
        latencies.report(0, Outcome::Ok, Some(25_000), 0, 0);
        assert_eq!(latencies.micros(3), (4000 + 1000 + 1000) / 3);
        latencies.report(3, Outcome::Fail, None, 0, 0);
        assert_eq!(latencies.micros(3), 4000);
        assert_eq!(latencies.micros(4), 2000);
    }

    #[test]
    fn it_halves_in_ten_seconds_without_a_report_however_the_clock_moves() {
        let mut by_one = three();
        by_one.set_in(1, false, 2);
        let at_once = by_one.clone();
        for clock in (0..400_000).step_by(10) {
            tick(&mut by_one, clock);
            if clock == 35_000 {
                by_one.set_in(1, true, clock);
            }
            if clock == 39_990 {
                let micros = [0, 1, 2].map(|slot| by_one.micros(slot));
                assert_eq!(micros, [125, 1000, 125]);
            }
        }
        let mut at_once = at_once;
        tick(&mut at_once, 35_000);
        at_once.set_in(1, true, 35_000);
        tick(&mut at_once, 399_990);
        for slot in 0..3 {
            assert_eq!(by_one.level(slot), Some(LEVEL_MIN));
            assert_eq!(by_one.of.get(slot), at_once.of.get(slot));
        }
    }
}
