//! What do a thousand gateways lose that do not ask one pool for each request? A simulation without a server.
//!
//! Requests come by chance to gateways, and from there to backends of some slots each. One that finds no free slot waits in the
//! backend's own queue. Time over service is all that a request takes beside its service: the round trip to the pool, and that wait.
//! The pools are the module's own. A command reaches them half a round trip after it was sent, and its answer takes as long.
//!
//! `scripts/bench hot-waits` runs it; `cargo bench --bench hot -- shards` prints the figures of the ways that have that in their names.
//! `cargo test` computes the short scenario alone, and holds it against the recorded figures.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use redis_lb::lb::{Algorithm, LeaseId, LeaseTerms, Outcome, Pool, Report, Request};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

type Nanos = u64;
const MILLISECOND: Nanos = 1_000_000;
/// The long round trip is that of all ways of which the name says nothing else.
const LONG_TRIP: Nanos = MILLISECOND / 2;
const SHORT_TRIP: Nanos = MILLISECOND / 5;

struct Scenario {
    name: &'static str,
    gateways: usize,
    backends: usize,
    slots: usize,
    /// The mean time of service. It is lognormal, sigma 1: one request in a hundred takes six times as long.
    service: Nanos,
    /// For so long requests come, and the second half of them is counted.
    span: Nanos,
    loads: &'static [f64],
    seeds: u64,
}

const SHORT: Scenario = Scenario {
    name: "short",
    gateways: 50,
    backends: 80,
    slots: 5,
    service: 60 * MILLISECOND,
    span: 2_000 * MILLISECOND,
    loads: &[0.8],
    seeds: 1,
};
/// The slots are no multiple of the shards: shards would else divide them among each other without a rest.
const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "web",
        gateways: 1_000,
        backends: 1_600,
        slots: 5,
        service: 60 * MILLISECOND,
        span: 24_000 * MILLISECOND,
        loads: &[0.5, 0.8, 0.95],
        seeds: 3,
    },
    Scenario {
        name: "LLM",
        gateways: 1_000,
        backends: 1_000,
        slots: 50,
        service: 1_000 * MILLISECOND,
        span: 30_000 * MILLISECOND,
        loads: &[0.5, 0.8, 0.95],
        seeds: 3,
    },
];

#[derive(Clone, Copy)]
enum Way {
    /// One queue before all backends: no balancer is better.
    OneQueue,
    /// Gateways ask pools of all backends, one after the other.
    Pools(Asking),
    /// Each gateway goes by the requests that it has in flight itself: of those with the fewest, the next one in turn.
    OwnLeastConnections,
    /// The same by the better of two, drawn by chance.
    OwnTwoChoices,
}

#[derive(Clone, Copy)]
struct Asking {
    policy: &'static str,
    shards: usize,
    each: Each,
    /// A gateway that has no pick in hand asks for so many, or down to half as many by chance, as the Python client does.
    most: usize,
    ends: Ends,
    trip: Nanos,
}

/// Which backends a shard has.
#[derive(Clone, Copy, PartialEq)]
enum Each {
    All,
    /// Shard i of k has each k-th one, from the i-th on, and no other shard has these.
    APart,
}

/// When a gateway tells that a request has ended.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    AtOnce,
    WithTheNextPick,
    /// Picks without leases.
    Never,
}

const LC: Asking = Asking {
    policy: "lc",
    shards: 1,
    each: Each::All,
    most: 1,
    ends: Ends::AtOnce,
    trip: LONG_TRIP,
};
const WRR: Asking = Asking {
    policy: "wrr",
    ends: Ends::Never,
    ..LC
};

fn ways() -> Vec<(String, Way)> {
    let mut ways = vec![
        ("one queue".into(), Way::OneQueue),
        (
            "lc, a round trip of 0.2 ms".into(),
            Way::Pools(Asking {
                trip: SHORT_TRIP,
                ..LC
            }),
        ),
        ("lc".into(), Way::Pools(LC)),
        (
            "lc, ends told with the next pick".into(),
            Way::Pools(Asking {
                ends: Ends::WithTheNextPick,
                ..LC
            }),
        ),
    ];
    for (each, which) in [
        (Each::All, ""),
        (Each::APart, ", a part of the backends each"),
    ] {
        for shards in [2, 4] {
            let asking = Asking { shards, each, ..LC };
            ways.push((format!("lc, {shards} shards{which}"), Way::Pools(asking)));
        }
    }
    for most in [4, 8, 16, 32] {
        ways.push((
            format!("lc, prefetch {most}"),
            Way::Pools(Asking { most, ..LC }),
        ));
    }
    ways.push(("wrr".into(), Way::Pools(WRR)));
    ways.push((
        "wrr, prefetch 16".into(),
        Way::Pools(Asking { most: 16, ..WRR }),
    ));
    ways.push((
        "each gateway alone, least_conn".into(),
        Way::OwnLeastConnections,
    ));
    ways.push(("each gateway alone, p2c".into(), Way::OwnTwoChoices));
    ways
}

/// A place that a gateway was given: a backend, and the shard and the lease that count it there.
#[derive(Clone, Copy)]
struct Place {
    backend: usize,
    shard: usize,
    lease: Option<LeaseId>,
}

struct Job {
    gateway: usize,
    came: Nanos,
    service: Nanos,
    place: Option<Place>,
}

#[derive(Default)]
struct Gateway {
    /// Jobs that wait for a place, and places that wait for a job.
    waiting: VecDeque<usize>,
    places: VecDeque<Place>,
    /// How many places are on their way.
    asked: usize,
    turn: usize,
    /// Leases of which the end is not told yet.
    ended: Vec<Place>,
    /// Its own requests in flight by backend.
    own: Vec<u16>,
}

#[derive(Default)]
struct Backend {
    running: usize,
    queue: VecDeque<usize>,
}

/// What is on its way to a pool.
enum Sent {
    Ask {
        gateway: usize,
        shard: usize,
        count: usize,
    },
    Done(Place),
}

struct Run {
    way: Way,
    slots: usize,
    pools: Vec<Pool>,
    gateways: Vec<Gateway>,
    backends: Vec<Backend>,
    jobs: Vec<Job>,
    unused: Vec<usize>,
    /// Both keep the order in which they were sent: a trip always takes as long.
    sent: VecDeque<(Nanos, Sent)>,
    answers: VecDeque<(Nanos, usize, Place)>,
    ends: BinaryHeap<Reverse<(Nanos, usize)>>,
    chance: Xoshiro256PlusPlus,
    counted_from: Nanos,
    /// Nanoseconds over service of all that are counted.
    over: Vec<u64>,
}

/// The requests of a run: the same for each way.
struct Trace {
    chance: Xoshiro256PlusPlus,
    gap: f64,
    service: f64,
    gateways: usize,
    now: f64,
}

impl Trace {
    fn of(scenario: &Scenario, load: f64, seed: u64) -> Trace {
        let service = scenario.service as f64;
        Trace {
            chance: Xoshiro256PlusPlus::seed_from_u64(seed),
            gap: service / (load * (scenario.backends * scenario.slots) as f64),
            service,
            gateways: scenario.gateways,
            now: 0.0,
        }
    }

    fn next(&mut self) -> Job {
        self.now -= self.gap * unit(&mut self.chance).ln();
        let gateway = self.chance.random_range(0..self.gateways);
        let radius = (-2.0 * unit(&mut self.chance).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * unit(&mut self.chance)).cos();
        Job {
            gateway,
            came: self.now as Nanos,
            service: (self.service * (normal - 0.5).exp()) as Nanos,
            place: None,
        }
    }
}

/// Above 0, up to 1.
fn unit(chance: &mut Xoshiro256PlusPlus) -> f64 {
    1.0 - chance.random::<f64>()
}

impl Run {
    fn new(scenario: &Scenario, way: Way, seed: u64) -> Run {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x686f74);
        let (shards, own) = match way {
            Way::Pools(asking) => (asking.shards, 0),
            Way::OneQueue => (0, 0),
            Way::OwnLeastConnections | Way::OwnTwoChoices => (0, scenario.backends),
        };
        // One queue is one backend that has the slots of all.
        let (backends, slots) = match way {
            Way::OneQueue => (1, scenario.backends * scenario.slots),
            _ => (scenario.backends, scenario.slots),
        };
        let gateways = (0..scenario.gateways).map(|_| Gateway {
            turn: chance.random_range(0..shards.max(own).max(1)),
            own: vec![0; own],
            ..Gateway::default()
        });
        Run {
            way,
            slots,
            gateways: gateways.collect(),
            pools: match way {
                Way::Pools(asking) => asking.pools(scenario.backends),
                _ => vec![],
            },
            backends: (0..backends).map(|_| Backend::default()).collect(),
            jobs: vec![],
            unused: vec![],
            sent: VecDeque::new(),
            answers: VecDeque::new(),
            ends: BinaryHeap::new(),
            chance,
            counted_from: scenario.span / 2,
            over: vec![],
        }
    }

    /// All requests, until the last one has ended.
    fn run(&mut self, mut trace: Trace, span: Nanos) {
        let mut next = trace.next();
        loop {
            let comes = if next.came < span {
                next.came
            } else {
                Nanos::MAX
            };
            let sent = self.sent.front().map_or(Nanos::MAX, |(at, _)| *at);
            let answered = self.answers.front().map_or(Nanos::MAX, |(at, ..)| *at);
            let ends = self.ends.peek().map_or(Nanos::MAX, |Reverse((at, _))| *at);
            let now = comes.min(sent).min(answered).min(ends);
            if now == Nanos::MAX {
                return;
            } else if now == ends {
                if let Some(Reverse((_, job))) = self.ends.pop() {
                    self.end(now, job);
                }
            } else if now == sent {
                if let Some((_, sent)) = self.sent.pop_front() {
                    self.reach(now, sent);
                }
            } else if now == answered {
                if let Some((_, gateway, place)) = self.answers.pop_front() {
                    self.receive(now, gateway, place);
                }
            } else {
                self.come(now, next);
                next = trace.next();
            }
        }
    }

    fn come(&mut self, now: Nanos, job: Job) {
        let gateway = job.gateway;
        let job = match self.unused.pop() {
            Some(place) => {
                self.jobs[place] = job;
                place
            }
            None => {
                self.jobs.push(job);
                self.jobs.len() - 1
            }
        };
        match self.way {
            Way::OneQueue => self.start(now, job, place_of(0)),
            Way::Pools(asking) => match self.gateways[gateway].places.pop_front() {
                Some(place) => self.start(now, job, place),
                None => {
                    self.gateways[gateway].waiting.push_back(job);
                    self.ask(now, gateway, asking);
                }
            },
            Way::OwnLeastConnections | Way::OwnTwoChoices => {
                let backend = self.choose_alone(gateway);
                self.gateways[gateway].own[backend] += 1;
                self.start(now, job, place_of(backend));
            }
        }
    }

    fn choose_alone(&mut self, gateway: usize) -> usize {
        let Gateway { own, turn, .. } = &mut self.gateways[gateway];
        let backends = own.len();
        if let Way::OwnTwoChoices = self.way {
            let a = self.chance.random_range(0..backends);
            let b = (a + self.chance.random_range(1..backends)) % backends;
            return if own[b] < own[a] { b } else { a };
        }
        let mut best = *turn;
        for i in (*turn..backends).chain(0..*turn) {
            if own[i] < own[best] {
                best = i;
            }
            if own[best] == 0 {
                break;
            }
        }
        *turn = (best + 1) % backends;
        best
    }

    /// Asks for places, where fewer are on their way than jobs wait.
    fn ask(&mut self, now: Nanos, gateway: usize, asking: Asking) {
        let of = &mut self.gateways[gateway];
        if of.waiting.len() <= of.asked {
            return;
        }
        let count = self
            .chance
            .random_range(asking.most.div_ceil(2)..=asking.most);
        let shard = of.turn;
        of.turn = (of.turn + 1) % asking.shards;
        of.asked += count;
        let at = now + asking.trip / 2;
        self.sent
            .extend(of.ended.drain(..).map(|place| (at, Sent::Done(place))));
        self.sent.push_back((
            at,
            Sent::Ask {
                gateway,
                shard,
                count,
            },
        ));
    }

    /// A command reaches a pool.
    fn reach(&mut self, now: Nanos, sent: Sent) {
        let Way::Pools(asking) = self.way else { return };
        match sent {
            Sent::Done(place) => {
                let report = Report {
                    outcome: Some(Outcome::Ok),
                    ..Report::default()
                };
                if let Some(lease) = place.lease {
                    let effects = self.pools[place.shard].done(lease, &report);
                    assert!(effects.is_some(), "the lease was not open");
                }
            }
            Sent::Ask {
                gateway,
                shard,
                count,
            } => {
                let terms = LeaseTerms {
                    span: 3_600_000,
                    owner: None,
                };
                let picked = self.pools[shard].picks(&Request {
                    count,
                    terms: (asking.ends != Ends::Never).then_some(terms),
                    ..Request::default()
                });
                assert_eq!(picked.slots.len(), count, "a pool refuses picks");
                for (i, slot) in picked.slots.into_iter().enumerate() {
                    let lease = picked.lease.map(|first| LeaseId {
                        number: first.number + i as u64,
                        ..first
                    });
                    let place = Place {
                        backend: asking.backend(shard, slot),
                        shard,
                        lease,
                    };
                    self.answers
                        .push_back((now + asking.trip / 2, gateway, place));
                }
            }
        }
    }

    fn receive(&mut self, now: Nanos, gateway: usize, place: Place) {
        let of = &mut self.gateways[gateway];
        of.asked -= 1;
        match of.waiting.pop_front() {
            Some(job) => self.start(now, job, place),
            None => of.places.push_back(place),
        }
        if let Way::Pools(asking) = self.way {
            self.ask(now, gateway, asking);
        }
    }

    /// A job reaches its backend.
    fn start(&mut self, now: Nanos, job: usize, place: Place) {
        self.jobs[job].place = Some(place);
        let backend = &mut self.backends[place.backend];
        if backend.running < self.slots {
            backend.running += 1;
            self.ends.push(Reverse((now + self.jobs[job].service, job)));
        } else {
            backend.queue.push_back(job);
        }
    }

    fn end(&mut self, now: Nanos, job: usize) {
        let Job {
            gateway,
            came,
            service,
            place,
        } = self.jobs[job];
        self.unused.push(job);
        if came >= self.counted_from {
            self.over.push(now - came - service);
        }
        let Some(place) = place else { return };
        let backend = &mut self.backends[place.backend];
        match backend.queue.pop_front() {
            Some(next) => self
                .ends
                .push(Reverse((now + self.jobs[next].service, next))),
            None => backend.running -= 1,
        }
        match self.way {
            Way::OneQueue => (),
            Way::OwnLeastConnections | Way::OwnTwoChoices => {
                self.gateways[gateway].own[place.backend] -= 1;
            }
            Way::Pools(asking) => match asking.ends {
                Ends::AtOnce => self
                    .sent
                    .push_back((now + asking.trip / 2, Sent::Done(place))),
                Ends::WithTheNextPick => self.gateways[gateway].ended.push(place),
                Ends::Never => (),
            },
        }
    }
}

fn place_of(backend: usize) -> Place {
    Place {
        backend,
        shard: 0,
        lease: None,
    }
}

impl Asking {
    /// If each has all backends, shard i begins i/k of a period farther on, as the Python client makes them.
    fn pools(self, backends: usize) -> Vec<Pool> {
        let pool = |shard| {
            let mut pool = Pool::new();
            for backend in (0..backends).filter(|backend| self.has(shard, *backend)) {
                pool.add(format!("b{backend}").as_bytes(), Some(1));
            }
            if self.each == Each::All {
                for _ in 0..backends * shard / self.shards {
                    pool.pick(Some(Algorithm::WRR));
                }
            }
            let policy = Algorithm::by_name(self.policy.as_bytes());
            pool.set_policy(policy.expect("there is one of that name"));
            pool
        };
        (0..self.shards).map(pool).collect()
    }

    fn has(self, shard: usize, backend: usize) -> bool {
        self.each == Each::All || backend % self.shards == shard
    }

    /// The backend that lies in that slot of a shard.
    fn backend(self, shard: usize, slot: usize) -> usize {
        match self.each {
            Each::All => slot,
            Each::APart => slot * self.shards + shard,
        }
    }
}

/// The figures of a run, in milliseconds.
fn figures(scenario: &Scenario, load: f64, seed: u64, name: &str, way: Way) -> Value {
    let mut run = Run::new(scenario, way, seed);
    run.run(Trace::of(scenario, load, seed), scenario.span);
    let mut over = run.over;
    over.sort_unstable();
    let rounded = |nanos: f64| (nanos / 1e3).round() / 1e3;
    let at = |share: f64| rounded(over[(over.len() as f64 * share) as usize] as f64);
    json!({
        "scenario": scenario.name,
        "load": load,
        "seed": seed,
        "way": name,
        "requests": over.len(),
        "mean": rounded(over.iter().sum::<u64>() as f64 / over.len() as f64),
        "p50": at(0.5),
        "p99": at(0.99),
        "p99.9": at(0.999),
    })
}

/// Those of all runs, on all processors.
fn all(scenarios: &[Scenario], named: &[String]) -> Vec<Value> {
    let mut ways = ways();
    ways.retain(|(name, _)| named.is_empty() || named.iter().any(|n| name.contains(n.as_str())));
    let mut runs = vec![];
    for scenario in scenarios {
        for &load in scenario.loads {
            for way in &ways {
                runs.extend((1..=scenario.seeds).map(|seed| (scenario, load, seed, way)));
            }
        }
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = vec![];
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(scenario, load, seed, (name, way))) = runs.get(i) else {
                return found;
            };
            let figures = figures(scenario, load, seed, name, *way);
            eprintln!("{} of {}: {figures}", i + 1, runs.len());
            found.push((i, figures));
        }
    };
    let mut found: Vec<_> = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let all = workers.into_iter().map(|worker| worker.join());
        all.flat_map(|found| found.expect("no run panics"))
            .collect()
    });
    found.sort_by_key(|(i, _)| *i);
    found.into_iter().map(|(_, figures)| figures).collect()
}

fn main() {
    let (options, named): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|word| word.starts_with('-'));
    let has = |option: &str| options.iter().any(|given| given == option);
    if !has("--bench") {
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hot_waits.json");
        let recorded = std::fs::read_to_string(recorded).expect("the figures are there");
        let recorded: Value = serde_json::from_str(&recorded).expect("JSON");
        assert_eq!(
            recorded["short"],
            Value::from(all(&[SHORT], &[])),
            "the recorded figures are not those of this library"
        );
        return;
    }
    let whole: &[Scenario] = if has("--quick") { &[] } else { &SCENARIOS };
    println!(
        "{}",
        json!({ "short": all(&[SHORT], &named), "whole": all(whole, &named) })
    );
}
