//! Reports, and the health that follows from them.

use super::parts::Pool;
use crate::lb::account::{
    Account, Effects, HealthSettings, HealthWord, Latencies, LeaseId, LeaseTerms, Outages, Report,
    Whose,
};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::pick::{Algorithm, Credits, Own, View};

/// The health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthOf {
    /// The word for it.
    pub word: HealthWord,
    /// In how long it comes back by itself, or a probe of it is due, if it does.
    pub back: Option<Millis>,
    /// Failures in a row.
    pub row: u32,
    /// How often it was ejected.
    pub ejections: u64,
    /// The load that it reported last, in millionths.
    pub load: Option<u32>,
}

impl Pool {
    // Reports

    /// Ends a lease, and heeds what is told of its request; answers what followed, if the lease was open.
    #[inline(always)]
    pub fn done(&mut self, id: LeaseId, report: &Report) -> Option<Effects> {
        if report.cool.is_some() && self.lease(id).is_some() {
            self.make_health();
        }
        let (slot, effects) = self.account.as_mut()?.done(id, report)?;
        if effects.moved {
            self.heeded(slot);
        }
        self.flow_changed(slot);
        Some(effects)
    }

    /// Heeds what is told of a backend; answers what followed, if it is there.
    pub fn report(&mut self, name: &[u8], report: &Report) -> Option<Effects> {
        let slot = self.slot(name)?;
        if *report == Report::default() {
            return Some(Effects::default());
        }
        if report.cool.is_some() {
            self.make_health();
        }
        let effects = self.account().report(slot, report);
        if effects.moved {
            self.heeded(slot);
        }
        let see = View::of(&self.field, self.account.as_deref());
        self.owns.load_changed(see, slot);
        Some(effects)
    }

    /// A backend stands in another way than before.
    fn heeded(&mut self, slot: Slot) {
        self.follow(slot);
        self.refresh(slot);
    }

    /// The operator says that a backend is well; answers whether it was out.
    pub(super) fn restore(&mut self, slot: Slot) -> bool {
        let was_out = self.account.as_mut().is_some_and(|a| a.restore(slot));
        if was_out {
            self.heeded(slot);
        }
        was_out
    }

    // Settings

    /// The settings of health.
    pub fn health_settings(&self) -> HealthSettings {
        let health = self.account.as_ref().and_then(|a| a.health());
        health.map_or(HealthSettings::default(), |health| *health.settings())
    }

    pub(super) fn has_health_settings(&self) -> bool {
        self.health_settings() != HealthSettings::default()
    }

    /// Changes the settings of health; answers whether that changed anything. O(n log n) where running weights change.
    pub fn set_health(&mut self, settings: HealthSettings) -> bool {
        if settings == self.health_settings() {
            return false;
        }
        self.make_health();
        let before = self.unit();
        let may_run_otherwise = self.account().set_health(settings);
        let unit = i64::from(self.unit() / before);
        let slots = if may_run_otherwise {
            self.roster.slots()
        } else {
            0
        };
        if unit > 1 {
            self.owns.start_anew(&self.field);
            (0..slots).for_each(|slot| Credits::scale(&self.field, slot, unit));
        }
        for slot in 0..slots {
            self.follow(slot);
            self.refresh(slot);
        }
        if unit > 1 {
            self.make_ready();
        }
        self.clear_all_if_old();
        true
    }

    /// Makes what the policy needs for its picks, so that the next one need not.
    fn make_ready(&mut self) {
        let policy = self.owns.policy;
        let see = View::of(&self.field, self.account.as_deref());
        let picked = match see.has_eligible() {
            true => policy.pick_ahead(&mut self.owns, see),
            false => None,
        };
        if let Some((slot, before)) = picked {
            policy.take_back(&mut self.owns, see, slot, before);
        }
    }

    fn make_health(&mut self) {
        if self.account().health().is_some() {
            return;
        }
        let weights = self.weights_if_up();
        self.account().health_of(weights.into_iter());
    }

    /// A pick by this algorithm, or by the policy, found a backend: from now on reports move latencies, if it goes by them. A pick that
    /// finds none changes nothing, since nobody tells the replicas of it. Answers whether that changed anything.
    #[inline(always)]
    pub(super) fn heed_latencies_for(&mut self, algorithm: Option<Algorithm>) -> bool {
        let algorithm = algorithm.unwrap_or(self.owns.policy);
        let heeds = algorithm.goes_by_latency() && self.latencies().is_none();
        if heeds {
            self.heed_latencies();
        }
        heeds
    }

    #[cold]
    fn heed_latencies(&mut self) {
        let weights = self.weights_if_up();
        self.account().heed_latencies(weights.into_iter());
    }

    fn latencies(&self) -> Option<&Latencies> {
        self.account.as_ref()?.latencies()
    }

    fn weights_if_up(&self) -> Vec<u16> {
        let slots = 0..self.roster.slots();
        slots.map(|slot| self.weight_if_up(slot)).collect()
    }

    // Probes

    /// Lets picks take the probe of a backend, if one is due and no limit of its own keeps it out.
    #[inline(always)]
    pub(super) fn open_probe(&mut self, slot: Slot) {
        if let Some(account) = &mut self.account {
            account.open_probe(slot, Some(self.field.seats()[slot].tier()));
        }
    }

    /// Lets no pick take it; answers whether one could.
    #[inline(always)]
    pub(super) fn close_probe(&mut self, slot: Slot) -> bool {
        let account = self.account.as_mut();
        account.is_some_and(|account| account.open_probe(slot, None))
    }

    #[inline(always)]
    fn probed(&self) -> Option<&Outages> {
        Some(self.account.as_ref()?.health()?.outages())
    }

    /// The backend whose probe the next pick takes, if it does: where no lower tier serves.
    #[inline(always)]
    pub(super) fn next_probe(&self) -> Option<Slot> {
        let (tier, slot) = self.probed()?.probes().next()?;
        let is_served_before = self.field.has_eligible() && self.field.serving() < tier;
        (!is_served_before).then_some(slot)
    }

    /// Whether a backend is available because a probe of it is due.
    pub(super) fn is_probe_open(&self, slot: Slot) -> bool {
        self.probed().is_some_and(|o| o.is_probe_open(slot))
    }

    /// How many backends are available because a probe of them is due.
    pub(super) fn probes_open(&self) -> usize {
        self.probed().map_or(0, Outages::probes_open)
    }

    /// These backends.
    pub(super) fn probes(&self) -> impl Iterator<Item = Slot> {
        let all = self.probed().into_iter().flat_map(Outages::probes);
        all.map(|(_, slot)| slot)
    }

    /// Panics where picks can take other probes than they should. For the tests.
    pub(super) fn check_probes(&self, account: &Account) {
        let outages = account.health().map(|health| health.outages());
        let slots = self.field.seats().iter().enumerate();
        let due =
            slots.filter(|(slot, _)| outages.is_some_and(|o| o.is_due(*slot) && o.serves(*slot)));
        let open = due.filter(|(slot, _)| !account.is_limited(Whose::of(*slot)));
        let mut expected: Vec<_> = open.map(|(slot, seat)| (seat.tier(), slot)).collect();
        let mut probes: Vec<_> = outages.into_iter().flat_map(|o| o.probes()).collect();
        expected.sort_unstable();
        probes.sort_unstable();
        assert_eq!(probes, expected);
    }

    /// The terms by which a look ahead grants leases, where the algorithm goes by them.
    pub(super) fn terms_ahead(algorithm: Algorithm) -> Option<LeaseTerms<'static>> {
        let (span, owner) = (1, None);
        algorithm
            .goes_by_latency()
            .then_some(LeaseTerms { span, owner })
    }

    // Looking

    /// The health of a backend.
    pub fn health_of(&self, slot: Slot) -> HealthOf {
        let Some(health) = self.account.as_ref().and_then(|a| a.health()) else {
            return HealthOf {
                word: HealthWord::Ok,
                back: None,
                row: 0,
                ejections: 0,
                load: None,
            };
        };
        let (word, wakes) = health.word(slot);
        HealthOf {
            word,
            back: wakes.map(|wakes| wakes.saturating_sub(self.clock())),
            row: health.outages().row(slot),
            ejections: health.outages().ejections(slot),
            load: health.load_of(slot),
        }
    }

    /// How many backends are ejected, how many cool, and how often the budget held an ejection back.
    pub fn outages(&self) -> (usize, usize, u64) {
        let health = self.account.as_ref().and_then(|a| a.health());
        health.map_or((0, 0, 0), |health| {
            let outages = health.outages();
            (outages.ejected(), outages.cooling(), outages.held())
        })
    }

    /// The latency that a backend is thought to have, in microseconds, where picks go by it.
    pub fn latency(&self, slot: Slot) -> Option<u64> {
        Some(self.latencies()?.micros(slot))
    }

    /// The weight that a backend runs with, in parts of the unit that comes with it.
    pub fn running_weight(&self, slot: Slot) -> (u32, u32) {
        (self.field.seats()[slot].running_weight(), self.unit())
    }
}
