//! Any sequence of commands: the pool answers what the naive one answers, and its copies answer the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use redis_lb::lb::{
    ALGORITHMS, Algorithm, Availability, Cost, Effects, HealthSettings, HealthWord, LOAD_MAX,
    LeaseId, LeaseTerms, Limited, Limits, Millis, Order, Outcome, Pool, QueueSettings, Rate,
    Report, Request, STEP, State, codec, session_hash,
};

use crate::naive::{CREDIT_MAX, Costs, Each, Naive, Sticky, Wanted, Whose};
use crate::naive_health::{Settings, Stage};

#[derive(Clone, Debug)]
enum Command {
    Add(Vec<u8>, Option<u16>),
    Set(Vec<(Vec<u8>, u16)>),
    Remove(Vec<u8>),
    Weights(Vec<(Vec<u8>, u16)>),
    State(Vec<u8>, State),
    Policy(Algorithm),
    Seed(u64),
    Pick(Wanted),
    Peek(Wanted),
    SaveAndLoad,
    /// Clears so many things at most, by version 2 of the rules.
    Tick(Millis, usize),
    Raise,
    Epoch(u64),
    /// Of the leases that are open, the one at this place, or one that is not open.
    Done(usize, Report),
    Renew(usize, Millis),
    Release(Vec<u8>),
    Limit(Option<Vec<u8>>, Limits),
    Report(Vec<u8>, Report),
    Each(Limits),
    Cost(Whose, Vec<(Vec<u8>, Option<Rate>)>),
    /// As [`Command::Done`], with what it really cost.
    Settle(usize, Costs),
    Left(Vec<u8>, Vec<u8>, u64),
    When(Costs),
    Health(HealthSettings),
    PickForSession(Wanted, Sticky),
    PeekForSession(Wanted, Vec<u8>),
    Forget(Vec<u8>),
    Queue(QueueSettings),
    Balance(u16),
}

/// One of so many names, each of its own length.
fn name(names: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..names).prop_map(|i| {
        let mut name = format!("{i}:").into_bytes();
        name.resize(name.len() + i % 31, 0xfe);
        name
    })
}

fn weight() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => 1u16..=5,
        2 => 1u16..=100,
        1 => any::<u16>(),
        1 => select(vec![0, 1, 65534, 65535]),
    ]
}

fn pairs(names: usize, most: usize) -> impl Strategy<Value = Vec<(Vec<u8>, u16)>> {
    let unique = |list: Vec<(Vec<u8>, u16)>| {
        let mut seen: Vec<(Vec<u8>, u16)> = vec![];
        for (name, weight) in list {
            if seen.iter().all(|(n, _)| *n != name) {
                seen.push((name, weight));
            }
        }
        seen
    };
    prop::collection::vec((name(names), weight()), 1..=most).prop_map(unique)
}

/// The algorithms that do not go by latencies.
fn plain() -> Vec<Algorithm> {
    let all = ALGORITHMS.into_iter();
    all.filter(|a| a.name() != "ewma").collect()
}

/// Those of them that can be a policy.
fn policies() -> Vec<Algorithm> {
    let all = plain().into_iter();
    all.filter(|a| !a.goes_by_item()).collect()
}

fn by_latency() -> Option<Algorithm> {
    Algorithm::by_name(b"ewma")
}

fn wanted(names: usize) -> impl Strategy<Value = Wanted> {
    let exclude = prop_oneof![
        3 => Just(vec![]),
        1 => prop::collection::vec(name(names), 1..=5),
    ];
    let algorithm = prop_oneof![
        1 => Just(None),
        3 => select(plain()).prop_map(Some),
    ];
    (
        algorithm,
        prop_oneof![1usize..=3, 1usize..=60],
        any::<bool>(),
        exclude,
        prop::option::of((1u64..300, prop::option::of(name(4)))),
        name(40),
    )
        .prop_map(
            |(algorithm, count, distinct, exclude, lease, item)| Wanted {
                algorithm,
                item,
                count,
                distinct,
                exclude,
                lease,
                costs: vec![],
            },
        )
}

/// One more than a pool can limit.
const COSTS: [&[u8]; 5] = [b"tokens", b"chars", b"images", b"t", b"requests"];

fn cost() -> impl Strategy<Value = Vec<u8>> {
    select(COSTS.to_vec()).prop_map(<[u8]>::to_vec)
}

/// Each named once.
fn costs() -> impl Strategy<Value = Costs> {
    let amount = prop_oneof![1 => Just(0u64), 6 => 1u64..8, 1 => 8u64..30];
    prop::collection::btree_map(cost(), amount, 1..3).prop_map(|costs| costs.into_iter().collect())
}

fn cost_limits() -> impl Strategy<Value = Vec<(Vec<u8>, Option<Rate>)>> {
    let rate = (1u64..20, 1u64..50, 1u64..9).prop_map(|(picks, millis, burst)| Rate {
        picks,
        millis,
        burst,
    });
    let rate = prop_oneof![1 => Just(None), 3 => rate.prop_map(Some)];
    prop::collection::btree_map(cost(), rate, 1..4).prop_map(|costs| costs.into_iter().collect())
}

fn cost_command(names: usize) -> impl Strategy<Value = Command> {
    let whose = prop_oneof![
        3 => name(names).prop_map(Whose::Member),
        1 => Just(Whose::Pool),
        2 => Just(Whose::Each),
    ];
    prop_oneof![
        9 => (wanted(names), costs()).prop_map(|(wanted, costs)| Command::Pick(Wanted { costs, ..wanted })),
        3 => (whose, cost_limits()).prop_map(|(whose, costs)| Command::Cost(whose, costs)),
        1 => limits().prop_map(|limits| Command::Each(Limits { tier: None, ..limits })),
        4 => (0usize..8, costs()).prop_map(|(at, costs)| Command::Settle(at, costs)),
        1 => (name(names), cost(), 0u64..9).prop_map(|(n, cost, left)| Command::Left(n, cost, left)),
        2 => costs().prop_map(Command::When),
    ]
}

fn one(wanted: Wanted) -> Wanted {
    let (count, distinct) = (1, false);
    Wanted {
        count,
        distinct,
        ..wanted
    }
}

fn sticky() -> impl Strategy<Value = Sticky> {
    (name(5), 1u64..400, any::<bool>()).prop_map(|(session, span, is_strict)| Sticky {
        session,
        span,
        is_strict,
    })
}

fn session_command(names: usize) -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => (wanted(names), sticky()).prop_map(|(w, s)| Command::PickForSession(one(w), s)),
        2 => (wanted(names), sticky(), costs())
            .prop_map(|(w, s, costs)| Command::PickForSession(Wanted { costs, ..one(w) }, s)),
        2 => (wanted(names), name(5))
            .prop_map(|(w, s)| Command::PeekForSession(Wanted { lease: None, ..one(w) }, s)),
        1 => name(5).prop_map(Command::Forget),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let rate = (1u64..20, 1u64..200, 1u64..5).prop_map(|(picks, millis, burst)| Rate {
        picks,
        millis,
        burst,
    });
    let rate = prop_oneof![1 => Just(None), 3 => rate.prop_map(Some)];
    (
        prop::option::of(0u32..6),
        prop::option::of(rate),
        prop::option::of(0u8..4),
    )
        .prop_map(|(max, rate, tier)| Limits { max, rate, tier })
}

fn outcome() -> impl Strategy<Value = Option<Outcome>> {
    select(vec![
        None,
        Some(Outcome::Ok),
        Some(Outcome::Ok),
        Some(Outcome::Fail),
    ])
}

fn report() -> impl Strategy<Value = Report> {
    let latency = prop_oneof![6 => 0u64..1_000_000, 1 => Just(1 << 50)];
    (outcome(), prop::option::of(latency)).prop_map(|(outcome, latency)| Report {
        outcome,
        latency,
        ..Report::default()
    })
}

/// With all that there is.
fn whole_report() -> impl Strategy<Value = Report> {
    let load = prop::option::of(prop_oneof![6 => 0u32..1_500_000, 1 => Just(LOAD_MAX)]);
    let cool = prop::option::weighted(0.1, 1u64..300);
    (report(), load, cool).prop_map(|(report, load, cool)| Report {
        load,
        cool,
        ..report
    })
}

fn health() -> impl Strategy<Value = HealthSettings> {
    let judging = (
        select(vec![0u32, 1, 2, 3]),
        select(vec![0u8, 30, 100]),
        1u32..4,
    );
    let times = (select(vec![30u64, 500]), select(vec![1u64, 50, 200]));
    let weights = (select(vec![0u64, 3, 300]), select(vec![0u64, 20, 100]));
    (judging, times, select(vec![0u8, 50, 100]), weights).prop_map(
        |((fails, failrate, min), (window, eject), max_eject, (slow_start, adapt))| {
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
        },
    )
}

fn health_command(names: usize) -> impl Strategy<Value = Command> {
    let by_latency = |wanted: Wanted| Wanted {
        algorithm: by_latency(),
        lease: wanted.lease.or(Some((100, None))),
        ..wanted
    };
    prop_oneof![
        4 => wanted(names).prop_map(move |wanted| Command::Pick(by_latency(wanted))),
        1 => wanted(names).prop_map(move |wanted| Command::Peek(by_latency(wanted))),
        1 => Just(Command::Policy(Algorithm::by_name(b"ewma").expect("it is there"))),
        6 => (name(names), whole_report()).prop_map(|(name, report)| Command::Report(name, report)),
        8 => (0usize..8, whole_report()).prop_map(|(at, report)| Command::Done(at, report)),
        1 => health().prop_map(Command::Health),
        8 => (prop_oneof![4 => 1u64..50, 2 => 50u64..600, 1 => Just(12_000u64)], budget())
            .prop_map(|(millis, budget)| Command::Tick(millis, budget)),
    ]
}

/// The naive pool clears health and latencies at once.
fn cleared(command: Command) -> Command {
    match command {
        Command::Tick(millis, _) => Command::Tick(millis, usize::MAX),
        other => other,
    }
}

/// Commands that are about health, among others.
fn health_commands() -> impl Strategy<Value = Vec<Command>> {
    let commands = select(vec![3usize, 5, 12, 70]).prop_flat_map(|n| {
        let one = prop_oneof![4 => command(n), 6 => health_command(n), 1 => cost_command(n)];
        prop::collection::vec(one, 1..120)
    });
    (health(), commands).prop_map(|(settings, mut commands)| {
        commands.insert(0, Command::Health(settings));
        commands
    })
}

/// Commands of all kinds.
fn all_commands() -> impl Strategy<Value = Vec<Command>> {
    prop_oneof![commands(), health_commands()]
}

fn command(names: usize) -> impl Strategy<Value = Command> {
    let states = State::ALL.map(|(state, _)| state).to_vec();
    prop_oneof![
        6 => (name(names), prop::option::of(weight())).prop_map(|(n, w)| Command::Add(n, w)),
        1 => pairs(names, 2 * names).prop_map(Command::Set),
        3 => name(names).prop_map(Command::Remove),
        2 => pairs(names, 3).prop_map(Command::Weights),
        2 => (name(names), select(states)).prop_map(|(n, s)| Command::State(n, s)),
        1 => select(policies()).prop_map(Command::Policy),
        1 => any::<u64>().prop_map(Command::Seed),
        12 => wanted(names).prop_map(Command::Pick),
        3 => wanted(names).prop_map(|wanted| Command::Peek(Wanted { lease: None, ..wanted })),
        1 => Just(Command::SaveAndLoad),
        3 => (prop_oneof![1 => Just(0u64), 4 => 1u64..50, 1 => 50u64..2000], budget())
            .prop_map(|(millis, budget)| Command::Tick(millis, budget)),
        1 => Just(Command::Raise),
        1 => any::<u64>().prop_map(Command::Epoch),
        4 => (0usize..8, report()).prop_map(|(at, report)| Command::Done(at, report)),
        1 => (0usize..8, 1u64..300).prop_map(|(at, span)| Command::Renew(at, span)),
        1 => name(4).prop_map(Command::Release),
        1 => (0u32..3, select(Order::ALL.to_vec()))
            .prop_map(|(max, order)| Command::Queue(QueueSettings { max, order })),
        1 => select(vec![0u16, 101, 125, 300, 10_000]).prop_map(Command::Balance),
        2 => (wanted(names), 20u64..500).prop_map(|(wanted, span)| Command::Pick(Wanted {
            algorithm: Some(Algorithm::HASH),
            lease: Some((span, None)),
            ..wanted
        })),
        3 => (prop::option::weighted(0.8, name(names)), limits()).prop_map(|(n, l)| Command::Limit(n, l)),
        10 => session_command(names),
    ]
}

/// Of the things that a tick clears.
fn budget() -> impl Strategy<Value = usize> {
    prop_oneof![2 => 1usize..4, 1 => Just(1000)]
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    // Few, so that each gets much; more than eight, so that there are trees; more than 64, so that they are high.
    select(vec![3usize, 12, 100]).prop_flat_map(|n| {
        let one = prop_oneof![4 => command(n), 1 => cost_command(n)];
        prop::collection::vec(one, 1..120)
    })
}

fn borrowed(list: &[(Vec<u8>, u16)]) -> Vec<(&[u8], u16)> {
    list.iter()
        .map(|(name, weight)| (&name[..], *weight))
        .collect()
}

fn named(costs: &Costs) -> Vec<Cost<'_>> {
    costs
        .iter()
        .map(|(name, amount)| (&name[..], *amount))
        .collect()
}

/// What the pool answers, as text, so that answers of all kinds compare.
fn step(pool: &mut Pool, command: &Command) -> String {
    let request = |wanted: &Wanted, run: &mut dyn FnMut(&Request) -> String| {
        run(&Request {
            algorithm: wanted.algorithm,
            item: (wanted.algorithm == Some(Algorithm::HASH)).then_some(&wanted.item[..]),
            count: wanted.count,
            distinct: wanted.distinct,
            exclude: wanted.exclude.iter().map(|name| &name[..]).collect(),
            terms: wanted.lease.as_ref().map(|(span, owner)| LeaseTerms {
                span: *span,
                owner: owner.as_deref(),
            }),
            costs: named(&wanted.costs),
            sticky: None,
        })
    };
    let names = |pool: &Pool, slots: redis_lb::lb::Slots| -> Vec<Vec<u8>> {
        slots
            .into_iter()
            .map(|slot| pool.name(slot).to_vec())
            .collect()
    };
    match command {
        Command::Add(name, weight) => format!("{:?}", pool.add(name, *weight)),
        Command::Set(list) => format!("{:?}", pool.set(&borrowed(list))),
        Command::Remove(name) => format!("{}", pool.remove(name)),
        Command::Weights(list) => format!("{:?}", pool.set_weights(&borrowed(list)).ok()),
        Command::State(name, state) => format!("{:?}", pool.set_state(name, *state)),
        Command::Policy(policy) => format!("{}", pool.set_policy(*policy)),
        Command::Seed(seed) => {
            pool.seed(*seed);
            String::new()
        }
        Command::Pick(wanted) => request(wanted, &mut |request| {
            let picked = pool.picks(request);
            format!("{:?}", (names(pool, picked.slots), picked.lease))
        }),
        Command::Peek(wanted) => request(wanted, &mut |request| {
            let before = codec::encode(pool);
            let slots = pool.peek(request);
            assert_eq!(codec::encode(pool), before, "a look ahead left a trace");
            format!("{:?}", slots.map(|slots| names(pool, slots)))
        }),
        Command::PickForSession(wanted, sticky) => request(wanted, &mut |request| {
            let sticky = redis_lb::lb::Sticky {
                session: session_hash(&sticky.session),
                span: sticky.span,
                is_strict: sticky.is_strict,
            };
            let is_any = pool.has_eligible_for_session(&request.exclude, &sticky);
            let picked = pool.picks(&Request {
                sticky: Some(sticky),
                ..request.clone()
            });
            let is_found = !picked.slots.is_empty();
            assert!(if request.costs.is_empty() {
                is_any == is_found
            } else {
                is_any || !is_found
            });
            format!("{:?}", (names(pool, picked.slots), picked.lease))
        }),
        Command::PeekForSession(wanted, session) => request(wanted, &mut |request| {
            let before = codec::encode(pool);
            let sticky = redis_lb::lb::Sticky {
                session: session_hash(session),
                span: 0,
                is_strict: false,
            };
            let slots = pool.peek(&Request {
                sticky: Some(sticky),
                ..request.clone()
            });
            assert_eq!(codec::encode(pool), before, "a look ahead left a trace");
            format!("{:?}", slots.map(|slots| names(pool, slots)))
        }),
        Command::Forget(session) => format!("{}", pool.forget_session(session_hash(session))),
        Command::SaveAndLoad => String::new(),
        Command::Tick(millis, budget) => {
            format!("{}", pool.tick_within(pool.clock() + millis, *budget))
        }
        Command::Raise => format!("{}", pool.raise_rules(2)),
        Command::Epoch(epoch) => {
            pool.open_epoch(*epoch);
            String::new()
        }
        Command::Done(at, report) => {
            let id = open_lease(pool, *at);
            format!("{id:?} {:?}", pool.done(id, report).map(effects))
        }
        Command::Renew(at, span) => {
            let id = open_lease(pool, *at);
            format!("{id:?} {}", pool.renew(id, *span))
        }
        Command::Release(owner) => format!("{}", pool.release(owner)),
        Command::Limit(name, limits) => format!("{}", pool.set_limits(name.as_deref(), limits)),
        Command::Report(name, report) => format!("{:?}", pool.report(name, report).map(effects)),
        Command::Health(settings) => format!("{}", pool.set_health(*settings)),
        Command::Each(limits) => format!("{}", pool.set_limits_of_each(limits)),
        Command::Cost(whose, costs) => {
            let costs: Vec<_> = costs
                .iter()
                .map(|(name, rate)| (&name[..], *rate))
                .collect();
            let rated = costs.iter().filter(|(_, rate)| rate.is_some());
            if !pool.has_room_for_costs(rated.map(|(name, _)| *name)) {
                return "full".into();
            }
            let limited = match whose {
                Whose::Pool => Limited::Pool,
                Whose::Each => Limited::Each,
                Whose::Member(name) => Limited::Backend(name),
            };
            format!("{}", pool.set_costs(limited, &costs))
        }
        Command::Settle(at, costs) => {
            let id = open_lease(pool, *at);
            pool.settle(id, &named(costs));
            format!(
                "{id:?} {:?}",
                pool.done(id, &Report::default()).map(effects)
            )
        }
        Command::Left(name, cost, left) => format!("{}", pool.lower(name, (cost, *left))),
        Command::When(costs) => format!("{:?}", pool.availability_for(&named(costs))),
        Command::Queue(settings) => format!("{}", pool.set_queue(*settings)),
        Command::Balance(percent) => format!("{}", pool.set_balance(*percent)),
    }
}

/// What followed from a report. Whether it was evidence shows only where there is health.
fn effects(effects: Effects) -> [bool; 3] {
    [effects.ejected, effects.back, effects.cools]
}

/// The lease at that place among those that are listed, the oldest first; one that is not there where there are not so many.
fn open_lease(pool: &Pool, at: usize) -> LeaseId {
    let leases = pool.list_leases(None, None, at + 1);
    leases.get(at).map_or(CLOSED, |lease| lease.id)
}

const CLOSED: LeaseId = LeaseId {
    epoch: 1,
    number: 1 << 40,
};

fn naive_open_lease(naive: &Naive, at: usize) -> LeaseId {
    naive.listed().get(at).map_or(CLOSED, |lease| lease.id)
}

fn naive_step(naive: &mut Naive, command: &Command) -> String {
    match command {
        Command::Add(name, weight) => format!("{:?}", naive.add(name, *weight)),
        Command::Set(list) => format!("{:?}", naive.set(list)),
        Command::Remove(name) => format!("{}", naive.remove(name)),
        Command::Weights(list) => {
            let all = list.iter().all(|(name, _)| naive.find(name).is_some());
            let changed = all.then(|| {
                (list.iter())
                    .filter(|(name, weight)| naive.reweight(name, *weight))
                    .count()
            });
            format!("{changed:?}")
        }
        Command::State(name, state) => format!("{:?}", naive.set_state(name, *state)),
        Command::Policy(policy) => format!("{}", naive.set_policy(*policy)),
        Command::Seed(seed) => {
            naive.seed(*seed);
            String::new()
        }
        Command::Pick(wanted) => format!("{:?}", naive.picks(wanted)),
        Command::Peek(wanted) => {
            let algorithm = wanted.algorithm.unwrap_or(naive.policy);
            let lease = (algorithm.name() == "ewma").then_some((1, None));
            let wanted = Wanted {
                lease,
                ..wanted.clone()
            };
            let ahead = || naive.clone().picks(&wanted).0;
            format!("{:?}", (!algorithm.is_by_chance()).then(ahead))
        }
        Command::PickForSession(wanted, sticky) => {
            format!("{:?}", naive.pick_for_session(wanted, sticky))
        }
        Command::PeekForSession(wanted, session) => {
            let algorithm = wanted.algorithm.unwrap_or(naive.policy);
            let lease = (algorithm.name() == "ewma").then_some((1, None));
            let wanted = Wanted {
                lease,
                ..wanted.clone()
            };
            let sticky = Sticky {
                session: session.clone(),
                span: 1,
                is_strict: false,
            };
            let ahead = || naive.clone().pick_for_session(&wanted, &sticky).0;
            format!("{:?}", (!algorithm.is_by_chance()).then(ahead))
        }
        Command::Forget(session) => format!("{}", naive.forget_session(session)),
        Command::SaveAndLoad => String::new(),
        Command::Tick(millis, usize::MAX) => format!("{}", naive.pass(naive.clock + millis)),
        Command::Tick(millis, budget) => {
            format!("{}", naive.tick(naive.clock + millis, *budget))
        }
        Command::Raise => format!("{}", std::mem::replace(&mut naive.rules, 2) == 1),
        Command::Epoch(epoch) => {
            naive.open_epoch(*epoch);
            String::new()
        }
        Command::Done(at, report) => {
            let id = naive_open_lease(naive, *at);
            format!("{id:?} {:?}", naive.done(id, report).map(naive_effects))
        }
        Command::Renew(at, span) => {
            let id = naive_open_lease(naive, *at);
            format!("{id:?} {}", naive.renew(id, *span))
        }
        Command::Release(owner) => format!("{}", naive.release(owner)),
        Command::Limit(name, limits) => {
            format!("{}", naive.set_limits(name.as_deref(), limits))
        }
        Command::Report(name, report) => {
            format!("{:?}", naive.report(name, report).map(naive_effects))
        }
        Command::Health(settings) => format!("{}", naive.set_health(settings)),
        Command::Each(limits) => format!("{}", naive.set_each(limits)),
        Command::Cost(whose, costs) => {
            let mut known = naive.known_costs();
            let before = known.len();
            let rated = costs.iter().filter(|(_, rate)| rate.is_some());
            known.extend(rated.map(|(name, _)| name.clone()));
            if known.len() > 4 && known.len() > before {
                return "full".into();
            }
            let mut changed = false;
            for (name, rate) in costs {
                changed |= naive.set_cost(whose, name, *rate);
            }
            format!("{changed}")
        }
        Command::Settle(at, costs) => {
            let id = naive_open_lease(naive, *at);
            naive.settle(id, costs);
            let done = naive.done(id, &Report::default());
            format!("{id:?} {:?}", done.map(naive_effects))
        }
        Command::Left(name, cost, left) => format!("{}", naive.lower(name, cost, *left)),
        Command::When(costs) => format!("{:?}", naive.availability_for(costs)),
        Command::Balance(percent) => {
            let before = std::mem::replace(&mut naive.balance, *percent);
            format!("{}", before != *percent)
        }
        Command::Queue(settings) => {
            let before = std::mem::replace(&mut naive.queue, *settings);
            format!("{}", before != *settings)
        }
    }
}

fn naive_effects([_, ejected, back, cools]: [bool; 4]) -> [bool; 3] {
    [ejected, back, cools]
}

fn same_health(pool: &Pool, naive: &Naive) {
    let all = pool.slots().zip(&naive.health.backends).enumerate();
    for (at, ((slot, _), backend)) in all {
        let health = pool.health_of(slot);
        let word = match backend.outage.as_ref().map(|outage| outage.stage) {
            Some(Stage::Out(_)) => HealthWord::Ejected,
            Some(_) => HealthWord::Probing,
            None if backend.cool > 0 => HealthWord::Cooling,
            None if backend.tenths(naive.clock) < 10 => HealthWord::Starting,
            None => HealthWord::Ok,
        };
        assert_eq!(health.word, word);
        assert_eq!(
            health.back,
            backend.wakes().map(|wakes| wakes - naive.clock)
        );
        assert_eq!(health.row as usize, backend.row());
        assert_eq!(health.ejections, backend.ejections);
        assert_eq!(health.load.map(u128::from), backend.load);
        if let Some(micros) = pool.latency(slot) {
            assert_eq!(micros, naive.health.level(at) / 16);
        }
    }
    let (ejected, cooling, held) = pool.outages();
    let backends = naive.health.backends.iter();
    let out = backends.clone().filter(|b| b.outage.is_some()).count();
    let cools = backends
        .filter(|b| b.outage.is_none() && b.cool > 0)
        .count();
    assert_eq!((ejected, cooling, held), (out, cools, naive.health.held));
}

fn reloaded(pool: &Pool) -> Pool {
    let bytes = codec::encode(pool);
    match codec::decode(&bytes) {
        Ok(codec::Stored::Pool(pool)) => pool,
        // A pool without backends and settings is a missing key.
        Err(_) if pool.is_void() => Pool::new(),
        other => panic!("{other:?}"),
    }
}

fn same_state(pool: &Pool, naive: &Naive) {
    let members: Vec<_> = (pool.slots())
        .map(|(slot, b)| {
            let ended = pool.tally(slot).map_or([0; 4], |tally| {
                [tally.done, tally.failed, tally.expired, tally.latency]
            });
            (
                b.name(),
                (b.weight(), b.state(), b.tier(), b.picks()),
                i128::from(pool.credit(slot)),
                (pool.leases_on(slot), pool.sessions_on(slot), ended),
            )
        })
        .collect();
    let naive_members: Vec<_> = (naive.members.iter())
        .map(|m| {
            (
                &m.name[..],
                (m.weight, m.state, m.tier, m.picks),
                m.credit,
                (naive.leases_on(m), naive.sessions_on(m), m.ended),
            )
        })
        .collect();
    assert_eq!(members, naive_members);
    let listed: Vec<_> = (pool.list_leases(None, None, usize::MAX).into_iter())
        .map(|l| {
            (
                l.id,
                pool.name(l.slot.unwrap()),
                l.owner,
                l.granted,
                l.deadline,
            )
        })
        .collect();
    let leases: Vec<_> = (naive.listed().into_iter())
        .map(|l| (l.id, &l.name[..], l.owner.as_deref(), l.granted, l.deadline))
        .collect();
    assert_eq!(listed, leases);
    assert_eq!(
        (pool.clock(), pool.availability()),
        (naive.clock, naive.availability())
    );
    let available = naive.available();
    let running = available.iter().map(|at| naive.running_weight(*at));
    let weights = running.sum::<u64>() / naive.unit();
    assert_eq!(
        (pool.len(), pool.available()),
        (naive.members.len(), available.len())
    );
    assert_eq!(
        (pool.total_weight(), pool.total_picks()),
        (weights, naive.picks)
    );
    assert_eq!(
        pool.is_void(),
        naive.members.is_empty()
            && naive.policy == Algorithm::WRR
            && !naive.limit.is_set()
            && !naive.each.is_set()
            && naive.health.settings == Settings::default()
            && naive.queue == QueueSettings::default()
            && naive.balance == 0
    );
    same_health(pool, naive);
    same_costs(pool, naive);
}

fn same_costs(pool: &Pool, naive: &Naive) {
    let shown = |slot| {
        let costs = pool.costs(slot);
        let mut costs: Vec<_> = costs
            .map(|cost| (cost.name, cost.rate, cost.left, !cost.inherits))
            .collect();
        costs.sort_unstable_by_key(|(name, ..)| *name);
        (
            costs,
            pool.limits(slot).max.unwrap_or(0),
            pool.own_limits(slot),
        )
    };
    let members = naive.members.iter().map(|member| &member.limit);
    let slots = pool.slots().map(|(slot, _)| Some(slot));
    for (slot, limit) in slots.zip(members).chain([(None, &naive.limit)]) {
        let costs = limit.costs.iter().map(|(name, bucket)| {
            let left = bucket.left(naive.clock);
            (&name[..], bucket.rate, left, bucket.is_own)
        });
        let (shown, max, own) = shown(slot);
        assert_eq!(shown, costs.collect::<Vec<_>>());
        assert_eq!(max, limit.max);
        assert_eq!((own.max.unwrap_or(0), own.rate.flatten()), limit.own);
    }
    let Each { max, rate, costs } = &naive.each;
    let each = pool.limits_of_each();
    assert_eq!((each.max.unwrap_or(0), each.rate.flatten()), (*max, *rate));
    assert_eq!(
        pool.costs_of_each().collect::<BTreeMap<_, _>>(),
        costs
            .iter()
            .map(|(name, rate)| (&name[..], *rate))
            .collect()
    );
}

/// How many sequences each property tries.
fn cases() -> u32 {
    match std::env::var_os("REDIS_LB_LONG") {
        Some(_) => 60_000,
        None => 800,
    }
}

/// At the bounds: all at the same one, or at either.
fn credits() -> impl Strategy<Value = Vec<(bool, i64)>> {
    let inward = prop_oneof![Just(10i64), Just(200_000)];
    (inward, prop::option::of(any::<bool>())).prop_flat_map(|(inward, side)| {
        let side = side.map_or(any::<bool>().boxed(), |side| Just(side).boxed());
        prop::collection::vec((side, 0..inward), 20)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        // What fails gets a test of its own, not a file of seeds.
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    #[test]
    fn the_pool_answers_what_the_naive_one_answers(commands in commands()) {
        let (mut pool, mut naive) = (Pool::new(), Naive::new());
        for command in &commands {
            if pool.is_void() {
                // The server deletes such a pool.
                (pool, naive) = (Pool::new(), Naive::new());
            }
            if let Command::SaveAndLoad = command {
                pool = reloaded(&pool);
            }
            prop_assert_eq!(step(&mut pool, command), naive_step(&mut naive, command), "{:?}", command);
            pool.check();
            same_state(&pool, &naive);
        }
    }

    #[test]
    fn the_pool_follows_its_backends_as_the_naive_one_does(commands in health_commands()) {
        let (mut pool, mut naive) = (Pool::new(), Naive::new());
        for command in commands.into_iter().map(cleared) {
            let command = &command;
            if pool.is_void() {
                (pool, naive) = (Pool::new(), Naive::new());
            }
            if let Command::SaveAndLoad = command {
                pool = reloaded(&pool);
            }
            prop_assert_eq!(step(&mut pool, command), naive_step(&mut naive, command), "{:?}", command);
            pool.check();
            same_state(&pool, &naive);
        }
    }

    /// A full copy taken in the middle, whose layout differs, changes no later pick and no later byte.
    #[test]
    fn a_copy_goes_on_like_the_original(before in all_commands(), after in all_commands()) {
        let mut original = Pool::new();
        for command in &before {
            step(&mut original, command);
        }
        if original.is_void() {
            return Ok(());
        }
        let mut copy = reloaded(&original);
        prop_assert_eq!(codec::encode(&copy), codec::encode(&original));
        for command in &after {
            prop_assert_eq!(step(&mut copy, command), step(&mut original, command), "{:?}", command);
            prop_assert_eq!(codec::encode(&copy), codec::encode(&original));
        }
        copy.check();
    }

    /// Whoever sleeps as long as told picks, whenever the primary last moved the pool's clock; ten milliseconds less would
    /// not do.
    #[test]
    fn a_pick_succeeds_when_the_pool_said_it_would(
        commands in all_commands(),
        starts in 0u64..10,
        lags in prop::collection::vec(0u64..30, 1..4),
    ) {
        let mut pool = Pool::new();
        pool.tick(1_000 + starts);
        for command in &commands {
            step(&mut pool, command);
            let millis = match pool.availability() {
                Availability::Limited(millis) => millis,
                Availability::Cooling(millis) | Availability::Ejected(millis) => millis,
                _ => continue,
            };
            if pool.is_any_over() {
                continue;
            }
            let mut early = pool.clone();
            prop_assert!(!early.tick((pool.clock() + millis).saturating_sub(STEP)) || early.available() == 0);
            for lag in &lags {
                // The time may have gone on since the clock was moved; a look does not move it.
                let mut pool = pool.clone();
                let now = pool.clock() + lag + millis;
                if now / STEP > pool.clock() / STEP {
                    pool.tick(now);
                }
                prop_assert!(pool.pick(Some(Algorithm::WRR)).is_some(), "{} {} {:?}", lag, millis, pool);
            }
        }
    }

    /// Until nothing is over: whatever the ticks between were, and whatever each cleared.
    #[test]
    fn ticks_leave_the_same_state_however_they_are_cut(
        commands in all_commands(),
        span in prop_oneof![3 => 0u64..3000, 1 => 3000u64..25_000],
        cuts in prop::collection::vec((0u64..3000, budget()), 0..6),
    ) {
        let mut pool = Pool::new();
        pool.raise_rules(2);
        for command in &commands {
            step(&mut pool, command);
        }
        let end = pool.clock() + span;
        let mut cut = pool.clone();
        for (millis, budget) in cuts {
            let clock = cut.clock() + millis;
            cut.tick_within(clock.min(end), budget);
        }
        while pool.tick(end) {}
        while cut.tick_within(end, 3) {}
        prop_assert!(!pool.is_any_over());
        prop_assert_eq!(codec::encode(&pool), codec::encode(&cut));
    }

    /// Credits that only a crafted payload has: they move together, in every form alike.
    #[test]
    fn credits_at_the_bounds_move_together(
        list in pairs(20, 20),
        credits in credits(),
        commands in prop::collection::vec(command(20), 1..60),
    ) {
        let (mut pool, mut naive) = (Pool::new(), Naive::new());
        pool.set(&borrowed(&list));
        naive.set(&list);
        for (member, (is_high, inward)) in naive.members.iter_mut().zip(credits) {
            let credit = CREDIT_MAX as i64 - inward;
            member.credit = i128::from(if is_high { credit } else { -credit });
            pool.set_credit(&member.name, member.credit as i64);
        }
        for command in &commands {
            prop_assert_eq!(step(&mut pool, command), naive_step(&mut naive, command), "{:?}", command);
            pool.check();
            same_state(&pool, &naive);
        }
    }
}
