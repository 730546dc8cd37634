//! Consistent hashing: where items go, and which of them move.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use redis_lb::lb::{
    Algorithm, HealthSettings, LeaseTerms, Limits, Outcome, Pool, Report, Request, State,
};

fn name(i: u32) -> Vec<u8> {
    format!("10.{}.{}.{}:8080", i >> 16, i >> 8 & 255, i & 255).into_bytes()
}

fn mixed(i: u32) -> u16 {
    1 + (u64::from(i) * 7919 % 100) as u16
}

fn pool(backends: u32) -> Pool {
    let mut pool = Pool::new();
    for i in 0..backends {
        pool.add(&name(i), Some(mixed(i)));
    }
    pool
}

fn backend_of(pool: &mut Pool, item: u32) -> Vec<u8> {
    let item = format!("item:{item}");
    let backend = pool.pick_for(item.as_bytes());
    backend.expect("one is eligible").name().to_vec()
}

fn map(pool: &mut Pool, items: u32) -> Vec<Vec<u8>> {
    (0..items).map(|item| backend_of(pool, item)).collect()
}

/// χ² of these items by degree of freedom: 1 where only chance is between them and the weights.
fn chi_squared(pool: &Pool, chosen: &[Vec<u8>], without: Option<&[u8]>) -> f64 {
    let mut counts: BTreeMap<&[u8], f64> = BTreeMap::new();
    for name in chosen {
        *counts.entry(name).or_default() += 1.0;
    }
    let others = || pool.backends().filter(|b| Some(b.name()) != without);
    let weights: u64 = others().map(|b| u64::from(b.weight())).sum();
    let terms = others().map(|b| {
        let expected = chosen.len() as f64 * f64::from(b.weight()) / weights as f64;
        (counts.get(b.name()).unwrap_or(&0.0) - expected).powi(2) / expected
    });
    terms.sum::<f64>() / (others().count() - 1) as f64
}

/// How many items, and how many backends.
fn size() -> (u32, u32) {
    match std::env::var_os("REDIS_LB_LONG") {
        Some(_) => (1_000_000, 1_000),
        None => (30_000, 100),
    }
}

/// With 99 degrees of freedom χ²/df has a standard deviation of 0.14, with 999 one of 0.045.
fn is_fair(chi_squared: f64, backends: u32) -> bool {
    let deviation = (2.0 / f64::from(backends - 1)).sqrt();
    (chi_squared - 1.0).abs() < 2.24 * deviation
}

#[test]
fn shares_are_as_the_weights() {
    let (items, backends) = size();
    let mut pool = pool(backends);
    let chosen = map(&mut pool, items);
    let chi_squared = chi_squared(&pool, &chosen, None);
    assert!(is_fair(chi_squared, backends), "{chi_squared}");
}

/// By the state, by failures, and by a removal: whichever way a backend goes.
#[test]
fn a_backend_that_goes_moves_its_own_items_alone_and_takes_them_back() {
    let (items, backends) = size();
    let mut pool = pool(backends);
    let before = map(&mut pool, items);
    let gone = &name(37);
    let moved = |pool: &Pool, after: &[Vec<u8>]| {
        let pairs = before.iter().zip(after);
        let moved: Vec<Vec<u8>> = (pairs.filter(|(from, to)| from != to))
            .map(|(from, to)| {
                assert_eq!(from, gone);
                to.clone()
            })
            .collect();
        assert_eq!(moved.len(), before.iter().filter(|b| *b == gone).count());
        // They are spread by weight over all others: each of them is few among few, so the bound is wider.
        let chi_squared = chi_squared(pool, &moved, Some(gone));
        assert!((chi_squared - 1.0).abs() < 0.6, "{chi_squared}");
    };
    pool.set_state(gone, State::Drain);
    moved(&pool, &map(&mut pool.clone(), items));
    pool.set_state(gone, State::Up);
    assert_eq!(map(&mut pool, items), before);

    let mut ejected = pool.clone();
    ejected.set_health(HealthSettings {
        fails: 1,
        eject: 1000,
        max_eject: 50,
        ..HealthSettings::default()
    });
    let failed = Report {
        outcome: Some(Outcome::Fail),
        ..Report::default()
    };
    assert!(
        ejected
            .report(gone, &failed)
            .is_some_and(|effects| effects.ejected)
    );
    moved(&ejected, &map(&mut ejected.clone(), items));
    // A probe is due, and the first pick that falls on it takes it. Until its outcome nobody else does.
    while ejected.tick(ejected.clock() + 2000) && ejected.is_any_over() {}
    let probing = map(&mut ejected, items);
    let differing = before.iter().zip(&probing).filter(|(b, p)| b != p).count();
    let own = before.iter().filter(|b| *b == gone).count();
    assert_eq!(differing, own - 1);
    let first = before.iter().position(|b| b == gone);
    assert_eq!(probing.iter().position(|b| b == gone), first);
    let ok = Report {
        outcome: Some(Outcome::Ok),
        ..Report::default()
    };
    assert!(
        ejected
            .report(gone, &ok)
            .is_some_and(|effects| effects.back)
    );
    assert_eq!(map(&mut ejected, items), before);

    pool.remove(gone);
    moved(&pool, &map(&mut pool.clone(), items));
    pool.add(gone, Some(mixed(37)));
    assert_eq!(map(&mut pool, items), before);
}

#[test]
fn a_newcomer_takes_its_share_and_moves_nothing_else() {
    let (items, backends) = size();
    let mut pool = pool(backends);
    let before = map(&mut pool, items);
    pool.add(b"new", Some(100));
    let after = map(&mut pool, items);
    let pairs = before.iter().zip(&after);
    let moved = pairs
        .filter(|(from, to)| from != to)
        .map(|(_, to)| assert_eq!(to, b"new"));
    let (moved, weights) = (moved.count() as f64, pool.total_weight() as f64);
    let expected = f64::from(items) * 100.0 / weights;
    assert!(
        (moved - expected).abs() < 4.0 * expected.sqrt(),
        "{moved} {expected}"
    );
}

/// A lower weight moves items away from that backend alone, as many as the difference in shares says.
#[test]
fn another_weight_moves_the_difference_alone() {
    let (items, backends) = size();
    let mut pool = pool(backends);
    pool.add(b"web", Some(100));
    let before = map(&mut pool, items);
    pool.add(b"web", Some(70));
    let after = map(&mut pool, items);
    let pairs = before.iter().zip(&after).filter(|(from, to)| from != to);
    let moved = pairs.map(|(from, _)| assert_eq!(from, b"web")).count();
    let of_web = |map: &[Vec<u8>]| map.iter().filter(|b| *b == b"web").count();
    assert_eq!(moved, of_web(&before) - of_web(&after));
    let others = pool.total_weight() as f64 - 70.0;
    let share = |weight: f64| weight / (others + weight);
    let expected = f64::from(items) * (share(100.0) - share(70.0));
    assert!(
        (moved as f64 - expected).abs() < 4.0 * expected.sqrt(),
        "{moved} {expected}"
    );
    pool.add(b"web", Some(100));
    assert_eq!(map(&mut pool, items), before);
}

#[test]
fn pools_with_the_same_members_agree_whatever_happened_before() {
    let (items, backends) = size();
    let mut one = pool(backends);
    let mut other = Pool::new();
    other.set_health(HealthSettings {
        fails: 2,
        slow_start: 1000,
        adapt: 100,
        ..HealthSettings::default()
    });
    for i in (0..2 * backends).rev() {
        other.add(&name(i), Some(1));
        other.pick(None);
        other.pick_for(b"before");
    }
    for i in 0..2 * backends {
        let report = Report {
            load: Some(i * 1000),
            ..Report::default()
        };
        other.report(&name(i), &report);
        match i < backends {
            true => _ = other.add(&name(i), Some(mixed(i))),
            false => assert!(other.remove(&name(i))),
        }
    }
    one.check();
    other.check();
    assert_eq!(map(&mut one, items), map(&mut other, items));
}

/// The next choices of an item are those that it would have without the ones before.
#[test]
fn distinct_picks_are_the_next_choices() {
    let mut pool = pool(50);
    for item in 0..200u32 {
        let item = item.to_be_bytes();
        let mut request = Request {
            algorithm: Some(Algorithm::HASH),
            item: Some(&item),
            count: 60,
            distinct: true,
            exclude: vec![],
            terms: None,
            costs: vec![],
            sticky: None,
        };
        let foreseen = pool.peek(&request);
        let choices = pool.picks(&request).slots;
        assert_eq!(foreseen.as_ref(), Some(&choices));
        assert_eq!(choices.len(), 50);
        let names: Vec<Vec<u8>> = pool.names(&choices).map(Vec::from).collect();
        (request.count, request.distinct) = (1, false);
        for n in 0..50 {
            request.exclude = names[..n].iter().map(|name| &name[..]).collect();
            assert_eq!(pool.picks(&request).slots[..], choices[n..=n]);
        }
    }
}

/// See tests/data/hash: no code of this project made these.
#[test]
fn items_go_where_the_published_vectors_say() {
    let text = include_str!("../data/hash/vectors.json");
    let vectors: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let mut compared = 0;
    for case in vectors["pools"].as_array().expect("pools") {
        let mut pool = Pool::new();
        for (name, weight) in case["weights"].as_object().expect("weights") {
            pool.add(name.as_bytes(), weight.as_u64().map(|weight| weight as u16));
        }
        for (item, order) in case["items"].as_object().expect("items") {
            let order = order.as_array().expect("names").iter();
            let order: Vec<&[u8]> = order
                .map(|name| name.as_str().unwrap().as_bytes())
                .collect();
            let choices = pool.picks(&Request {
                algorithm: Some(Algorithm::HASH),
                item: Some(item.as_bytes()),
                count: order.len(),
                distinct: true,
                exclude: vec![],
                terms: None,
                costs: vec![],
                sticky: None,
            });
            assert_eq!(pool.names(&choices.slots).collect::<Vec<_>>(), order);
            compared += 1;
        }
    }
    assert_eq!(compared, 4 * 20);
}

/// BALANCE 125, one item asked by half of all requests. Each grant is held against the bound, counted here.
#[test]
fn no_backend_is_above_its_bound_and_the_other_items_stay() {
    let (_, backends) = size();
    let mut pool = pool(backends);
    let mut home = pool.clone();
    assert!(pool.set_balance(125));
    let weights = pool.total_weight();
    let mut open = VecDeque::new();
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut moved = 0;
    let mut hot = BTreeSet::new();
    let requests = 400 * backends;
    for request in 0..requests {
        let item = match request % 2 {
            0 => b"hot".to_vec(),
            _ => format!("item:{request}").into_bytes(),
        };
        // Ten requests for each backend are in flight.
        if open.len() == 10 * backends as usize {
            let (id, name) = open.pop_front().expect("it is full");
            assert!(pool.done(id, &Report::default()).is_some());
            *counts.get_mut(&name).expect("it was counted") -= 1;
        }
        let wanted = Request {
            algorithm: Some(Algorithm::HASH),
            item: Some(&item),
            count: 1,
            distinct: false,
            exclude: vec![],
            terms: Some(LeaseTerms {
                span: 1 << 40,
                owner: None,
            }),
            costs: vec![],
            sticky: None,
        };
        let picked = pool.picks(&wanted);
        let backend = pool
            .backend(pool.name(picked.slots[0]))
            .expect("it is there");
        let (name, weight) = (backend.name().to_vec(), u64::from(backend.weight()));
        let bound = |weight: u64| ((open.len() as u64 + 1) * 125 * weight).div_ceil(100 * weights);
        let at_home = home.pick_for(&item).expect("one is eligible");
        if at_home.name() != name {
            let leases = counts.get(at_home.name()).copied().unwrap_or(0);
            assert!(
                leases + 1 > bound(at_home.weight().into()),
                "it moved for nothing"
            );
            moved += request % 2;
        }
        let leases = counts.entry(name.clone()).or_default();
        *leases += 1;
        assert!(*leases <= bound(weight), "{leases} of {}", bound(weight));
        if request % 2 == 0 {
            hot.insert(name.clone());
        }
        open.push_back((picked.lease.expect("it was granted"), name));
    }
    // The hot item fills nearly half of the fleet up to the bounds. Other items move only from there.
    assert!(hot.len() > 10);
    assert!(moved * 2 < requests / 2, "{moved} of {requests}");
}

/// Many picks of one command line the backends up. Single ones look at all of them.
#[test]
fn many_picks_at_once_are_what_single_picks_would_be() {
    for (balance, max, health) in [
        (0, 9, false),
        (101, 0, true),
        (125, 0, false),
        (300, 40, true),
    ] {
        let mut pool = pool(200);
        pool.set_balance(balance);
        for i in 0..200 {
            let limits = Limits {
                max: Some(max),
                tier: Some((i % 3 == 0).into()),
                ..Limits::default()
            };
            pool.set_limits(Some(&name(i)), &limits);
        }
        if health {
            pool.set_health(HealthSettings {
                fails: 1,
                eject: 10,
                slow_start: 5000,
                max_eject: 20,
                ..HealthSettings::default()
            });
            let failed = Report {
                outcome: Some(Outcome::Fail),
                ..Report::default()
            };
            (0..20).for_each(|i| _ = pool.report(&name(i), &failed));
            // Some are probed, later ones start slowly.
            pool.tick(pool.clock() + 1000);
        }
        let mut single = pool.clone();
        for item in [&b"x"[..], b"y"] {
            let mut request = Request {
                algorithm: Some(Algorithm::HASH),
                item: Some(item),
                count: 700,
                distinct: false,
                exclude: vec![],
                terms: Some(LeaseTerms {
                    span: 60_000,
                    owner: None,
                }),
                costs: vec![],
                sticky: None,
            };
            let many = pool.picks(&request).slots;
            request.count = 1;
            let singles = (0..700).flat_map(|_| single.picks(&request).slots);
            assert_eq!(many.to_vec(), singles.collect::<Vec<_>>());
            assert!(many.len() > 300);
        }
    }
}

/// Else a command with the largest COUNT takes the square of a large pool.
#[test]
fn many_picks_at_once_do_not_look_at_all_backends_each() {
    let mut pool = pool(20_000);
    pool.set_balance(125);
    let mut request = Request {
        algorithm: Some(Algorithm::HASH),
        item: Some(b"hot"),
        count: 10,
        distinct: true,
        exclude: vec![],
        terms: Some(LeaseTerms {
            span: 60_000,
            owner: None,
        }),
        costs: vec![],
        sticky: None,
    };
    let mut took = [10, 10_000].map(|count| {
        request.count = count;
        let start = Instant::now();
        assert_eq!(pool.picks(&request).slots.len(), count);
        start.elapsed()
    });
    took[0] *= 200;
    assert!(took[1] < took[0], "{took:?}");
}
