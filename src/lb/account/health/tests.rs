//! Any sequence of steps: health tells what the naive one tells, however the clock moves, and also when it was saved and read.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::lb::account::latency::Latencies;
use crate::lb::account::report::Outcome;

#[expect(dead_code, reason = "the naive pool of tests/core uses all of it")]
#[path = "../../../../tests/core/naive_health.rs"]
mod naive;

#[derive(Clone, Debug)]
enum Step {
    Add(u16),
    Remove(usize),
    CloseGaps,
    Weight(usize, u16),
    Settings(HealthSettings),
    /// A lease on a backend.
    Grant(usize),
    /// A report of a caller, or of the open lease at that place, the newest first.
    Report(Option<usize>, usize, Report),
    /// An open lease ends by itself.
    Expire(usize),
    /// The first probe that is due is taken, with a lease or without.
    Probe(bool),
    Restore(usize),
    Tick(Millis, Vec<Millis>),
    SaveAndLoad,
}

fn settings() -> impl Strategy<Value = HealthSettings> {
    (
        (
            select(vec![0u32, 1, 2, 3]),
            select(vec![0u8, 30, 100]),
            1u32..6,
            select(vec![50u64, 1000]),
        ),
        (select(vec![1u64, 100, 1000]), select(vec![0u8, 50, 100])),
        (select(vec![0u64, 3, 500]), select(vec![0u64, 20, 200])),
    )
        .prop_map(|(judging, ejection, weights)| {
            let (fails, failrate, min, window) = judging;
            let (eject, max_eject) = ejection;
            let (slow_start, adapt) = weights;
            HealthSettings {
                fails,
                failrate,
                min,
                window,
                eject,
                max_eject,
                slow_start,
                adapt,
            }
        })
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0usize..5;
    let weight = || prop_oneof![4 => 1u16..4, 1 => select(vec![0, 65535, 5000])];
    let outcome = select(vec![
        None,
        Some(Outcome::Ok),
        Some(Outcome::Ok),
        Some(Outcome::Fail),
    ]);
    let load = prop::option::of(prop_oneof![4 => 0u32..1_500_000, 1 => Just(LOAD_MAX)]);
    let cool = prop::option::weighted(0.1, 1u64..2000);
    let latency = prop::option::of(prop_oneof![4 => 0u64..100_000, 1 => Just(1 << 50)]);
    let report = (outcome, latency, load, cool).prop_map(|(outcome, latency, load, cool)| Report {
        outcome,
        latency,
        load,
        cool,
    });
    let newest = prop_oneof![3 => Just(0usize), 1 => 0usize..6];
    let report = (prop::option::weighted(0.7, newest), at(), report);
    let millis = prop_oneof![4 => 1u64..50, 8 => 50u64..2000, 1 => 2000u64..25_000];
    let cuts = prop::collection::vec(1u64..1000, 0..4);
    prop_oneof![
        1 => weight().prop_map(Step::Add),
        1 => at().prop_map(Step::Remove),
        1 => Just(Step::CloseGaps),
        2 => (at(), weight()).prop_map(|(at, w)| Step::Weight(at, w)),
        1 => settings().prop_map(Step::Settings),
        6 => at().prop_map(Step::Grant),
        24 => report.prop_map(|(lease, at, report)| Step::Report(lease, at, report)),
        1 => (0usize..6).prop_map(Step::Expire),
        12 => any::<bool>().prop_map(Step::Probe),
        1 => at().prop_map(Step::Restore),
        8 => (millis, cuts).prop_map(|(millis, cuts)| Step::Tick(millis, cuts)),
        1 => Just(Step::SaveAndLoad),
    ]
}

/// First some backends, and settings.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    (settings(), prop::collection::vec(step(), 1..150)).prop_map(|(settings, mut steps)| {
        let begin = [
            Step::Add(1),
            Step::Add(2),
            Step::Add(1),
            Step::Settings(settings),
        ];
        steps.splice(0..0, begin);
        steps
    })
}

/// Health and latencies as an account keeps them.
#[derive(Clone)]
struct Real {
    health: Health,
    latencies: Latencies,
    weights: Vec<Option<u16>>,
    clock: Millis,
}

impl Real {
    fn new() -> Real {
        Real {
            health: Health::default(),
            latencies: Latencies::default(),
            weights: vec![],
            clock: 1000,
        }
    }

    fn slots(&self) -> Vec<Slot> {
        let all = 0..self.weights.len();
        all.filter(|slot| self.weights[*slot].is_some()).collect()
    }

    fn moment(&self, next_lease: u64) -> Moment {
        Moment {
            clock: self.clock,
            next_lease,
        }
    }

    fn refresh(&mut self, slot: Slot, at: Millis) {
        let weight = self.weights[slot].unwrap_or(0);
        self.health.set_weight(slot, weight);
        let is_in = weight > 0 && self.health.is_in(slot);
        self.latencies.set_in(slot, is_in, at);
        self.health.open_probe(slot, Some(0));
    }

    fn refresh_all(&mut self) {
        (0..self.weights.len()).for_each(|slot| self.refresh(slot, self.clock));
    }

    fn tick(&mut self, clock: Millis) {
        self.clock = clock;
        loop {
            let due = self.health.due();
            if let Some(whose) = self.health.end_first(clock) {
                let at = due.filter(|due| *due <= clock).unwrap_or(clock);
                self.refresh(whose.slot().expect("a backend's"), at);
            } else if self.latencies.end_first(clock).is_none() {
                break;
            }
        }
    }

    fn save(&self) -> Vec<u8> {
        let mut to = Writer::default();
        self.health.save(&self.slots(), &mut to);
        let slots = self.slots();
        slots
            .iter()
            .for_each(|slot| self.latencies.save(*slot, &mut to));
        to.into_bytes()
    }

    fn load(&self, bytes: &[u8]) -> Real {
        let mut from = Reader::of(bytes);
        let weights: Vec<_> = self
            .slots()
            .iter()
            .map(|slot| self.weights[*slot])
            .collect();
        let slots = weights.len();
        let mut health = Health::load(slots, self.clock, &mut from).expect("health");
        let mut latencies = Latencies::default();
        for (slot, weight) in weights.iter().enumerate() {
            let weight = weight.unwrap_or(0);
            latencies
                .load(slot, self.clock, &mut from)
                .expect("latency");
            health.set_weight(slot, weight);
            latencies.load_in(slot, weight > 0 && health.is_in(slot));
            health.open_probe(slot, Some(0));
        }
        assert!(from.is_at_end());
        Real {
            health,
            latencies,
            weights,
            ..*self
        }
    }

    fn first_probe(&self) -> Option<Slot> {
        self.health.outages().probes().next().map(|(_, slot)| slot)
    }

    fn close_gaps(&mut self) {
        let gaps = Gaps::of(self.weights.iter().map(Option::is_none));
        self.health.renumber(&gaps);
        self.latencies.renumber(&gaps);
        gaps.close(&mut self.weights);
    }
}

fn same(real: &Real, naive: &naive::Health) {
    real.health.check();
    real.latencies.check();
    let slots = real.slots();
    assert_eq!(slots.len(), naive.backends.len());
    let outages = real.health.outages();
    for (at, slot) in slots.iter().copied().enumerate() {
        let backend = &naive.backends[at];
        let word = match backend.outage.as_ref().map(|outage| outage.stage) {
            Some(naive::Stage::Out(_)) => HealthWord::Ejected,
            Some(_) => HealthWord::Probing,
            None if backend.cool > 0 => HealthWord::Cooling,
            None if backend.tenths(naive.clock) < 10 => HealthWord::Starting,
            None => HealthWord::Ok,
        };
        assert_eq!(real.health.word(slot), (word, backend.wakes()));
        assert_eq!(outages.row(slot) as usize, backend.row());
        assert_eq!(outages.ejections(slot), backend.ejections);
        assert_eq!(real.health.load_of(slot).map(u128::from), backend.load);
        let running = real.health.running_weight(slot, backend.weight);
        assert_eq!(u128::from(running), naive.running_weight(at));
        assert_eq!(real.latencies.level(slot), backend.level);
        assert_eq!(real.latencies.micros(slot), naive.level(at) / 16);
    }
    let probes = naive.probes().into_iter();
    let probes = probes.filter(|at| naive.backends[*at].weight > 0);
    let probes: Vec<Slot> = probes.map(|at| slots[at]).collect();
    let real_probes = outages.probes().map(|(_, slot)| slot);
    assert_eq!(real_probes.collect::<Vec<_>>(), probes);
    let out = naive.backends.iter().filter(|b| b.outage.is_some());
    let cooling = naive
        .backends
        .iter()
        .filter(|b| b.outage.is_none() && b.cool > 0);
    let counts = (outages.ejected(), outages.cooling(), outages.held());
    assert_eq!(counts, (out.count(), cooling.count(), naive.held));
}

proptest! {
    #![proptest_config(ProptestConfig {
        // What fails gets a test of its own, not a file of seeds.
        failure_persistence: None,
        ..ProptestConfig::with_cases(if std::env::var_os("REDIS_LB_LONG").is_some() { 20_000 } else { 300 })
    })]

    #[test]
    fn health_tells_what_the_naive_one_tells(steps in steps()) {
        let mut real = Real::new();
        // The same, but its clock moves in other steps.
        let mut cut = Real::new();
        let mut naive = naive::Health { clock: real.clock, ..naive::Health::default() };
        // Open leases with their slots.
        let mut leases: Vec<(Slot, u64)> = vec![];
        let mut next_lease = 0;
        for step in &steps {
            let slots = real.slots();
            let slot = |at: usize| slots.get(at).copied();
            let at = |slot: Slot| slots.iter().position(|s| *s == slot).expect("it is there");
            let moment = real.moment(next_lease);
            match step {
                Step::Add(weight) => {
                    naive.add(*weight, naive.slows((*weight).into()));
                    for real in [&mut real, &mut cut] {
                        real.weights.push(Some(*weight));
                        let slot = real.weights.len() - 1;
                        if real.health.slows((*weight).into()) {
                            real.health.slow(slot, real.clock);
                        }
                        real.refresh(slot, real.clock);
                    }
                }
                Step::Remove(n) => if let Some(slot) = slot(*n) {
                    naive.backends.remove(*n);
                    leases.retain(|(on, _)| *on != slot);
                    for real in [&mut real, &mut cut] {
                        real.weights[slot] = None;
                        real.refresh(slot, real.clock);
                        real.health.forget(slot);
                        real.latencies.forget(slot);
                    }
                },
                Step::CloseGaps => {
                    leases.iter_mut().for_each(|(slot, _)| *slot = at(*slot));
                    real.close_gaps();
                    cut.close_gaps();
                }
                Step::Weight(n, weight) => if let Some(slot) = slot(*n) {
                    naive.set_weight(*n, *weight);
                    for real in [&mut real, &mut cut] {
                        real.weights[slot] = Some(*weight);
                        real.refresh(slot, real.clock);
                    }
                },
                Step::Settings(settings) => {
                    let HealthSettings { fails, failrate, min, window, eject, max_eject, slow_start, adapt } = *settings;
                    let plain = naive::Settings { fails, failrate, min, window, eject, max_eject, slow_start, adapt };
                    naive.set(plain, next_lease);
                    for real in [&mut real, &mut cut] {
                        real.health.set(*settings, moment);
                        real.refresh_all();
                    }
                }
                Step::Grant(n) => if let Some(slot) = slot(*n) {
                    leases.push((slot, next_lease));
                    next_lease += 1;
                },
                Step::Report(lease, n, report) => {
                    let (slot, lease) = match lease {
                        Some(n) if *n < leases.len() => {
                            let (slot, number) = leases.remove(leases.len() - 1 - n);
                            (Some(slot), Some(number))
                        }
                        Some(_) => (None, None),
                        None => (slot(*n), None),
                    };
                    if let Some(slot) = slot {
                        let (at, source) = (at(slot), lease.map_or(Source::Caller, Source::Lease));
                        let failed = report.outcome.map(|outcome| outcome == Outcome::Fail);
                        if let Some(failed) = failed.filter(|_| naive.backends[at].counts(lease)) {
                            naive.latency(at, failed, report.latency, leases.len() as u64);
                        }
                        let expected = naive.report(at, lease, failed, report.load.map(u64::from), report.cool, next_lease);
                        for real in [&mut real, &mut cut] {
                            let Effects { counted, ejected, back, cools, moved } = real.health.report(slot, source, report, moment);
                            prop_assert_eq!([counted, ejected, back, cools], expected);
                            if let Some(outcome) = report.outcome.filter(|_| counted) {
                                real.latencies.report(slot, outcome, report.latency, leases.len(), real.clock);
                            }
                            if moved {
                                real.refresh(slot, real.clock);
                            }
                        }
                    }
                }
                Step::Expire(n) => if *n < leases.len() {
                    let (slot, number) = leases.remove(*n);
                    naive.lease_ended(at(slot), number);
                    for real in [&mut real, &mut cut] {
                        real.health.lease_ended(slot, number, real.clock);
                        real.refresh(slot, real.clock);
                    }
                },
                Step::Probe(leased) => if let Some(slot) = real.first_probe() {
                    let lease = leased.then_some(next_lease);
                    naive.take_probe(at(slot), lease);
                    if *leased {
                        leases.push((slot, next_lease));
                        next_lease += 1;
                    }
                    for real in [&mut real, &mut cut] {
                        let by = lease.map_or(Prober::Unleased, Prober::Lease);
                        real.health.take_probe(slot, by, real.clock);
                    }
                },
                Step::Restore(n) => if let Some(slot) = slot(*n) {
                    let was_out = naive.restore(*n, next_lease);
                    for real in [&mut real, &mut cut] {
                        prop_assert_eq!(real.health.restore(slot, moment), was_out);
                        real.refresh(slot, real.clock);
                    }
                },
                Step::Tick(millis, cuts) => {
                    let to = real.clock + millis;
                    for pause in cuts {
                        if cut.clock + pause < to {
                            cut.tick(cut.clock + pause);
                        }
                    }
                    cut.tick(to);
                    real.tick(to);
                    while naive.clock < to {
                        naive.pass();
                    }
                }
                Step::SaveAndLoad => {
                    let bytes = real.save();
                    let slots = real.slots();
                    real = real.load(&bytes);
                    prop_assert_eq!(real.save(), bytes);
                    // The other one has the same slots again.
                    cut.close_gaps();
                    leases.iter_mut().for_each(|(slot, _)| *slot = slots.iter().position(|s| s == slot).expect("it is there"));
                }
            }
            same(&real, &naive);
            prop_assert_eq!(cut.save(), real.save());
        }
    }
}
