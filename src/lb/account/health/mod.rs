//! The health of the backends: what their reports say, and what follows from it for their running weights.
//!
//! It knows no pool. A pool that uses none of this has no health, and pays nothing for it.

mod adaptation;
mod evidence;
mod outage;
mod settings;
mod start;

pub use adaptation::{LOAD_MAX, LOAD_ONE};
pub use outage::{Outage, Outages, Prober, Reason, Standing};
pub use settings::{FAILS_MAX, HealthSettings};

use adaptation::{Adaptations, FACTOR_ONE};
use outage::Turn;
use start::{STEPS, Starts};

use super::report::{Outcome, Report, Source};
use super::timed::{Timed, Whose};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};

/// The unit of a running weight, in pools whose running weights have fractions. Tenths of it are whole numbers.
pub const FRACTIONS: u32 = 240;
/// The largest running weight.
const RUNNING_MAX: u64 = (1 << 24) - 1;

/// The health of a pool's backends.
#[derive(Clone, Debug, Default)]
pub struct Health {
    settings: HealthSettings,
    /// Whether running weights have fractions. Once they have, they keep them.
    has_fractions: bool,
    outages: Outages,
    starts: Option<Box<Starts>>,
    adaptations: Option<Box<Adaptations>>,
}

/// The moment of a command: the pool's clock, and the number of the next lease.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub clock: Millis,
    pub next_lease: u64,
}

/// What followed from a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// It was evidence of how the backend stands.
    pub counted: bool,
    /// The backend was ejected.
    pub ejected: bool,
    /// It is back from an ejection.
    pub back: bool,
    /// It cools, or longer than before.
    pub cools: bool,
    /// Its running weight may be another one now, or its probe is due, or no longer.
    pub moved: bool,
}

/// The word for how a backend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthWord {
    /// It is well, and has its whole weight.
    Ok,
    /// It is out, because it failed.
    Ejected,
    /// A probe is due, or on its way.
    Probing,
    /// It is back, or new, and does not have its whole weight yet.
    Starting,
    /// It is out, because it asked for that.
    Cooling,
}

impl HealthWord {
    /// The word in replies.
    pub fn name(self) -> &'static str {
        match self {
            HealthWord::Ok => "ok",
            HealthWord::Ejected => "ejected",
            HealthWord::Probing => "probing",
            HealthWord::Starting => "starting",
            HealthWord::Cooling => "cooling",
        }
    }
}

impl Health {
    /// The health of a pool which had none. These are the backends' weights where they are up, else 0, of each slot.
    pub fn of(weights: impl Iterator<Item = u16>) -> Health {
        Health {
            outages: Outages::of(weights),
            ..Health::default()
        }
    }

    /// Whether it is as good as none.
    pub fn is_default(&self) -> bool {
        self.settings == HealthSettings::default()
            && !self.has_fractions
            && self.outages.is_default()
            && self.starts.as_ref().is_none_or(|s| s.is_default())
            && self.adaptations.as_ref().is_none_or(|a| a.is_default())
    }

    /// Whether time changes anything here.
    pub fn is_timed(&self) -> bool {
        self.settings != HealthSettings::default() || !self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.outages.ejected() == 0 && self.outages.cooling() == 0
    }

    /// When something happens first, also what lets nobody be served.
    pub fn first(&self) -> Option<Millis> {
        let starts = self.starts.as_ref().and_then(|s| s.due());
        let adaptations = self.adaptations.as_ref();
        let adaptations = adaptations.and_then(|a| a.due(self.settings.adapt));
        let all = [self.outages.due(), starts, adaptations];
        all.into_iter().flatten().min()
    }

    // Settings

    /// The settings.
    pub fn settings(&self) -> &HealthSettings {
        &self.settings
    }

    /// Changes the settings; answers whether the running weights of all backends may be others then.
    pub fn set(&mut self, settings: HealthSettings, moment: Moment) -> bool {
        let before = std::mem::replace(&mut self.settings, settings);
        let acquits = before.ejects() && !settings.ejects();
        if acquits {
            self.outages.acquit(moment.clock, moment.next_lease);
        }
        if before.window != settings.window || settings.failrate == 0 {
            self.outages.forget_windows();
        }
        let had_fractions = self.has_fractions;
        self.has_fractions |= settings.has_fractions();
        let starts = self.starts.take_if(|_| settings.slow_start == 0);
        let adaptations = self.adaptations.take_if(|_| settings.adapt == 0);
        let makes_whole = starts.is_some() || adaptations.is_some();
        acquits || makes_whole || self.has_fractions != had_fractions
    }

    // Looking

    /// The unit of running weights.
    pub fn unit(&self) -> u32 {
        match self.has_fractions {
            true => FRACTIONS,
            false => 1,
        }
    }

    /// The weight that a backend runs with which the operator gave that weight.
    pub fn running_weight(&self, slot: Slot, weight: u16) -> u32 {
        let is_out = !self.outages.is_in(slot) || weight == 0;
        match self.has_fractions {
            _ if is_out => 0,
            false => weight.into(),
            true => {
                let tenths = self.starts.as_ref().map_or(STEPS, |s| s.tenths(slot));
                let factor = (self.adaptations.as_ref()).map_or(FACTOR_ONE, |a| a.factor(slot));
                let started = u64::from(weight) * u64::from(FRACTIONS / STEPS * tenths);
                let running = started * u64::from(factor) / u64::from(FACTOR_ONE);
                running.clamp(1, RUNNING_MAX) as u32
            }
        }
    }

    /// Whether a backend is neither ejected nor cooling.
    pub fn is_in(&self, slot: Slot) -> bool {
        self.outages.is_in(slot)
    }

    /// The word for how a backend stands, and when it comes back by itself.
    pub fn word(&self, slot: Slot) -> (HealthWord, Option<Millis>) {
        let starts = || {
            let starts = self.starts.as_ref();
            starts.is_some_and(|starts| starts.tenths(slot) < STEPS)
        };
        let word = match self.outages.standing(slot) {
            Standing::Out { .. } => HealthWord::Ejected,
            Standing::Due { .. } | Standing::Probing { .. } => HealthWord::Probing,
            Standing::Fit if self.outages.is_cooling(slot) => HealthWord::Cooling,
            Standing::Fit if starts() => HealthWord::Starting,
            Standing::Fit => HealthWord::Ok,
        };
        (word, self.outages.wakes(slot))
    }

    /// Who is out and who was held back.
    pub fn outages(&self) -> &Outages {
        &self.outages
    }

    /// The load that a backend told last, in millionths.
    pub fn load_of(&self, slot: Slot) -> Option<u32> {
        self.adaptations.as_ref()?.load_of(slot)
    }

    // Changes

    /// The weight of a backend where it is up, else 0, as the operator set it.
    pub fn set_weight(&mut self, slot: Slot, weight: u16) {
        self.outages.set_weight(slot, weight);
        if let Some(adaptations) = &mut self.adaptations {
            adaptations.set_weight(slot, weight);
        }
    }

    /// Whether newcomers of this weight in all start slowly, in a pool that has picked before: not where they would hold half of the
    /// weight.
    pub fn slows(&self, newcomers: u64) -> bool {
        self.settings.slow_start > 0 && newcomers < self.outages.weight()
    }

    /// A newcomer starts slowly.
    pub fn slow(&mut self, slot: Slot, clock: Millis) {
        self.start(slot, self.settings.slow_start, clock);
    }

    fn start(&mut self, slot: Slot, span: Millis, clock: Millis) {
        if span > 0 {
            let starts = self.starts.get_or_insert_default();
            starts.begin(slot, span, clock);
        }
    }

    /// A backend reports, or a caller of it. The running weight of that backend may be another one then.
    pub fn report(
        &mut self,
        slot: Slot,
        source: Source,
        report: &Report,
        moment: Moment,
    ) -> Effects {
        let Moment { clock, next_lease } = moment;
        let stood = self.outages.standing(slot);
        let counted = self.outages.counts(slot, source);
        let outcome = report.outcome.filter(|_| counted);
        let mut effects = Effects {
            counted,
            ..Effects::default()
        };
        let adapted = self.adapt(slot, outcome, report.load, clock);
        if let Some(outcome) = outcome.filter(|_| self.settings.ejects()) {
            let turn = (self.outages).judge(slot, outcome, &self.settings, clock, next_lease);
            effects.ejected = turn == Turn::Ejected;
            if let Turn::Back(was_out) = turn {
                effects.back = true;
                self.start(slot, self.settings.slow_start.min(was_out), clock);
            }
        }
        if let Source::Lease(number) = source {
            self.outages.lease_ended(slot, number, clock);
        }
        effects.cools = (report.cool).is_some_and(|span| self.outages.cool(slot, span, clock));
        effects.moved = adapted || effects.cools || self.outages.standing(slot) != stood;
        effects
    }

    /// What is not whole yet says nothing about its capacity. Answers whether its factor changed.
    fn adapt(
        &mut self,
        slot: Slot,
        outcome: Option<Outcome>,
        load: Option<u32>,
        clock: Millis,
    ) -> bool {
        let step = self.settings.adapt;
        let is_whole = (self.starts.as_ref()).is_none_or(|starts| starts.tenths(slot) == STEPS);
        let tells = outcome.is_some() || load.is_some();
        let weight = self.outages.weight_of(slot);
        if step == 0 || !is_whole || !tells || weight == 0 {
            return false;
        }
        let adaptations = self.adaptations.get_or_insert_default();
        adaptations.report(slot, weight, outcome, load, step, clock)
    }

    /// A lease ended, and nobody told how it went.
    pub fn lease_ended(&mut self, slot: Slot, number: u64, clock: Millis) -> bool {
        self.outages.lease_ended(slot, number, clock)
    }

    /// As [`Outages::open_probe`].
    pub fn open_probe(&mut self, slot: Slot, tier: Option<u8>) -> bool {
        self.outages.open_probe(slot, tier)
    }

    /// A pick takes the probe of a backend, which is due.
    pub fn take_probe(&mut self, slot: Slot, by: Prober, clock: Millis) {
        self.outages.take_probe(slot, by, &self.settings, clock);
    }

    /// Takes back that a pick took the probe of a backend.
    pub fn put_back_probe(&mut self, slot: Slot, before: Outage) {
        self.outages.put_back(slot, before);
    }

    /// The operator says that a backend is well. It is whole at once. Answers whether it was out.
    pub fn restore(&mut self, slot: Slot, moment: Moment) -> bool {
        let Moment { clock, next_lease } = moment;
        self.outages.restore(slot, clock, next_lease)
    }

    // Saved

    /// Writes all of it. The backends are in these slots.
    pub fn save(&self, slots: &[Slot], to: &mut Writer) {
        to.put(&self.settings);
        to.put(&self.has_fractions);
        self.outages.save_head(to);
        slots.iter().for_each(|slot| self.outages.save(*slot, to));
        let starts = self.starts.as_deref().filter(|starts| !starts.is_default());
        to.put(&starts.is_some());
        if let Some(starts) = starts {
            slots.iter().for_each(|slot| starts.save(*slot, to));
        }
        let adaptations = self.adaptations.as_deref().filter(|a| !a.is_default());
        to.put(&adaptations.is_some());
        if let Some(adaptations) = adaptations {
            slots.iter().for_each(|slot| adaptations.save(*slot, to));
        }
    }

    /// Reads all of it, in a pool with this number of slots, at this clock.
    pub fn load(slots: usize, clock: Millis, from: &mut Reader) -> Result<Health, Malformed> {
        let mut health = Health::default();
        let settings: HealthSettings = from.get()?;
        health.settings = checked("health", settings, settings.is_sound())?;
        health.has_fractions = from.get()?;
        let is_sound = health.has_fractions || !settings.has_fractions();
        checked("health", (), is_sound)?;
        health.outages.load_head(from)?;
        for slot in 0..slots {
            health.outages.load(slot, &settings, clock, from)?;
        }
        if from.get()? {
            let mut starts = Box::<Starts>::default();
            (0..slots).try_for_each(|slot| starts.load(slot, clock, from))?;
            health.starts = Some(starts);
        }
        if from.get()? {
            let mut adaptations = Box::<Adaptations>::default();
            let step = settings.adapt;
            (0..slots).try_for_each(|slot| adaptations.load(slot, step, clock, from))?;
            health.adaptations = Some(adaptations);
        }
        Ok(health)
    }

    /// Panics where the ways to find something disagree. For the tests.
    pub fn check(&self) {
        self.outages.check();
        self.adaptations.iter().for_each(|a| a.check());
    }
}

impl Kept for Health {
    fn forget(&mut self, slot: Slot) {
        self.outages.forget(slot);
        self.starts.forget(slot);
        self.adaptations.forget(slot);
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.outages.renumber(gaps);
        self.starts.renumber(gaps);
        self.adaptations.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.outages.relocate(by);
        self.starts.relocate(by);
        self.adaptations.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.outages.heap_bytes() + self.starts.heap_bytes() + self.adaptations.heap_bytes()
    }
}

/// Only those that are out are due: their return can let somebody be served. What changes weights a little waits for a tick that
/// comes anyway.
impl Timed for Health {
    fn due(&self) -> Option<Millis> {
        self.outages.due()
    }

    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        let step = self.settings.adapt;
        let starts = self.starts.as_mut();
        let adaptations = self.adaptations.as_mut();
        (self.outages.end_first(clock))
            .or_else(|| starts?.end_first(clock))
            .or_else(|| adaptations?.end_first(step, clock))
    }
}
