//! Which measure should `ewma` go by? A simulation without a server: `cargo bench --bench exponent`, about a minute.
//!
//! Requests come by chance to servers of some slots each. Who finds no free slot there waits in the server's own queue. The pool knows
//! the requests in flight and the latencies that were reported; each measure chooses by them. All choose for the very same requests.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// How many requests a run has. Those of the first tenth are not counted.
const REQUESTS: usize = 200_000;
/// The mean time of service at full speed, in microseconds.
const SERVICE: f64 = 10_000.0;

#[derive(Clone, Copy, PartialEq)]
enum Measure {
    RoundRobin,
    LeastConnections,
    TwoChoices,
    /// latency × (leases + 1)^e.
    Power(f64),
    /// The same, where failures raise the latency up to 64 × (mean leases + 1)^e times the mean of the others.
    Loaded(f64),
    /// latency × (leases + 1)² / (leases + k): like the square where few are in flight, like the first power where many are.
    Bent(f64),
    /// One queue before all servers, and the fastest free one serves: no balancer is better.
    OneQueue,
}

struct Server {
    slots: usize,
    /// How many times slower than full speed.
    slow: f64,
    fails: bool,
    running: usize,
    waiting: VecDeque<usize>,
    leases: u64,
    latency: Option<f64>,
    is_well: bool,
    reported: f64,
    last: u64,
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    servers: usize,
    slots: usize,
    /// Of this number of servers, how much slower they are.
    slow: (usize, f64),
    /// How many fail within a millisecond.
    failing: usize,
    load: f64,
}

fn main() {
    let measures = [
        ("one queue", Measure::OneQueue),
        ("rr", Measure::RoundRobin),
        ("p2c", Measure::TwoChoices),
        ("lc", Measure::LeastConnections),
        ("e = 1", Measure::Power(1.0)),
        ("e = 2", Measure::Power(2.0)),
        ("1, loaded", Measure::Loaded(1.0)),
        ("1.5, loaded", Measure::Loaded(1.5)),
        ("2, loaded", Measure::Loaded(2.0)),
        ("3, loaded", Measure::Loaded(3.0)),
        ("bent, 16", Measure::Bent(16.0)),
    ];
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    for case in cases() {
        if !named.is_empty() && !named.iter().any(|n| case.name.contains(n.as_str())) {
            continue;
        }
        println!(
            "\n{}, {} servers of {} slots, load {}",
            case.name, case.servers, case.slots, case.load
        );
        println!(
            "{:>11} {:>9} {:>9} {:>9} {:>9}",
            "ms", "p50", "p99", "p99.9", "failed %"
        );
        for (name, measure) in measures {
            let (latencies, failed) = run(&case, measure);
            let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize] / 1000.0;
            println!(
                "{name:>11} {:9.1} {:9.1} {:9.1} {:9.3}",
                at(0.5),
                at(0.99),
                at(0.999),
                100.0 * failed
            );
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for (servers, slots) in [(10, 1), (10, 4), (10, 64), (100, 1), (100, 4), (100, 64)] {
        for (name, slow, failing) in [
            ("all alike", (0, 1.0), 0),
            ("half 3 times slower", (servers / 2, 3.0), 0),
            ("one 5 times slower", (1, 5.0), 0),
            ("one fails fast", (0, 1.0), 1),
        ] {
            for load in [0.6, 0.8, 0.9] {
                cases.push(Case {
                    name,
                    servers,
                    slots,
                    slow,
                    failing,
                    load,
                });
            }
        }
    }
    cases
}

/// The latencies of the requests that did not fail, in order, and the share of those that did.
fn run(case: &Case, measure: Measure) -> (Vec<f64>, f64) {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut own = Xoshiro256PlusPlus::seed_from_u64(2);
    let mut servers: Vec<Server> = (0..case.servers)
        .map(|i| Server {
            slots: case.slots,
            slow: if i < case.slow.0 { case.slow.1 } else { 1.0 },
            fails: i >= case.servers - case.failing,
            running: 0,
            waiting: VecDeque::new(),
            leases: 0,
            latency: None,
            is_well: false,
            reported: 0.0,
            last: 0,
        })
        .collect();
    let capacity: f64 = servers
        .iter()
        .filter(|s| !s.fails)
        .map(|s| s.slots as f64 / s.slow)
        .sum();
    let gap = SERVICE / (capacity * case.load);
    let mut clock = 0.0;
    let requests: Vec<(f64, f64)> = (0..REQUESTS)
        .map(|_| {
            clock -= gap * unit(&mut chance).ln();
            (clock, heavy(&mut chance))
        })
        .collect();

    let mut events: BinaryHeap<Reverse<(u64, usize, usize)>> = BinaryHeap::new();
    let mut line: VecDeque<usize> = VecDeque::new();
    let (mut latencies, mut failed, mut counted) = (vec![], 0usize, 0usize);
    let mut next = 0;
    let mut turns = 0;
    let to_nanos = |micros: f64| (micros * 1000.0) as u64;
    let span = |server: &Server, work: f64| {
        if server.fails {
            1000.0
        } else {
            work * server.slow
        }
    };
    while next < REQUESTS || !events.is_empty() {
        let ends = events.peek().map(|Reverse((at, _, _))| *at);
        if next < REQUESTS && ends.is_none_or(|at| to_nanos(requests[next].0) <= at) {
            let (now, work) = requests[next];
            let request = next;
            next += 1;
            turns += 1;
            let chosen = match measure {
                Measure::OneQueue => {
                    let free = (0..servers.len())
                        .filter(|i| servers[*i].running < case.slots && !servers[*i].fails);
                    free.min_by(|a, b| servers[*a].slow.total_cmp(&servers[*b].slow))
                }
                measure => Some(choose(&servers, measure, turns, now, &mut own)),
            };
            let Some(chosen) = chosen else {
                line.push_back(request);
                continue;
            };
            let server = &mut servers[chosen];
            server.leases += 1;
            server.last = turns;
            if server.running < server.slots {
                server.running += 1;
                events.push(Reverse((
                    to_nanos(now + span(server, work)),
                    chosen,
                    request,
                )));
            } else {
                server.waiting.push_back(request);
            }
        } else if let Some(Reverse((at, chosen, request))) = events.pop() {
            let now = at as f64 / 1000.0;
            let latency = now - requests[request].0;
            report(&mut servers, chosen, measure, latency, now);
            if request >= REQUESTS / 10 {
                counted += 1;
                match servers[chosen].fails {
                    true => failed += 1,
                    false => latencies.push(latency),
                }
            }
            let server = &mut servers[chosen];
            server.leases -= 1;
            let waits = server.waiting.pop_front().or_else(|| line.pop_front());
            match waits {
                Some(request) => {
                    if measure == Measure::OneQueue {
                        server.leases += 1;
                    }
                    let end = now + span(server, requests[request].1);
                    events.push(Reverse((to_nanos(end), chosen, request)));
                }
                None => server.running -= 1,
            }
        }
    }
    latencies.sort_by(f64::total_cmp);
    (latencies, failed as f64 / counted as f64)
}

/// The mean of those of the others that are known to be well.
fn mean(servers: &[Server], but: usize) -> Option<f64> {
    let well = servers
        .iter()
        .enumerate()
        .filter(|(i, s)| *i != but && s.is_well);
    let (sum, n) = well.fold((0.0, 0), |(sum, n), (_, s)| {
        (sum + s.latency.unwrap_or(0.0), n + 1)
    });
    (n > 0).then(|| sum / f64::from(n))
}

fn report(servers: &mut [Server], at: usize, measure: Measure, latency: f64, now: f64) {
    let others = mean(servers, at);
    let well = servers.iter().filter(|s| s.is_well).count().max(1);
    let leases: u64 = servers.iter().map(|s| s.leases).sum();
    let penalty = match measure {
        Measure::Loaded(e) => 64.0 * (leases as f64 / well as f64 + 1.0).powf(e),
        _ => 64.0,
    };
    let most = others.map_or(f64::MAX, |mean| penalty * mean);
    let server = &mut servers[at];
    server.reported = now;
    if server.fails {
        if let Some(others) = others {
            let before = server.latency.unwrap_or(others);
            server.latency = Some((2.0 * before).min(most).max(before));
            server.is_well = false;
        }
    } else {
        let before = server.latency.unwrap_or(latency);
        server.latency = Some((before + (latency - before) / 8.0).min(most.max(before)));
        server.is_well = true;
    }
}

fn choose(
    servers: &[Server],
    measure: Measure,
    turn: u64,
    now: f64,
    own: &mut Xoshiro256PlusPlus,
) -> usize {
    match measure {
        Measure::RoundRobin => turn as usize % servers.len(),
        Measure::TwoChoices => {
            let a = (own.next_u64() % servers.len() as u64) as usize;
            let b = (own.next_u64() % (servers.len() as u64 - 1)) as usize;
            let b = b + usize::from(b >= a);
            if servers[b].leases < servers[a].leases {
                b
            } else {
                a
            }
        }
        Measure::LeastConnections => best(servers, |s| s.leases as f64),
        Measure::Power(_) | Measure::Loaded(_) | Measure::Bent(_) => {
            let unknown = mean(servers, usize::MAX).unwrap_or(1.0);
            best(servers, |s| {
                let halvings = ((now - s.reported) / 10_000_000.0).floor();
                let latency = s.latency.map_or(unknown, |l| l * 0.5f64.powf(halvings));
                let busy = s.leases as f64 + 1.0;
                latency
                    * match measure {
                        Measure::Power(e) | Measure::Loaded(e) => busy.powf(e),
                        Measure::Bent(k) => busy * busy / (busy - 1.0 + k),
                        _ => unreachable!(),
                    }
            })
        }
        Measure::OneQueue => unreachable!(),
    }
}

fn best(servers: &[Server], score: impl Fn(&Server) -> f64) -> usize {
    let order = |s: &Server| (score(s), s.last);
    let mut best = (0, order(&servers[0]));
    for (i, server) in servers.iter().enumerate().skip(1) {
        let here = order(server);
        if here.0 < best.1.0 || here.0 == best.1.0 && here.1 < best.1.1 {
            best = (i, here);
        }
    }
    best.0
}

fn unit(chance: &mut Xoshiro256PlusPlus) -> f64 {
    ((chance.next_u64() >> 11) as f64 + 1.0) / (1u64 << 53) as f64
}

/// A time of service with a heavy tail: lognormal, sigma 1, so that one request in a hundred takes six times the mean.
fn heavy(chance: &mut Xoshiro256PlusPlus) -> f64 {
    let normal = (-2.0 * unit(chance).ln()).sqrt() * (std::f64::consts::TAU * unit(chance)).cos();
    SERVICE * (normal - 0.5).exp()
}
