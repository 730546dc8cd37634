//! Who is out for a time: ejected by failures until a probe succeeds, or cooling because it asked for it.

use serde::{Deserialize, Serialize};

use super::evidence::Evidence;
use super::settings::HealthSettings;
use crate::lb::account::agenda::Agenda;
use crate::lb::account::report::{Outcome, Source};
use crate::lb::account::timed::{Timed, Whose};
use crate::lb::ground::bounds::{COUNTER_MAX, Slot, counted};
use crate::lb::ground::clock::{self, CLOCK_MAX, Millis};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};
use crate::lb::ground::sparse::Sparse;

/// The one that was given a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prober {
    /// The lease of this number.
    Lease(u64),
    /// A pick without a lease. The next LB.REPORT decides.
    Unleased,
}

/// How a backend stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It is not ejected.
    #[default]
    Fit,
    /// It is ejected. Then a probe is due.
    Out {
        /// Until then.
        until: Millis,
    },
    /// A probe is due.
    Due {
        /// Those with an earlier time come first. It is when the time of the ejection or of the last probe is over.
        since: Millis,
    },
    /// A probe was given. Without an outcome the next one is due.
    Probing {
        /// Then.
        until: Millis,
    },
}

/// The reason why a backend is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Of its limits.
    Limited,
    /// It cools.
    Cooling,
    /// It is ejected, or its probe is on its way.
    Ejected,
}

/// The effect of a report on a backend's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It stands as before, or its probe failed.
    Nothing,
    /// It was ejected.
    Ejected,
    /// It was ejected, and is back after this time.
    Back(Millis),
}

/// Which backends are out. Of those that are up with a weight, it knows how many stand how.
#[derive(Clone, Debug, Default)]
pub struct Outages {
    of: Sparse<Outage>,
    /// The weight of each backend where it is up, else 0. The operator's settings say so, so it is not saved.
    weights: Sparse<u16>,
    /// When a backend comes back from cooling, or a probe is due.
    wakes: Agenda,
    /// The probes that picks can take: by tier, and since when they are due.
    probes: Agenda<(u8, Millis)>,
    counts: Counts,
    /// How often the budget held an ejection back.
    held: u64,
}

/// What is known of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// The tier in which picks can take its probe, which is due. Others say so, so it is not saved.
    #[serde(skip)]
    probed_in: Option<u8>,
    evidence: Evidence,
    standing: Standing,
    /// The last probe since it was ejected.
    prober: Option<Prober>,
    /// It cools until then, 0 = it does not.
    cool: Millis,
    /// How often it was ejected or failed a probe, without a time between in which it was well for long enough.
    strikes: u32,
    /// How long the last of those was to last.
    span: Millis,
    /// When it was ejected.
    left: Millis,
    /// When it came back.
    back: Millis,
    /// The number of the first lease that can tell how it stands now.
    from: u64,
    ejections: u64,
}

/// How many backends stand how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// They are ejected.
    ejected: u64,
    /// They are not ejected, and cool.
    cooling: u64,
    /// They are up with a weight,
    serving: u64,
    /// of this sum,
    weight: u64,
    /// and ejected,
    serving_ejected: u64,
    /// and neither ejected nor cooling.
    serving_fit: u64,
}

impl Counts {
    fn apply(&mut self, outage: &Outage, weight: u16, change: fn(u64, u64) -> u64) {
        let is_fit = outage.standing == Standing::Fit;
        let cools = outage.cool > 0;
        let serves = weight > 0;
        for (count, counts) in [
            (&mut self.ejected, (!is_fit).into()),
            (&mut self.cooling, (is_fit && cools).into()),
            (&mut self.serving, serves.into()),
            (&mut self.weight, weight.into()),
            (&mut self.serving_ejected, (serves && !is_fit).into()),
            (&mut self.serving_fit, (serves && is_fit && !cools).into()),
        ] {
            *count = change(*count, counts);
        }
    }
}

impl Outage {
    /// When it comes back or its probe is due, if that happens by itself.
    fn wakes(&self) -> Option<Millis> {
        match self.standing {
            Standing::Fit => Some(self.cool).filter(|cool| *cool > 0),
            Standing::Out { until } | Standing::Probing { until } => Some(until.max(self.cool)),
            Standing::Due { .. } => None,
        }
    }

    fn probe(&self) -> Option<(u8, Millis)> {
        match self.standing {
            Standing::Due { since } => self.probed_in.map(|tier| (tier, since)),
            _ => None,
        }
    }

    /// The k-th time in a row it is out for k times as long, up to ten times.
    fn eject(&mut self, settings: &HealthSettings, clock: Millis, next_lease: u64) {
        self.strikes = self.strikes.saturating_add(1);
        self.span = settings.eject * Millis::from(self.strikes.min(10));
        self.standing = Standing::Out {
            until: clock::deadline(clock, self.span),
        };
        self.prober = None;
        self.evidence = Evidence::default();
        self.from = next_lease;
    }

    fn come_back(&mut self, clock: Millis, next_lease: u64) {
        self.forget_past_cooling(clock);
        self.standing = Standing::Fit;
        self.prober = None;
        self.evidence = Evidence::default();
        self.back = clock;
        self.from = next_lease;
    }

    /// The next probe is due now, or after it has cooled. Its turn does not depend on when that was noticed.
    fn lose_probe(&mut self, clock: Millis) {
        if let Standing::Probing { until } = self.standing {
            let since = if self.cool > 0 { self.cool } else { until };
            self.forget_past_cooling(clock);
            self.standing = match self.cool > 0 {
                true => Standing::Out { until: self.cool },
                false => Standing::Due { since },
            };
        }
    }

    /// While a backend is out for longer than it cools, nothing happens when it has cooled.
    fn forget_past_cooling(&mut self, clock: Millis) {
        if self.cool <= clock {
            self.cool = 0;
        }
    }

    fn is_sound(&self, settings: &HealthSettings, clock: Millis) -> bool {
        let deadline_max = CLOCK_MAX << 1;
        let is_past = |time: Millis| time <= clock;
        let is_deadline = |time: Millis| time <= deadline_max;
        let stands = match self.standing {
            Standing::Fit => true,
            Standing::Out { until } | Standing::Probing { until } => is_deadline(until),
            Standing::Due { since } => is_deadline(since) && self.cool == 0,
        };
        let is_fit = self.standing == Standing::Fit;
        let has_prober = self.prober.is_some() && !is_fit;
        stands
            && (has_prober || self.prober.is_none())
            && (has_prober || !matches!(self.standing, Standing::Probing { .. }))
            && is_deadline(self.cool)
            && is_deadline(self.span)
            && is_past(self.left)
            && is_past(self.back)
            && self.from <= COUNTER_MAX
            && self.ejections <= COUNTER_MAX
            && self.evidence.is_sound(settings, clock)
    }
}

impl Outages {
    /// Those of backends with these weights where they are up, else 0, of which nothing was told yet.
    pub fn of(weights: impl Iterator<Item = u16>) -> Outages {
        let mut counts = Counts::default();
        let weights = Sparse::of(weights.inspect(|weight| {
            counts.serving += u64::from(*weight > 0);
            counts.weight += u64::from(*weight);
        }));
        counts.serving_fit = counts.serving;
        Outages {
            weights,
            counts,
            ..Outages::default()
        }
    }

    // Looking

    /// What is known of a backend.
    pub fn outage(&self, slot: Slot) -> Outage {
        self.of.get(slot).copied().unwrap_or_default()
    }

    /// How a backend stands.
    pub fn standing(&self, slot: Slot) -> Standing {
        (self.of.get(slot)).map_or(Standing::Fit, |outage| outage.standing)
    }

    /// Whether it is neither ejected nor cooling.
    pub fn is_in(&self, slot: Slot) -> bool {
        let is_in = |outage: &Outage| outage.standing == Standing::Fit && outage.cool == 0;
        self.of.get(slot).is_none_or(is_in)
    }

    /// The weight of a backend where it is up, else 0, as the operator set it.
    pub fn weight_of(&self, slot: Slot) -> u16 {
        self.weights.get(slot).copied().unwrap_or(0)
    }

    /// Whether it is up with a weight.
    pub fn serves(&self, slot: Slot) -> bool {
        self.weight_of(slot) > 0
    }

    /// Whether it cools.
    pub fn is_cooling(&self, slot: Slot) -> bool {
        self.cools_until(slot) > 0
    }

    /// When it comes back from cooling, or a probe of it is due, if that happens by itself.
    pub fn wakes(&self, slot: Slot) -> Option<Millis> {
        self.of.get(slot)?.wakes()
    }

    /// Failures in a row.
    pub fn row(&self, slot: Slot) -> u32 {
        self.outage(slot).evidence.row
    }

    /// How often it was ejected. Failed probes are not counted.
    pub fn ejections(&self, slot: Slot) -> u64 {
        self.outage(slot).ejections
    }

    /// How many are ejected.
    pub fn ejected(&self) -> usize {
        self.counts.ejected as usize
    }

    /// How many are not ejected, and cool.
    pub fn cooling(&self) -> usize {
        self.counts.cooling as usize
    }

    /// The sum of the weights of all that are up.
    pub fn weight(&self) -> u64 {
        self.counts.weight
    }

    /// How often the budget held an ejection back.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Until when a backend is ejected or cools, and why, if it is out.
    pub fn out_for(&self, slot: Slot) -> Option<(Millis, Reason)> {
        let outage = self.of.get(slot)?;
        let reason = match outage.standing {
            Standing::Fit => Reason::Cooling,
            _ => Reason::Ejected,
        };
        Some((outage.wakes()?, reason))
    }

    /// Those that are ejected or cool, each with the time until when, in order of these times.
    pub fn out(&self) -> impl Iterator<Item = (Millis, Slot)> {
        self.wakes.iter()
    }

    /// The lease that probes a backend.
    pub fn probing_lease(&self, slot: Slot) -> Option<u64> {
        let outage = self.of.get(slot)?;
        match (outage.standing, outage.prober) {
            (Standing::Probing { .. }, Some(Prober::Lease(number))) => Some(number),
            _ => None,
        }
    }

    /// Until when a backend cools, 0 = it does not.
    pub fn cools_until(&self, slot: Slot) -> Millis {
        self.of.get(slot).map_or(0, |outage| outage.cool)
    }

    /// The backends whose probes picks can take, each with its tier, in the order in which picks take them.
    pub fn probes(&self) -> impl Iterator<Item = (u8, Slot)> {
        self.probes.iter().map(|((tier, _), slot)| (tier, slot))
    }

    /// How many these are.
    pub fn probes_open(&self) -> usize {
        self.probes.len()
    }

    /// Whether picks can take the probe of a backend.
    pub fn is_probe_open(&self, slot: Slot) -> bool {
        self.probe_tier(slot).is_some()
    }

    /// The tier in which picks can take the probe of a backend, if they can.
    pub fn probe_tier(&self, slot: Slot) -> Option<u8> {
        self.of.get(slot)?.probed_in
    }

    /// Whether a probe of a backend is due.
    pub fn is_due(&self, slot: Slot) -> bool {
        matches!(self.standing(slot), Standing::Due { .. })
    }

    /// Whether nothing is kept.
    pub fn is_default(&self) -> bool {
        let mut all = self.of.iter();
        self.held == 0 && all.all(|(_, outage)| *outage == Outage::default())
    }

    /// Whether a report is evidence of how a backend stands.
    ///
    /// A backend that is out gets no requests but probes. So a lease that was granted since then is one, also where the next probe is
    /// already due: else a backend whose answers take longer than EJECT could never come back.
    pub fn counts(&self, slot: Slot, source: Source) -> bool {
        let is_of_now = |outage: &Outage| match source {
            Source::Lease(number) => number >= outage.from,
            Source::Caller => match outage.standing {
                Standing::Fit => true,
                _ => outage.prober == Some(Prober::Unleased),
            },
        };
        self.serves(slot) && self.of.get(slot).is_none_or(is_of_now)
    }

    // Changes

    fn change<T>(&mut self, slot: Slot, change: impl FnOnce(&mut Outage) -> T) -> T {
        let weight = self.weight_of(slot);
        let outage = self.of.at(slot);
        let before = *outage;
        let result = change(outage);
        outage
            .probed_in
            .take_if(|_| !matches!(outage.standing, Standing::Due { .. }));
        let after = *outage;
        self.counts.apply(&before, weight, |n, one| n - one);
        self.counts.apply(&after, weight, |n, one| n + one);
        self.wakes.moved(slot, before.wakes(), after.wakes());
        self.probes.moved(slot, before.probe(), after.probe());
        result
    }

    /// The weight of a backend where it is up, else 0, as the operator set it.
    pub fn set_weight(&mut self, slot: Slot, weight: u16) {
        let before = self.weight_of(slot);
        if before != weight {
            let outage = self.outage(slot);
            self.counts.apply(&outage, before, |n, one| n - one);
            self.counts.apply(&outage, weight, |n, one| n + one);
            *self.weights.at(slot) = weight;
            if weight == 0 {
                self.open_probe(slot, None);
            }
        }
    }

    /// Lets picks of this tier take the probe of a backend, if one is due; of none, no pick. Answers whether that changed anything.
    pub fn open_probe(&mut self, slot: Slot, tier: Option<u8>) -> bool {
        let tier = tier.filter(|_| self.is_due(slot) && self.serves(slot));
        let before = self.of.get(slot).and_then(|outage| outage.probed_in);
        if before != tier {
            self.change(slot, |outage| outage.probed_in = tier);
        }
        before != tier
    }

    /// Judges an outcome that counts.
    pub fn judge(
        &mut self,
        slot: Slot,
        outcome: Outcome,
        settings: &HealthSettings,
        clock: Millis,
        next_lease: u64,
    ) -> Turn {
        let outage = self.of.at(slot);
        if outage.standing == Standing::Fit {
            let is_enough = outage.evidence.count(outcome, settings, clock);
            let was_back_for = clock.saturating_sub(outage.back);
            if outcome == Outcome::Ok && outage.strikes > 0 && was_back_for >= outage.span {
                outage.strikes = 0;
            }
            return match is_enough {
                true => self.eject_within_budget(slot, settings, clock, next_lease),
                false => Turn::Nothing,
            };
        }
        self.change(slot, |outage| match outcome {
            Outcome::Ok => {
                outage.come_back(clock, next_lease);
                Turn::Back(clock.saturating_sub(outage.left))
            }
            Outcome::Fail => {
                outage.eject(settings, clock, next_lease);
                Turn::Nothing
            }
        })
    }

    fn eject_within_budget(
        &mut self,
        slot: Slot,
        settings: &HealthSettings,
        clock: Millis,
        next_lease: u64,
    ) -> Turn {
        let counts = &self.counts;
        // At most 2^24 backends.
        let most = (counts.serving * u64::from(settings.max_eject) / 100).max(1);
        let others_fit = counts.serving_fit - u64::from(!self.is_cooling(slot));
        if counts.serving_ejected >= most || others_fit == 0 {
            self.held = counted(self.held);
            return Turn::Nothing;
        }
        self.change(slot, |outage| {
            outage.eject(settings, clock, next_lease);
            outage.left = clock;
            outage.ejections = counted(outage.ejections);
        });
        Turn::Ejected
    }

    /// Lets a backend cool for a time; answers whether it cools longer now than before.
    pub fn cool(&mut self, slot: Slot, span: Millis, clock: Millis) -> bool {
        let until = clock::deadline(clock, span);
        if until <= self.cools_until(slot) {
            return false;
        }
        self.change(slot, |outage| {
            outage.cool = until;
            if let Standing::Due { .. } = outage.standing {
                outage.standing = Standing::Out { until };
            }
        });
        true
    }

    /// A pick takes the probe of a backend, which is due.
    pub fn take_probe(&mut self, slot: Slot, by: Prober, settings: &HealthSettings, clock: Millis) {
        self.change(slot, |outage| {
            outage.prober = Some(by);
            outage.standing = Standing::Probing {
                until: clock::deadline(clock, settings.eject),
            };
        });
    }

    /// Makes known of a backend what was known before.
    pub fn put_back(&mut self, slot: Slot, before: Outage) {
        self.change(slot, |outage| *outage = before);
    }

    /// A lease ended without an outcome; answers whether that was the probe of this backend.
    pub fn lease_ended(&mut self, slot: Slot, number: u64, clock: Millis) -> bool {
        let was_probe = self.probing_lease(slot) == Some(number);
        if was_probe {
            self.change(slot, |outage| outage.lose_probe(clock));
        }
        was_probe
    }

    /// The operator says that a backend is well; answers whether it was out.
    pub fn restore(&mut self, slot: Slot, clock: Millis, next_lease: u64) -> bool {
        let was_out = !self.is_in(slot);
        let was_ejected = self.standing(slot) != Standing::Fit;
        if !was_out {
            return false;
        }
        self.change(slot, |outage| {
            outage.cool = 0;
            if was_ejected {
                outage.come_back(clock, next_lease);
                outage.strikes = 0;
            }
        });
        true
    }

    /// The slots of those of which something is known.
    fn known(&self) -> Vec<Slot> {
        self.of.iter().map(|(slot, _)| slot).collect()
    }

    /// Failures eject no more: all that was held against the backends is forgotten, and nobody is ejected. O(n).
    pub fn acquit(&mut self, clock: Millis, next_lease: u64) {
        for slot in self.known() {
            if self.standing(slot) != Standing::Fit {
                self.change(slot, |outage| outage.come_back(clock, next_lease));
            }
            let outage = self.of.at(slot);
            outage.strikes = 0;
            outage.evidence = Evidence::default();
        }
    }

    /// Forgets the windows, because they are of another length from now on. O(n).
    pub fn forget_windows(&mut self) {
        for slot in self.known() {
            self.of.at(slot).evidence.forget_windows();
        }
    }

    // Saved

    /// Writes what concerns the pool as a whole.
    pub fn save_head(&self, to: &mut Writer) {
        to.put(&self.held);
    }

    /// Reads it.
    pub fn load_head(&mut self, from: &mut Reader) -> Result<(), Malformed> {
        self.held = from.number("held", COUNTER_MAX)?;
        Ok(())
    }

    /// Writes what is known of a backend.
    pub fn save(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.outage(slot));
    }

    /// Reads what is known of a backend.
    pub fn load(
        &mut self,
        slot: Slot,
        settings: &HealthSettings,
        clock: Millis,
        from: &mut Reader,
    ) -> Result<(), Malformed> {
        let loaded: Outage = from.get()?;
        let loaded = checked("health", loaded, loaded.is_sound(settings, clock))?;
        if loaded != Outage::default() {
            self.change(slot, |outage| *outage = loaded);
        }
        Ok(())
    }

    /// Panics where the ways to find something disagree. For the tests.
    pub fn check(&self) {
        let mut again = Outages::default();
        for (slot, weight) in self.weights.iter() {
            again.set_weight(slot, *weight);
        }
        for (slot, outage) in self.of.iter() {
            again.change(slot, |empty| *empty = *outage);
        }
        assert_eq!(self.counts, again.counts);
        assert!(self.wakes.iter().eq(again.wakes.iter()));
        assert!(self.probes.iter().eq(again.probes.iter()));
    }
}

impl Kept for Outages {
    fn forget(&mut self, slot: Slot) {
        if self.of.get(slot).is_some() {
            self.change(slot, |outage| *outage = Outage::default());
        }
        self.set_weight(slot, 0);
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.of.renumber(gaps);
        self.weights.renumber(gaps);
        self.wakes.renumber(gaps);
        self.probes.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.of.relocate(by);
        self.weights.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.of.heap_bytes()
            + self.weights.heap_bytes()
            + self.wakes.heap_bytes()
            + self.probes.heap_bytes()
    }
}

impl Timed for Outages {
    fn due(&self) -> Option<Millis> {
        self.wakes.first().map(|(time, _)| time)
    }

    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        let (time, slot) = self.wakes.first().filter(|(time, _)| *time <= clock)?;
        self.change(slot, |outage| {
            outage.cool = 0;
            if outage.standing != Standing::Fit {
                outage.standing = Standing::Due { since: time };
            }
        });
        Some(Whose::of(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: HealthSettings = HealthSettings {
        fails: 1,
        failrate: 0,
        min: 20,
        window: 5000,
        eject: 1000,
        max_eject: 50,
        slow_start: 0,
        adapt: 0,
    };

    fn two() -> Outages {
        Outages::of([1, 1].into_iter())
    }

    fn tick(outages: &mut Outages, clock: Millis) {
        while outages.end_first(clock).is_some() {}
        outages.check();
    }

    /// Ejects the first backend, and brings it back as soon as it can; answers how long it was out.
    fn out_and_back(outages: &mut Outages, clock: Millis) -> Millis {
        let failed = outages.judge(0, Outcome::Fail, &SETTINGS, clock, 0);
        assert_eq!(failed, Turn::Ejected);
        let due = outages.wakes(0).expect("it is out");
        tick(outages, due);
        outages.take_probe(0, Prober::Unleased, &SETTINGS, due);
        let answered = outages.judge(0, Outcome::Ok, &SETTINGS, due, 0);
        assert_eq!(answered, Turn::Back(due - clock));
        due - clock
    }

    #[test]
    fn it_is_out_longer_each_time_until_it_was_well_for_as_long_as_it_was_out() {
        let mut outages = two();
        let mut clock = 10_000;
        for k in 1..=12 {
            let span = out_and_back(&mut outages, clock);
            assert_eq!(span, 1000 * k.min(10) + 10);
            clock += span;
        }
        let back = clock;
        outages.judge(0, Outcome::Ok, &SETTINGS, back + 9_999, 0);
        clock = back + 9_999 + out_and_back(&mut outages, back + 9_999);
        assert_eq!(clock - back, 9_999 + 10_011);
        outages.judge(0, Outcome::Ok, &SETTINGS, clock + 10_000, 0);
        assert_eq!(out_and_back(&mut outages, clock + 10_000), 1010);
    }

    #[test]
    fn a_probe_that_ends_without_an_outcome_is_due_again_at_once_or_when_it_has_cooled() {
        let mut outages = two();
        outages.judge(0, Outcome::Fail, &SETTINGS, 10_000, 5);
        tick(&mut outages, 11_010);
        outages.take_probe(0, Prober::Lease(7), &SETTINGS, 11_010);
        assert!(!outages.lease_ended(0, 6, 11_100));
        assert!(outages.lease_ended(0, 7, 11_100));
        assert_eq!(outages.standing(0), Standing::Due { since: 12_020 });
        outages.take_probe(0, Prober::Lease(8), &SETTINGS, 11_100);
        assert!(outages.cool(0, 500, 11_200));
        assert!(outages.lease_ended(0, 8, 11_200));
        assert_eq!(outages.standing(0), Standing::Out { until: 11_710 });
        tick(&mut outages, 12_000);
        assert_eq!(outages.standing(0), Standing::Due { since: 11_710 });
        // It may have cooled before the probe ends.
        outages.take_probe(0, Prober::Lease(9), &SETTINGS, 12_000);
        outages.cool(0, 100, 12_000);
        assert!(outages.lease_ended(0, 9, 12_900));
        assert_eq!(outages.standing(0), Standing::Due { since: 12_110 });
        outages.check();
    }

    #[test]
    fn the_last_one_stays_and_what_was_held_back_is_judged_again() {
        let mut outages = two();
        outages.judge(0, Outcome::Fail, &SETTINGS, 0, 0);
        assert_eq!(
            outages.judge(1, Outcome::Fail, &SETTINGS, 0, 0),
            Turn::Nothing
        );
        assert_eq!((outages.held(), outages.ejected()), (1, 1));
        assert!(outages.restore(0, 500, 0));
        assert_eq!(
            outages.judge(1, Outcome::Fail, &SETTINGS, 500, 0),
            Turn::Ejected
        );
        // Nor does one that cools leave nobody.
        let mut outages = two();
        outages.cool(1, 1000, 0);
        assert_eq!(
            outages.judge(0, Outcome::Fail, &SETTINGS, 0, 0),
            Turn::Nothing
        );
        assert_eq!(
            outages.judge(1, Outcome::Fail, &SETTINGS, 0, 0),
            Turn::Ejected
        );
        assert_eq!(
            outages.judge(0, Outcome::Fail, &SETTINGS, 0, 0),
            Turn::Nothing
        );
    }

    /// Late failures of one outage eject once, late successes readmit nobody.
    #[test]
    fn leases_from_before_an_ejection_tell_nothing_of_what_came_after() {
        let mut outages = two();
        outages.judge(0, Outcome::Fail, &SETTINGS, 0, 50);
        assert!((0..50).all(|number| !outages.counts(0, Source::Lease(number))));
        assert!(!outages.counts(0, Source::Caller));
        tick(&mut outages, 5000);
        outages.take_probe(0, Prober::Lease(60), &SETTINGS, 5000);
        assert!(!outages.counts(0, Source::Caller), "the lease decides");
        // The probe counts also when its time is over: its answer takes longer than EJECT.
        tick(&mut outages, 9000);
        assert!(outages.counts(0, Source::Lease(60)));
        outages.judge(0, Outcome::Ok, &SETTINGS, 9000, 61);
        assert!(!outages.counts(0, Source::Lease(60)));
        assert!(outages.counts(0, Source::Caller));
    }
}
