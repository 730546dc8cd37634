//! Damaged payloads: the codec takes none for a pool that is not one in every respect, whatever the damage.

#[path = "fuzz/sound.rs"]
mod sound;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rand::rngs::Xoshiro256PlusPlus as Random;
use rand::{RngExt, SeedableRng};
use redis_lb::lb::{
    ALGORITHMS, HealthSettings, LeaseTerms, Limited, Limits, NAME_MAX, Order, Outcome, POLICIES,
    Pool, QueueSettings, Rate, Report, Request, State, Sticky, TIERS_MAX, WAITING_MAX, codec,
};

/// Numbers at which something may end, as the codec writes them.
const EXTREMES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xffff,
    0x1_0000,
    1 << 24,
    (1 << 24) + 1,
    u32::MAX as u64,
    (1 << 61) - 1, // the lowest credit, zigzag
    1 << 61,       // the highest
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

#[test]
fn no_damaged_payload_does_harm() {
    let mutations = match std::env::var_os("REDIS_LB_LONG") {
        Some(_) => 4_000_000,
        None => 60_000,
    };
    let random = &mut Random::seed_from_u64(5);
    let mut sound: Vec<Vec<u8>> = vec![];
    let mut loaded = 0;
    for mutation in 0..mutations {
        if mutation % 2_000 == 0 {
            sound = (0..40).map(|_| codec::encode(&pool(random))).collect();
        }
        let mut payload = any(random, &sound).clone();
        for _ in 0..random.random_range(1..=3) {
            damage(random, &mut payload, &sound);
        }
        match catch_unwind(AssertUnwindSafe(|| sound::holds_a_pool(&payload))) {
            Ok(is_pool) => loaded += usize::from(is_pool),
            Err(_) => panic!("by b\"{}\"", payload.escape_ascii()),
        }
    }
    // Else they are so damaged that nothing behind the first field is tried.
    assert!(
        loaded > mutations / 10,
        "{loaded} of {mutations} held a pool"
    );
}

/// The most memory that few bytes can ask for: the shortest names, and one backend more than there was room for.
#[test]
fn many_backends_take_memory_in_proportion() {
    for backends in [1, 5, 9, 17, 33, 65, 129, 257, 513, 1025, 4097, 32_769] {
        let mut pool = Pool::new();
        for i in 0..backends as u16 {
            let name = i.to_be_bytes();
            pool.add(&name[usize::from(i < 256)..], None);
        }
        assert!(sound::holds_a_pool(&codec::encode(&pool)));
    }
}

/// The most memory that few bytes can ask for by leases: each is of another backend that is gone, or of another owner, and marked.
#[test]
fn many_marks_take_memory_in_proportion() {
    for leases in [1u32, 7, 100, 127, 1024, 1025, 2049, 5000] {
        let (mut gone, mut owned) = (Pool::new(), Pool::new());
        for pool in [&mut gone, &mut owned] {
            pool.raise_rules(2);
            pool.add(b"a", None);
            pool.open_epoch(0);
        }
        for i in 0..leases {
            gone.add(b"b", Some(65535));
            grant(&mut gone, None);
            gone.remove(b"b");
            let owner = &i.to_be_bytes()[2..];
            grant(&mut owned, Some(owner));
            owned.release(owner);
        }
        for pool in [gone, owned] {
            assert!(sound::holds_a_pool(&codec::encode(&pool)));
        }
    }
}

fn grant(pool: &mut Pool, owner: Option<&[u8]>) {
    pool.picks(&Request {
        count: 1,
        terms: Some(LeaseTerms { span: 1, owner }),
        ..Request::default()
    });
}

/// Marks that no pool has. Each differs in one thing from those of a pool that has them.
#[test]
fn wrong_marks_are_refused() {
    let mut pool = Pool::new();
    pool.raise_rules(2);
    pool.add(b"a", None);
    pool.add(b"b", None);
    pool.tick(100);
    pool.open_epoch(7);
    for _ in 0..2 {
        grant(&mut pool, Some(b"o"));
        grant(&mut pool, None);
    }
    pool.remove(b"a");
    pool.release(b"o");
    let sound = codec::encode(&pool);
    assert!(sound::holds_a_pool(&sound));
    // No overdue bucket; all leases of the gone backend; all of the owner. Each `b` and `a` has one of `o` and another one.
    let section = [128, 7, 0, 1, 2, 2, 1, b'o', 2];
    let begins = sound.len() - section.len();
    assert_eq!(sound[begins..], section);
    for wrong in [
        // The pool's bucket, which it does not have; one of `b`; one of nobody.
        &[1, 0, 1, 2, 2, 1, b'o', 2][..],
        &[1, 1, 1, 2, 2, 1, b'o', 2],
        &[1, 9, 1, 2, 2, 1, b'o', 2],
        // More leases than there are; fewer than all of a gone backend; none.
        &[0, 1, 3, 2, 1, b'o', 2],
        &[0, 1, 1, 2, 1, b'o', 2],
        &[0, 1, 0, 2, 1, b'o', 2],
        &[0, 1, 2, 2, 1, b'o', 3],
        &[0, 1, 2, 2, 1, b'o', 0],
        // Of a second gone backend; twice of the owner; of an owner without leases; of an unknown kind; without the first one.
        &[0, 1, 2, 1, 1, 2, 1, b'o', 2],
        &[0, 1, 2, 2, 1, b'o', 1, 2, 1, b'o', 2],
        &[0, 1, 2, 2, 1, b'p', 2],
        &[0, 1, 2, 3, 1, b'o', 2],
        &[0, 2, 1, b'o', 2],
        // Of a backend that is not there; cut off; with more behind.
        &[0, 1, 2, 0, 1, 1],
        &[0, 1, 2, 2, 1, b'o'],
        &[0, 1, 2, 2, 1, b'o', 2, 0],
    ] {
        let mut payload = sound[..begins].to_vec();
        payload.extend([128, wrong.len() as u8]);
        payload.extend(wrong);
        assert!(!sound::holds_a_pool(&payload), "{wrong:?}");
    }
    // Without the section, twice with it, and by version 1 of the rules.
    let twice = [&sound[..], &section].concat();
    let old = [&sound[..1], &[1], &sound[2..]].concat();
    for wrong in [&sound[..begins], &twice, &old] {
        assert!(!sound::holds_a_pool(wrong));
    }
}

/// Each backend is of one of all the tiers that there can be, and none of them is eligible.
#[test]
fn many_tiers_are_loaded_as_fast_as_one() {
    let loading = |tiers: u32| {
        let mut pool = Pool::new();
        for n in 0..20_000u32 {
            let name = n.to_be_bytes();
            pool.add(&name, Some(0));
            let limits = Limits {
                max: Some(1),
                tier: Some((n.min(tiers - 1)) as u8),
                ..Limits::default()
            };
            pool.set_limits(Some(&name), &limits);
        }
        let payload = codec::encode(&pool);
        let begun = Instant::now();
        assert!(matches!(
            codec::decode(&payload),
            Ok(codec::Stored::Pool(_))
        ));
        begun.elapsed()
    };
    let (one, many) = (loading(1), loading(TIERS_MAX as u32));
    // Sixteen lanes are not one; but to look at all backends for each of them takes a thousand times as long.
    assert!(many < 60 * one, "{many:?}, {one:?}");
}

/// A pool in the middle of its life.
fn pool(random: &mut Random) -> Pool {
    let mut pool = Pool::new();
    let most = *any(random, &[1, 2, 4, 4, 12, 40]);
    for i in 0..random.random_range(0..=most) {
        let mut name = format!("10.0.0.{i}").into_bytes();
        if random.random_ratio(1, 20) {
            name.resize(random.random_range(20..=512), 0xff);
        }
        let weight = *any(random, &[0, 1, 1, 2, 3, 5, 100, 65535]);
        pool.add(&name, Some(weight));
        pool.set_state(&name, any(random, &State::ALL).0);
    }
    pool.add(b"gone", None);
    pool.set_policy(*any(random, &POLICIES));
    for algorithm in ALGORITHMS {
        if random.random_bool(0.5) {
            pool.picks(&Request {
                algorithm: Some(algorithm),
                item: Some(&b"item"[..]).filter(|_| algorithm.goes_by_item()),
                count: random.random_range(1..300),
                distinct: false,
                exclude: vec![],
                terms: None,
                costs: vec![],
                sticky: None,
            });
        }
    }
    if random.random_bool(0.5) {
        limit(random, &mut pool);
    }
    if random.random_bool(0.3) {
        report(random, &mut pool);
    }
    if random.random_bool(0.2) {
        let max = *any(random, &[0, 1, 300, WAITING_MAX]);
        let order = *any(random, &Order::ALL);
        pool.set_queue(QueueSettings { max, order });
        pool.set_balance(*any(random, &[0, 101, 150, 10_000]));
    }
    if random.random_bool(0.4) {
        stick(random, &mut pool);
    }
    if random.random_bool(0.4) {
        cost(random, &mut pool);
    }
    pool.remove(b"gone");
    pool
}

/// Costs, and what holds for each backend.
fn cost(random: &mut Random, pool: &mut Pool) {
    let long = [b'c'; NAME_MAX];
    let costs: [&[u8]; 4] = [b"t", b"images", b"\0\r\n", &long];
    let names: Vec<Vec<u8>> = pool.backends().map(|b| b.name().to_vec()).collect();
    pool.tick(pool.clock() + random.random_range(1..100));
    for _ in 0..random.random_range(1..6) {
        let rate = Rate {
            picks: *any(random, &[1, 7, 1 << 40]),
            millis: *any(random, &[1, 1000, 1 << 40]),
            burst: *any(random, &[1, 30, 1 << 40]),
        };
        let rate = random.random_ratio(4, 5).then_some(rate);
        let name = any(random, &names);
        let limited = *any(
            random,
            &[Limited::Pool, Limited::Each, Limited::Backend(name)],
        );
        pool.set_costs(limited, &[(*any(random, &costs), rate)]);
        let limits = Limits {
            max: Some(random.random_range(0..4)),
            rate: Some(rate),
            tier: None,
        };
        if random.random_ratio(1, 3) {
            pool.set_limits_of_each(&limits);
        }
        pool.lower(name, (*any(random, &costs), *any(random, &[0, 5])));
        let span = *any(random, &[1, 100, 1 << 40]);
        let picked = pool.picks(&Request {
            count: 2,
            terms: Some(LeaseTerms { span, owner: None }),
            costs: vec![(*any(random, &costs), *any(random, &[0, 1, 9, 1 << 40]))],
            ..Request::default()
        });
        if let Some(lease) = picked.lease.filter(|_| random.random_bool(0.5)) {
            pool.settle(
                lease,
                &[(*any(random, &costs), *any(random, &[0, 99, 1 << 40]))],
            );
            pool.done(lease, &Report::default());
        }
    }
}

/// The most memory that few bytes can ask for by costs: buckets of short numbers, and leases that took something.
#[test]
fn many_costs_take_memory_in_proportion() {
    for backends in [1u16, 9, 65, 200, 3000] {
        for leases in [0, 1, 100, 1025, 5000] {
            let mut pool = Pool::new();
            pool.raise_rules(2);
            for i in 0..backends {
                let name = i.to_be_bytes();
                pool.add(&name[usize::from(i < 256)..], None);
            }
            let (picks, millis, burst) = (1, 1, 1);
            let rate = Some(Rate {
                picks,
                millis,
                burst,
            });
            pool.set_costs(
                Limited::Each,
                &[b"a", b"b", b"c", b"d"].map(|name| (&name[..], rate)),
            );
            for _ in 0..leases {
                pool.tick(pool.clock() + 1);
                pool.picks(&Request {
                    count: 1,
                    terms: Some(LeaseTerms {
                        span: 100_000,
                        owner: None,
                    }),
                    costs: vec![(b"a", 1)],
                    ..Request::default()
                });
            }
            assert!(sound::holds_a_pool(&codec::encode(&pool)));
        }
    }
}

/// Costs that no pool has. Each payload differs in one number from one that a pool has.
#[test]
fn wrong_costs_are_refused() {
    let mut pool = Pool::new();
    pool.raise_rules(2);
    pool.add(b"a", None);
    pool.tick(100);
    pool.open_epoch(7);
    let (picks, millis, burst) = (3, 5, 9);
    let rate = Some(Rate {
        picks,
        millis,
        burst,
    });
    let limits = Limits {
        max: Some(2),
        rate: Some(rate),
        tier: None,
    };
    pool.set_limits_of_each(&limits);
    pool.set_costs(Limited::Each, &[(b"x", rate)]);
    pool.set_costs(Limited::Pool, &[(b"y", rate)]);
    pool.picks(&Request {
        count: 1,
        terms: Some(LeaseTerms {
            span: 100,
            owner: None,
        }),
        costs: vec![(b"x", 4), (b"y", 0)],
        ..Request::default()
    });
    let sound = codec::encode(&pool);
    assert!(sound::holds_a_pool(&sound));
    // MAX, RATE, and that the backend has both of them from there.
    let each = [131, 6, 2, 1, 3, 5, 9, 3];
    // Two names; the rate of `x` for each; of the pool that of `y`, full; of the backend `x`, with 5 left; what the lease took.
    let costs = [
        132, 31, 1, 1, b'x', 1, 1, b'y', 0, 0, 1, 3, 5, 9, 0, 0, 0, 2, 3, 5, 9, 90, 100, 0, 17, 50,
        100, 0, 0, 4, 0, 0, 0,
    ];
    let begins = sound.len() - costs.len();
    assert_eq!(sound[begins..], costs);
    assert_eq!(sound[begins - each.len()..begins], each);
    let with = |at: usize, number: u8| {
        let mut payload = sound.clone();
        payload[at] = number;
        sound::holds_a_pool(&payload)
    };
    let (each, costs) = (begins - each.len(), begins);
    // Other numbers that a pool can have.
    for (at, number) in [
        (costs + 25, 51),
        (costs + 25, 88),
        (costs + 29, 5),
        (costs + 27, 1),
        (each + 7, 1),
    ] {
        assert!(with(at, number), "{at} {number}");
    }
    for (at, number) in [
        (each + 2, 0), // MAX of another number, or none
        (each + 2, 3),
        (each + 4, 4), // another rate than the backend has
        (each + 7, 4),
        (costs + 4, b'y'), // two of one name
        (costs + 2, 0),    // no name
        (costs + 11, 0),   // a rate of 0
        (costs + 17, 1),   // the pool has a bucket without a name, or none
        (costs + 17, 3),
        (costs + 21, 92),  // more than full
        (costs + 22, 101), // later than the clock
        (costs + 24, 1),   // an own rate, which is not there
        (costs + 24, 0),   // the backend has not what holds for each
        (costs + 27, 2),   // since a lease that was not granted yet
        (costs + 28, 1),   // a lease that is not there
        (costs + 29, 0),   // it took nothing
    ] {
        assert!(!with(at, number), "{at} {number}");
    }
}

/// Sessions. Some of them are over and not cleared.
fn stick(random: &mut Random, pool: &mut Pool) {
    let most = *any(random, &[1, 5, 60]);
    for _ in 0..random.random_range(0..most) {
        let sticky = Sticky {
            session: random.random_range(0..8),
            span: *any(random, &[1, 100, 1 << 40]),
            is_strict: false,
        };
        pool.picks(&Request {
            count: 1,
            sticky: Some(sticky),
            ..Request::default()
        });
        if random.random_ratio(1, 6) {
            let clock = pool.clock() + random.random_range(0..200);
            pool.tick_within(clock, *any(random, &[0, 1, 1000]));
        }
    }
}

/// The most memory that few bytes can ask for by sessions: each is of another backend that is gone.
#[test]
fn many_sessions_take_memory_in_proportion() {
    for sessions in [1, 7, 100, 127, 1024, 1025, 2049, 5000] {
        for gone in [true, false] {
            assert!(sound::holds_a_pool(&codec::encode(&stuck(sessions, gone))));
        }
    }
}

/// A pool with that many sessions on the backend `a`, or each on another one that is gone.
fn stuck(sessions: u64, gone: bool) -> Pool {
    let mut pool = Pool::new();
    pool.raise_rules(2);
    pool.add(b"a", Some(u16::from(!gone)));
    for session in 0..sessions {
        if gone {
            pool.add(b"b", None);
        }
        let sticky = Sticky {
            session,
            span: 1,
            is_strict: false,
        };
        pool.picks(&Request {
            count: 1,
            sticky: Some(sticky),
            ..Request::default()
        });
        if gone {
            pool.remove(b"b");
        }
    }
    pool
}

/// Sessions that no pool has. Each section differs in one thing from one that a pool has.
#[test]
fn wrong_sessions_are_refused() {
    let sound = codec::encode(&stuck(2, true));
    assert!(sound::holds_a_pool(&sound));
    let one = |n: u8, turn: u8| [&[n, 0, 0, 0, 0, 0, 0, 0, 20][..], &[turn]].concat();
    let group = |member: u8, of: &[Vec<u8>]| [&[member, of.len() as u8][..], &of.concat()].concat();
    let section = |turn: u8, groups: &[Vec<u8>]| [&[turn][..], &groups.concat()].concat();
    let right = section(2, &[group(1, &[one(0, 0)]), group(1, &[one(1, 1)])]);
    let begins = sound.len() - right.len() - 2;
    assert_eq!(
        sound[begins..],
        [&[133, right.len() as u8][..], &right].concat()
    );
    let with = |section: Vec<u8>| {
        let payload = [&sound[..begins], &[133, section.len() as u8], &section].concat();
        sound::holds_a_pool(&payload)
    };
    let groups = |groups: &[Vec<u8>]| with(section(2, groups));
    // Other turns, one group, and sessions of the backend that is there are all right.
    assert!(with(section(9, &[group(1, &[one(0, 7), one(1, 3)])])));
    assert!(groups(&[group(1, &[one(1, 0), one(0, 0)])]));
    assert!(groups(&[group(0, &[one(0, 5)]), group(1, &[one(1, 5)])]));
    for wrong in [
        // None at all; a group without any; a cut-off group.
        vec![],
        vec![group(1, &[])],
        vec![group(0, &[one(0, 0)]), vec![1]],
        vec![vec![1, 2], one(0, 0)],
        // The same session twice, in one group or in two.
        vec![group(1, &[one(0, 0), one(0, 1)])],
        vec![group(0, &[one(0, 0)]), group(1, &[one(0, 1)])],
        // Of a backend that is not there; of the same one in two groups; in the wrong order.
        vec![group(2, &[one(0, 0)])],
        vec![group(0, &[one(0, 0)]), group(0, &[one(1, 0)])],
        vec![group(1, &[one(0, 0)]), group(0, &[one(1, 0)])],
    ] {
        assert!(!groups(&wrong), "{wrong:?}");
    }
    // It would end later than any session can.
    let late = [&[0; 8][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0]].concat();
    assert!(!groups(&[group(1, &[late])]));
    let twice = [&sound[..], &sound[begins..]].concat();
    assert!(!sound::holds_a_pool(&twice));
}

/// Reports, as time goes by.
fn report(random: &mut Random, pool: &mut Pool) {
    pool.set_health(HealthSettings {
        fails: random.random_range(0..3),
        failrate: *any(random, &[0, 40]),
        min: 2,
        max_eject: 100,
        slow_start: *any(random, &[0, 300, 1 << 40]),
        adapt: *any(random, &[0, 20]),
        ..HealthSettings::default()
    });
    let names: Vec<Vec<u8>> = pool.backends().map(|b| b.name().to_vec()).collect();
    for _ in 0..random.random_range(0..20) {
        let told = Report {
            outcome: *any(random, &[None, Some(Outcome::Ok), Some(Outcome::Fail)]),
            latency: *any(random, &[None, Some(0), Some(7000), Some(1 << 50)]),
            load: *any(random, &[None, Some(0), Some(900_000)]),
            cool: *any(random, &[None, None, Some(1), Some(1 << 40)]),
        };
        pool.report(any::<Vec<u8>>(random, &names), &told);
        pool.tick(pool.clock() + any(random, &[0, 30, 6000]));
        pool.pick(None);
    }
}

/// Leases and limits. By version 2 of the rules some of it is over and not cleared.
fn limit(random: &mut Random, pool: &mut Pool) {
    if random.random_bool(0.6) {
        pool.raise_rules(2);
    }
    pool.tick(random.random_range(1..1 << 41));
    for _ in 0..random.random_range(1..4) {
        let names: Vec<Vec<u8>> = pool.backends().map(|b| b.name().to_vec()).collect();
        let rate = Rate {
            picks: random.random_range(1..5),
            millis: *any(random, &[1, 1000, 1 << 40]),
            burst: *any(random, &[1, 3, 1 << 40]),
        };
        let limits = Limits {
            max: Some(random.random_range(0..4)),
            rate: random.random_bool(0.5).then_some(Some(rate)),
            tier: Some(*any(random, &[0, 0, 1, 255])),
        };
        let name = any(random, &names).clone();
        pool.set_limits(Some(&name), &limits);
        pool.set_limits(
            None,
            &Limits {
                tier: None,
                ..limits
            },
        );
        pool.open_epoch(random.random());
        pool.picks(&Request {
            algorithm: Some(*any(random, &POLICIES)),
            item: None,
            count: random.random_range(1..20),
            distinct: false,
            exclude: vec![],
            terms: Some(LeaseTerms {
                span: *any(random, &[1, 100, 1 << 40]),
                owner: *any(random, &[None, Some(&b"gateway"[..]), Some(b"g")]),
            }),
            costs: vec![],
            sticky: None,
        });
        for _ in 0..random.random_range(0..3) {
            match random.random_range(0..4) {
                0 => _ = pool.release(any::<&[u8]>(random, &[b"gateway", b"g"])),
                1 => _ = pool.set_state(&name, State::Down),
                // `gone` goes last: a pool without backends has no names to choose from.
                2 if name != b"gone" => _ = pool.remove(&name),
                _ => _ = pool.add(&name, Some(1)),
            }
        }
        pool.tick_within(
            pool.clock() + random.random_range(0..200),
            *any(random, &[0, 1, 3, 1000]),
        );
    }
}

fn damage(random: &mut Random, payload: &mut Vec<u8>, sound: &[Vec<u8>]) {
    let at = random.random_range(0..=payload.len());
    let rest = payload.len() - at;
    match random.random_range(0..8) {
        0..3 if rest > 0 => payload[at] ^= 1 << random.random_range(0..8),
        3 => payload.truncate(at),
        4 => payload.insert(at, random.random()),
        5 => {
            let other = any(random, sound);
            let from = random.random_range(0..=other.len());
            payload.splice(at.., other[from..].iter().copied());
        }
        6 => {
            payload.drain(at..at + random.random_range(0..=rest.min(16)));
        }
        _ => {
            let goes_on = payload[at..].iter().take_while(|byte| **byte > 0x7f);
            let end = (at + goes_on.count() + 1).min(payload.len());
            payload.splice(at..end, varint(*any(random, &EXTREMES)));
        }
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn any<'a, T>(random: &mut Random, list: &'a [T]) -> &'a T {
    &list[random.random_range(0..list.len())]
}
