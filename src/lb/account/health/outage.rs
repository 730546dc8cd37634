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
use crate::lb::ground::memory::{Mover, buffer};
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};

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
    of: Vec<Outage>,
    /// When a backend comes back from cooling, or a probe is due.
    wakes: Agenda,
    /// Since when probes are due.
    probes: Agenda,
    counts: Counts,
    /// How often the budget held an ejection back.
    held: u64,
}

/// What is known of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Its weight where it is up, else 0. The operator's settings say so, so it is not saved.
    #[serde(skip)]
    weight: u16,
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
    fn apply(&mut self, outage: &Outage, change: fn(u64, u64) -> u64) {
        let is_fit = outage.standing == Standing::Fit;
        let cools = outage.cool > 0;
        let serves = outage.serves();
        for (count, counts) in [
            (&mut self.ejected, (!is_fit).into()),
            (&mut self.cooling, (is_fit && cools).into()),
            (&mut self.serving, serves.into()),
            (&mut self.weight, outage.weight.into()),
            (&mut self.serving_ejected, (serves && !is_fit).into()),
            (&mut self.serving_fit, (serves && is_fit && !cools).into()),
        ] {
            *count = change(*count, counts);
        }
    }
}

impl Outage {
    /// Whether it is up with a weight.
    fn serves(&self) -> bool {
        self.weight > 0
    }

    /// When it comes back or its probe is due, if that happens by itself.
    fn wakes(&self) -> Option<Millis> {
        match self.standing {
            Standing::Fit => Some(self.cool).filter(|cool| *cool > 0),
            Standing::Out { until } | Standing::Probing { until } => Some(until.max(self.cool)),
            Standing::Due { .. } => None,
        }
    }

    fn probe_due(&self) -> Option<Millis> {
        match self.standing {
            Standing::Due { since } => Some(since),
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
    // Looking

    /// How a backend stands.
    pub fn standing(&self, slot: Slot) -> Standing {
        self.of[slot].standing
    }

    /// Whether it is neither ejected nor cooling.
    pub fn is_in(&self, slot: Slot) -> bool {
        self.of[slot].standing == Standing::Fit && self.of[slot].cool == 0
    }

    /// Whether it is up with a weight.
    pub fn serves(&self, slot: Slot) -> bool {
        self.of[slot].serves()
    }

    /// The weights of all where they are up, else 0, as the operator set them.
    pub fn weights(&self) -> impl Iterator<Item = u16> {
        self.of.iter().map(|outage| outage.weight)
    }

    /// Whether it cools.
    pub fn is_cooling(&self, slot: Slot) -> bool {
        self.of[slot].cool > 0
    }

    /// When it comes back from cooling, or a probe of it is due, if that happens by itself.
    pub fn wakes(&self, slot: Slot) -> Option<Millis> {
        self.of[slot].wakes()
    }

    /// Failures in a row.
    pub fn row(&self, slot: Slot) -> u32 {
        self.of[slot].evidence.row
    }

    /// How often it was ejected. Failed probes are not counted.
    pub fn ejections(&self, slot: Slot) -> u64 {
        self.of[slot].ejections
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
        let outage = &self.of[slot];
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
        match (self.of[slot].standing, self.of[slot].prober) {
            (Standing::Probing { .. }, Some(Prober::Lease(number))) => Some(number),
            _ => None,
        }
    }

    /// Until when a backend cools, 0 = it does not.
    pub fn cools_until(&self, slot: Slot) -> Millis {
        self.of[slot].cool
    }

    /// The backends of which a probe is due, in the order in which picks take them.
    pub fn probes(&self) -> impl Iterator<Item = Slot> {
        self.probes.iter().map(|(_, slot)| slot)
    }

    /// Whether a probe of a backend is due.
    pub fn is_due(&self, slot: Slot) -> bool {
        matches!(self.of[slot].standing, Standing::Due { .. })
    }

    /// Whether nothing is kept.
    pub fn is_default(&self) -> bool {
        let is_default = |outage: &Outage| {
            let weight = outage.weight;
            *outage
                == Outage {
                    weight,
                    ..Outage::default()
                }
        };
        self.held == 0 && self.of.iter().all(is_default)
    }

    /// Whether a report is evidence of how a backend stands.
    ///
    /// A backend that is out gets no requests but probes. So a lease that was granted since then is one, also where the next probe is
    /// already due: else a backend whose answers take longer than EJECT could never come back.
    pub fn counts(&self, slot: Slot, source: Source) -> bool {
        let outage = &self.of[slot];
        let is_of_now = match source {
            Source::Lease(number) => number >= outage.from,
            Source::Caller => match outage.standing {
                Standing::Fit => true,
                _ => outage.prober == Some(Prober::Unleased),
            },
        };
        outage.serves() && is_of_now
    }

    // Changes

    fn change<T>(&mut self, slot: Slot, change: impl FnOnce(&mut Outage) -> T) -> T {
        let outage = &mut self.of[slot];
        let before = *outage;
        let result = change(outage);
        let after = *outage;
        self.counts.apply(&before, |n, one| n - one);
        self.counts.apply(&after, |n, one| n + one);
        for (agenda, time) in [
            (&mut self.wakes, Outage::wakes as fn(&Outage) -> _),
            (&mut self.probes, Outage::probe_due),
        ] {
            let (from, to) = (time(&before), time(&after));
            if from != to {
                from.into_iter().for_each(|time| agenda.remove(time, slot));
                to.into_iter().for_each(|time| agenda.add(time, slot));
            }
        }
        result
    }

    /// The weight of a backend where it is up, else 0, as the operator set it.
    pub fn set_weight(&mut self, slot: Slot, weight: u16) {
        if self.of[slot].weight != weight {
            self.change(slot, |outage| outage.weight = weight);
        }
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
        let outage = &mut self.of[slot];
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
        let others_fit = counts.serving_fit - u64::from(self.of[slot].cool == 0);
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
        if until <= self.of[slot].cool {
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

    /// A lease ended without an outcome; answers whether that was the probe of this backend.
    pub fn lease_ended(&mut self, slot: Slot, number: u64, clock: Millis) -> bool {
        let outage = &self.of[slot];
        let probes = matches!(outage.standing, Standing::Probing { .. });
        let was_probe = probes && outage.prober == Some(Prober::Lease(number));
        if was_probe {
            self.change(slot, |outage| outage.lose_probe(clock));
        }
        was_probe
    }

    /// The operator says that a backend is well; answers whether it was out.
    pub fn restore(&mut self, slot: Slot, clock: Millis, next_lease: u64) -> bool {
        let was_out = !self.is_in(slot);
        let was_ejected = self.of[slot].standing != Standing::Fit;
        self.change(slot, |outage| {
            outage.cool = 0;
            if was_ejected {
                outage.come_back(clock, next_lease);
                outage.strikes = 0;
            }
        });
        was_out
    }

    /// Failures eject no more: all that was held against the backends is forgotten, and nobody is ejected. O(n).
    pub fn acquit(&mut self, clock: Millis, next_lease: u64) {
        for slot in 0..self.of.len() {
            if self.of[slot].standing != Standing::Fit {
                self.change(slot, |outage| outage.come_back(clock, next_lease));
            }
            let outage = &mut self.of[slot];
            outage.strikes = 0;
            outage.evidence = Evidence::default();
        }
    }

    /// Forgets the windows, because they are of another length from now on. O(n).
    pub fn forget_windows(&mut self) {
        let all = self.of.iter_mut();
        all.for_each(|outage| outage.evidence.forget_windows());
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
        to.put(&self.of[slot]);
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
        self.change(slot, |outage| {
            let weight = outage.weight;
            *outage = Outage { weight, ..loaded };
        });
        Ok(())
    }

    /// Panics where the ways to find something disagree. For the tests.
    pub fn check(&self) {
        let mut again = Outages::default();
        again.grown(self.of.len());
        for (slot, outage) in self.of.iter().enumerate() {
            again.change(slot, |empty| *empty = *outage);
        }
        assert_eq!(self.counts, again.counts);
        assert!(self.wakes.iter().eq(again.wakes.iter()));
        assert!(self.probes.iter().eq(again.probes.iter()));
    }
}

impl Kept for Outages {
    fn grown(&mut self, slots: usize) {
        self.of.resize(slots, Outage::default());
    }

    fn forget(&mut self, slot: Slot) {
        self.change(slot, |outage| *outage = Outage::default());
    }

    fn renumber(&mut self, gaps: &Gaps) {
        gaps.close(&mut self.of);
        self.wakes.renumber(gaps);
        self.probes.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.of);
    }

    fn heap_bytes(&self) -> usize {
        buffer(&self.of) + self.wakes.heap_bytes() + self.probes.heap_bytes()
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
        let mut outages = Outages::default();
        outages.grown(2);
        (0..2).for_each(|slot| outages.set_weight(slot, 1));
        outages
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
