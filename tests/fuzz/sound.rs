//! What must hold of any payload, whoever made it. The fuzzer and tests/hostile.rs share it.

use redis_lb::lb::codec::{self, Stored};
use redis_lb::lb::{
    ALGORITHMS, CLOCK_MAX, HealthSettings, LeaseTerms, Limited, Limits, Order, Outcome, Pool,
    QueueSettings, Rate, Report, Request, State, Sticky, WAITING_MAX,
};

/// The most memory that a byte of a payload costs. Measured: 21, where names have one byte, so that a backend takes 6
/// bytes there and 48 here beside its part in the indexes, and the room for backends has just doubled.
const BYTES_A_BYTE: usize = 24;

/// What a small pool may take beside that: each of up to sixteen tiers has trees of its own. Measured: 5,192.
const BESIDE: usize = 8192;

/// What a pool may take beside that when it has more than 1,024 leases: of leases, and of owners or groups, there can be one
/// more than there are pages for.
const PAGES: usize = 1024 * (56 + 64);

/// Whether the payload holds a pool. Panics where that pool is not one in every respect.
pub fn holds_a_pool(payload: &[u8]) -> bool {
    let Ok(Stored::Pool(mut pool)) = codec::decode(payload) else {
        return false;
    };
    pool.check();
    let pages = if pool.leases() > 1024 { PAGES } else { 0 };
    let most = BESIDE + pages + BYTES_A_BYTE * payload.len();
    assert!(pool.bytes(0) <= most, "{} bytes", pool.bytes(0));

    let mut copy = written_and_read(&pool);
    assert_eq!(used(&mut pool), used(&mut copy));
    written_and_read(&pool);
    true
}

fn written_and_read(pool: &Pool) -> Pool {
    let bytes = codec::encode(pool);
    let Ok(Stored::Pool(copy)) = codec::decode(&bytes) else {
        panic!("what was written cannot be read");
    };
    copy.check();
    assert_eq!(codec::encode(&copy), bytes);
    copy
}

/// What the pool picks before and after changes of all kinds.
fn used(pool: &mut Pool) -> Vec<Vec<usize>> {
    let names: Vec<_> = pool.backends().map(|b| b.name().to_vec()).take(4).collect();
    let mut picked = picks(pool, &names);
    for (name, weight) in names.iter().zip([65535, 1, 0, 7]) {
        pool.set_state(name, State::Drain);
        pool.add(name, Some(weight));
        pool.set_state(name, State::Up);
    }
    pool.add(b"one more", None);
    picked.extend(picks(pool, &names));
    names.iter().take(1).for_each(|name| {
        pool.remove(name);
    });
    picked.extend(picks(pool, &names));
    pool.check();
    picked.extend(for_sessions(pool, &names));
    picked.extend(over_time(pool, &names));
    picked.extend(in_health(pool, &names));
    picked
}

/// What it picks for sessions, some of which it may have.
fn for_sessions(pool: &mut Pool, names: &[Vec<u8>]) -> Vec<Vec<usize>> {
    let mut picked = vec![];
    for step in 0..30 {
        let sticky = Sticky {
            session: step as u64 % 12,
            span: 1 << step,
            is_strict: step % 4 == 0,
        };
        let request = Request {
            count: 1,
            exclude: names.iter().take(step / 9).map(|name| &name[..]).collect(),
            sticky: Some(sticky),
            ..Request::default()
        };
        let is_any = pool.has_eligible_for_session(&request.exclude, &sticky);
        let got = pool.picks(&request).slots;
        assert_eq!(is_any, !got.is_empty());
        picked.push(got.to_vec());
        if step % 8 == 7 {
            pool.forget_session(sticky.session);
            pool.tick_within((pool.clock() + 300).min(CLOCK_MAX), step);
        }
    }
    pool.check();
    picked
}

/// What it picks while reports come, under other settings.
fn in_health(pool: &mut Pool, names: &[Vec<u8>]) -> Vec<Vec<usize>> {
    let settings = HealthSettings {
        fails: 2,
        failrate: 30,
        min: 3,
        slow_start: 500,
        adapt: 40,
        ..pool.health_settings()
    };
    pool.set_health(settings);
    let mut picked = vec![];
    let queue = pool.queue_settings();
    assert!(queue.max <= WAITING_MAX);
    let order = match queue.order {
        Order::Fifo => Order::Fair,
        Order::Fair => Order::Fifo,
    };
    assert!(pool.set_queue(QueueSettings { order, ..queue }));
    for outcome in [Outcome::Fail, Outcome::Ok] {
        for (of, name) in names.iter().enumerate() {
            let report = Report {
                outcome: Some(outcome),
                latency: Some(1 << (17 * of)),
                load: Some(400_000 * of as u32),
                cool: (of == 3).then_some(70),
            };
            (0..=of).for_each(|_| _ = pool.report(name, &report));
        }
        picked.extend(picks(pool, names));
        pool.tick((pool.clock() + 5000).min(CLOCK_MAX));
    }
    pool.check();
    pool.set_health(HealthSettings::default());
    pool.check();
    picked
}

/// What it picks as time goes by, with leases and limits.
fn over_time(pool: &mut Pool, names: &[Vec<u8>]) -> Vec<Vec<usize>> {
    let mut picked = vec![];
    let (picks, millis, burst) = (1, 1000, 2);
    let rate = Rate {
        picks,
        millis,
        burst,
    };
    for (at, name) in names.iter().enumerate() {
        let limits = Limits {
            max: Some(2),
            rate: Some(Some(rate).filter(|_| at % 2 == 1)),
            tier: Some(at as u8 % 3),
        };
        pool.set_limits(Some(name), &limits);
    }
    for step in [1, 999, 60_000, 1 << 41] {
        let before = pool.leases();
        pool.tick((pool.clock() + step).min(CLOCK_MAX));
        assert!(pool.leases() <= before);
        picked.extend(self::picks(pool, names));
        let clock = pool.clock();
        for over in pool.list_leases(None, None, 9) {
            assert_eq!(over.remaining(clock) == 0, pool.lease(over.id).is_none());
        }
        let mut listed = pool.list_leases(None, None, 9).into_iter();
        if let Some(lease) = listed
            .find(|lease| lease.remaining(clock) > 0)
            .map(|lease| lease.id)
        {
            assert!(pool.renew(lease, 5));
            let report = Report {
                outcome: Some(Outcome::Ok),
                latency: Some(step),
                ..Report::default()
            };
            assert!(pool.done(lease, &report).is_some() && pool.done(lease, &report).is_none());
        }
        pool.check();
    }
    pool.availability();
    in_costs(pool, names);
    pool.release(b"o");
    for name in names.iter().skip(1) {
        pool.set_state(name, State::Down);
    }
    pool.check();
    // Some of it, or all, is cleared by each tick.
    while pool.is_any_over() {
        let before = pool.leases();
        assert!(pool.tick_within(pool.clock(), 3) && pool.leases() <= before);
    }
    pool.check();
    picked
}

/// Costs are limited, taken, settled and freed again.
fn in_costs(pool: &mut Pool, names: &[Vec<u8>]) {
    let (picks, millis, burst) = (3, 100, 20);
    let rate = Some(Rate {
        picks,
        millis,
        burst,
    });
    let costs: Vec<Vec<u8>> = pool
        .costs_of_each()
        .map(|(name, _)| name.to_vec())
        .collect();
    if pool.has_room_for_costs([&b"tokens"[..]].into_iter()) {
        pool.set_costs(Limited::Each, &[(b"tokens", rate)]);
    }
    let before = pool.leases();
    for amount in [0, 7, 1 << 40] {
        pool.availability_for(&[(b"tokens", amount)]);
        let request = Request {
            count: 2,
            terms: Some(LeaseTerms {
                span: 50_000,
                owner: Some(b"o"),
            }),
            costs: vec![(b"tokens", amount)],
            ..Request::default()
        };
        let would = pool.would_pick(&request);
        let picked = pool.picks(&request);
        assert_eq!(would, !picked.slots.is_empty());
        if let Some(lease) = picked.lease {
            pool.settle(lease, &[(b"tokens", amount / 2 + 5)]);
            pool.done(lease, &Report::default());
        }
    }
    names
        .iter()
        .for_each(|name| _ = pool.lower(name, (b"tokens", 1)));
    assert!(pool.leases() >= before);
    for cost in costs.iter().map(|name| &name[..]).chain([&b"tokens"[..]]) {
        pool.set_costs(Limited::Each, &[(cost, None)]);
    }
    pool.check();
}

fn picks(pool: &mut Pool, names: &[Vec<u8>]) -> Vec<Vec<usize>> {
    let mut picked = vec![];
    for (at, algorithm) in ALGORITHMS.into_iter().enumerate() {
        let request = Request {
            algorithm: Some(algorithm),
            item: Some(&b"item"[..]).filter(|_| algorithm.goes_by_item()),
            count: 5,
            distinct: at % 2 == 1,
            terms: (at > 2).then_some(LeaseTerms {
                span: 50_000,
                owner: Some(b"o"),
            }),
            exclude: names.iter().skip(2).map(|name| &name[..]).collect(),
            costs: vec![(b"tokens", 7), (b"t", at as u64)],
            sticky: None,
        };
        let ahead = pool.peek(&Request {
            terms: None,
            ..request.clone()
        });
        // A look ahead knows no costs.
        let is_told = request.terms.is_none()
            && !request.costs.iter().any(|(name, _)| pool.limits_cost(name));
        let now = pool.picks(&request).slots;
        assert!(!is_told || ahead.is_none_or(|ahead| ahead == now));
        picked.push(now.to_vec());
    }
    picked
}
