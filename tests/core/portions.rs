//! Ticks that clear a part of what is over: a pool that was loaded before clears the same part.

use redis_lb::lb::{Algorithm, HealthSettings, LOAD_ONE, Outcome, Pool, Report, codec};

const SECOND: u64 = 1000;

fn pool() -> Pool {
    let mut pool = Pool::new();
    pool.raise_rules(Pool::RULES);
    pool.tick(SECOND);
    for name in [b"a", b"b", b"c", b"d"] {
        pool.add(name, Some(1));
    }
    pool
}

fn loaded(pool: &Pool) -> Pool {
    match codec::decode(&codec::encode(pool)) {
        Ok(codec::Stored::Pool(pool)) => pool,
        other => panic!("{other:?}"),
    }
}

/// Clears one thing at a time until nothing is over at that clock.
fn goes_on_like_a_loaded_one(mut pool: Pool, clock: u64) {
    let mut other = loaded(&pool);
    let mut ticks = 0;
    while pool.tick_within(clock, 1) {
        other.tick_within(clock, 1);
        other.check();
        assert_eq!(codec::encode(&pool), codec::encode(&other), "{ticks}");
        ticks += 1;
    }
    assert!(ticks > 1 && !other.is_any_over());
}

fn told(latency: Option<u64>, load: Option<u32>) -> Report {
    Report {
        outcome: Some(Outcome::Ok),
        latency,
        load,
        cool: None,
    }
}

#[test]
fn latencies_halve_in_the_same_portions() {
    for gone in [None, Some(b"a")] {
        let mut pool = pool();
        pool.set_policy(Algorithm::by_name(b"ewma").unwrap());
        for name in [b"a", b"b", b"c"] {
            pool.report(name, &told(Some(5000), None));
        }
        pool.tick(2 * SECOND);
        pool.report(b"d", &told(Some(5000), None));
        pool.tick(5 * SECOND);
        pool.report(b"b", &told(Some(7000), None));
        gone.into_iter().for_each(|name| _ = pool.remove(name));
        goes_on_like_a_loaded_one(pool, 14 * SECOND);
    }
}

#[test]
fn adaptations_end_in_the_same_portions() {
    for gone in [None, Some(b"a")] {
        let mut pool = pool();
        pool.set_health(HealthSettings {
            adapt: 100,
            ..HealthSettings::default()
        });
        for name in [b"a", b"b", b"c"] {
            pool.report(name, &told(None, Some(LOAD_ONE)));
        }
        pool.tick(SECOND + 200);
        pool.report(b"d", &told(None, Some(LOAD_ONE / 2)));
        pool.tick(SECOND + 500);
        pool.report(b"b", &told(None, Some(LOAD_ONE / 4)));
        gone.into_iter().for_each(|name| _ = pool.remove(name));
        goes_on_like_a_loaded_one(pool, 2 * SECOND + 300);
    }
}
