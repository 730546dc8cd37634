//! Large pools: the same answers through trees of several levels.

use std::time::Instant;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use redis_lb::lb::{
    ALGORITHMS, Algorithm, HealthSettings, LeaseTerms, Pool, Report, Request, State,
};

use crate::naive::{Naive, Wanted};

#[test]
fn three_thousand_backends_are_picked_as_the_naive_pool_picks_them() {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(11);
    let mut below = |n: u64| chance.next_u64() % n;
    let (mut pool, mut naive) = (Pool::new(), Naive::new());
    for i in 0..3_000u32 {
        let weight = if i % 3 == 0 {
            below(65_536)
        } else {
            1 + below(100)
        } as u16;
        pool.add(&i.to_be_bytes(), Some(weight));
        naive.add(&i.to_be_bytes(), Some(weight));
    }
    for round in 0..4_000 {
        let name = (below(3_000) as u32).to_be_bytes();
        match below(8) {
            0 => assert_eq!(pool.remove(&name), naive.remove(&name)),
            1 => {
                let weight = below(1_000) as u16;
                pool.add(&name, Some(weight));
                naive.add(&name, Some(weight));
            }
            2 => {
                let (state, _) = State::ALL[below(3) as usize];
                let found = pool.set_state(&name, state).is_some();
                assert_eq!(found, naive.set_state(&name, state).is_some());
            }
            _ => {}
        }
        let wanted = one(ALGORITHMS[below(4) as usize]);
        let picked = pool.pick(wanted.algorithm).map(|b| b.name().to_vec());
        assert_eq!(picked, naive.picks(&wanted).0.pop(), "round {round}");
        if round % 500 == 0 {
            pool.check();
        }
    }
}

/// So wrr keeps them in queues, till there are too many weights for that.
#[test]
fn backends_of_few_weights_are_picked_as_the_naive_pool_picks_them() {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(12);
    let mut below = |n: u64| chance.next_u64() % n;
    let (mut pool, mut naive) = (Pool::new(), Naive::new());
    let mut size = 0u32;
    for round in 0..3_000 {
        // It grows by and by, and some of those that were there stay away for long.
        while size < 1_000 + round / 4 {
            let weight = 1 + (size % 3 * 50) as u16;
            pool.add(&size.to_be_bytes(), Some(weight));
            naive.add(&size.to_be_bytes(), Some(weight));
            size += 1;
        }
        let number = below(size.into()) as u32;
        let name = number.to_be_bytes();
        let weight = match (below(8), round > 2_500) {
            (0, _) => Some(1 + 50 * below(3) as u16),
            (1, true) => Some(1 + below(100) as u16),
            _ => None,
        };
        if let Some(weight) = weight {
            pool.add(&name, Some(weight));
            naive.add(&name, Some(weight));
        }
        match below(12) {
            0 => assert_eq!(pool.remove(&name), naive.remove(&name)),
            n @ 1..4 => {
                let (state, _) = State::ALL[n as usize % 3];
                let found = pool.set_state(&name, state).is_some();
                assert_eq!(found, naive.set_state(&name, state).is_some());
            }
            _ => {}
        }
        let wanted = Wanted {
            count: 1 + below(3) as usize,
            exclude: vec![name.to_vec(), (number / 2).to_be_bytes().to_vec()],
            distinct: true,
            ..one(Algorithm::WRR)
        };
        let request = Request {
            algorithm: None,
            item: None,
            count: wanted.count,
            distinct: true,
            exclude: wanted.exclude.iter().map(|name| &name[..]).collect(),
            terms: None,
            costs: vec![],
            sticky: None,
        };
        let foreseen = pool.peek(&request).unwrap();
        let picked = pool.picks(&request).slots;
        assert_eq!(foreseen, picked, "round {round}");
        let names = picked.iter().map(|slot| pool.name(*slot).to_vec());
        assert_eq!(
            names.collect::<Vec<_>>(),
            naive.picks(&wanted).0,
            "round {round}"
        );
        if round % 500 == 0 {
            pool.check();
        }
    }
}

/// Wherever the trees get a new node or a new level, the newcomer there is seen by the very next pick.
#[test]
fn a_newcomer_takes_part_at_once() {
    let (mut pool, mut naive) = (Pool::new(), Naive::new());
    for i in 0..700u32 {
        let weight = 1 + (i * 7919 % 1_000) as u16;
        pool.add(&i.to_be_bytes(), Some(weight));
        naive.add(&i.to_be_bytes(), Some(weight));
        for algorithm in ALGORITHMS {
            let picked = match algorithm.goes_by_item() {
                true => pool.pick_for(&i.to_le_bytes()),
                false => pool.pick(Some(algorithm)),
            };
            let wanted = Wanted {
                item: i.to_le_bytes().into(),
                ..one(algorithm)
            };
            assert_eq!(
                picked.map(|b| b.name().to_vec()),
                naive.picks(&wanted).0.pop(),
                "{i}, {algorithm:?}"
            );
        }
        pool.check();
    }
}

fn one(algorithm: Algorithm) -> Wanted {
    Wanted {
        costs: vec![],
        algorithm: Some(algorithm),
        item: vec![],
        count: 1,
        distinct: false,
        exclude: vec![],
        lease: None,
    }
}

/// Removal leaves slots vacant; they are given back.
#[test]
fn a_pool_that_shrinks_takes_less_memory() {
    let mut pool = Pool::new();
    for i in 0..50_000u32 {
        pool.add(&i.to_be_bytes(), None);
    }
    let full = pool.bytes(0);
    for i in 0..49_000u32 {
        assert!(pool.remove(&i.to_be_bytes()));
    }
    pool.check();
    assert!(
        pool.bytes(0) < full / 20,
        "{} of {full} bytes",
        pool.bytes(0)
    );
}

/// Where failures eject no more, all backends are asked, and by a report one.
#[test]
fn a_report_costs_no_more_in_a_large_pool() {
    let mut pool = Pool::new();
    for i in 0..50_000u32 {
        pool.add(&i.to_be_bytes(), None);
    }
    let start = Instant::now();
    for time in 0..20 {
        pool.set_health(HealthSettings {
            fails: 1 - time % 2,
            ..HealthSettings::default()
        });
    }
    let ten_settings = start.elapsed();
    let start = Instant::now();
    for cool in 1..=1000 {
        let report = Report {
            cool: Some(cool * 10),
            ..Report::default()
        };
        assert!(pool.report(&7u32.to_be_bytes(), &report).is_some());
    }
    let thousand_reports = start.elapsed();
    assert!(
        thousand_reports < ten_settings,
        "{thousand_reports:?} {ten_settings:?}"
    );
}

/// Running weights get fractions, all at once, and what was played is played anew. No sequence changes.
#[test]
fn fractions_change_no_sequence() {
    let mut pool = Pool::new();
    for i in 0..1_000u32 {
        pool.add(&i.to_be_bytes(), Some(1 + (i * 7919 % 100) as u16));
    }
    for i in (0..1_000u32).step_by(7) {
        pool.set_state(&i.to_be_bytes(), State::Drain);
    }
    let pick = |pool: &mut Pool, algorithm: Algorithm| {
        let terms = Some(LeaseTerms {
            span: 60_000,
            owner: None,
        });
        let wanted = Request {
            costs: vec![],
            algorithm: Some(algorithm),
            item: None,
            count: 1,
            distinct: false,
            exclude: vec![],
            terms,
            sticky: None,
        };
        pool.picks(&wanted).slots
    };
    for _ in 0..500 {
        for algorithm in ALGORITHMS {
            pick(&mut pool, algorithm);
        }
    }
    let mut whole = pool.clone();
    pool.set_health(HealthSettings {
        slow_start: 1_000,
        ..HealthSettings::default()
    });
    pool.check();
    for round in 0..2_000 {
        for algorithm in ALGORITHMS {
            let picked = pick(&mut pool, algorithm);
            assert_eq!(picked, pick(&mut whole, algorithm), "{round} {algorithm:?}");
        }
    }
    pool.check();
}
