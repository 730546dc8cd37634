//! Costs: every window of every log is recomputed, and payloads whose numbers are at their bounds.

use rand::rngs::Xoshiro256PlusPlus as Random;
use rand::{RngExt, SeedableRng};
use redis_lb::lb::{
    ALGORITHMS, Algorithm, Cost, LeaseId, LeaseTerms, Limited, Millis, Pool, Rate, Report, Request,
    codec,
};

use crate::naive::CREDIT_MAX;

const NAMES: [&[u8]; 3] = [b"a", b"b", b"c"];
const TOKENS: &[u8] = b"tokens";

/// What was taken out of a bucket, and what came back, each with its time.
struct Log {
    rate: Rate,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    at: Millis,
    /// The estimate at the pick, and the difference at the end, below zero where it came back.
    amount: i128,
    /// How much of it was an underestimate.
    under: i128,
    /// The estimate of a pick.
    picked: i128,
}

impl Log {
    /// Every window, from each entry to each later one: it holds at most max(b, largest amount) + ⌊T·n/ms⌋ + underestimates.
    fn check_each_window(&self) {
        for from in 0..self.entries.len() {
            let (mut sum, mut under, mut largest) = (0, 0, i128::from(self.rate.burst));
            for entry in &self.entries[from..] {
                sum += entry.amount;
                under += entry.under;
                largest = largest.max(entry.picked);
                let span = i128::from(entry.at - self.entries[from].at);
                let came = span * i128::from(self.rate.picks) / i128::from(self.rate.millis);
                assert!(sum <= largest + came + under, "{:?}", self.rate);
            }
        }
    }

    /// The same in one walk, with the largest amount of all: S(j) - S(i) ≤ M + (t(j) - t(i)) · n / ms for all i ≤ j. Answers how close the
    /// log comes to the bound: the largest S(j) - S(i) - (t(j) - t(i)) · n / ms, in parts of a token, and M.
    fn check_in_one_walk(&self) -> (i128, i128) {
        let (picks, millis) = (i128::from(self.rate.picks), i128::from(self.rate.millis));
        let largest = self.entries.iter().map(|entry| entry.picked).max();
        let most = largest.unwrap_or(0).max(self.rate.burst.into()) * millis;
        let (mut sum, mut lowest, mut closest) = (0, i128::MAX, 0);
        for entry in &self.entries {
            let came = i128::from(entry.at) * picks;
            lowest = lowest.min(sum * millis - came);
            sum += entry.amount - entry.under;
            closest = closest.max(sum * millis - came - lowest);
        }
        assert!(closest <= most, "{:?}", self.rate);
        (closest, most)
    }
}

/// A pool in use: two backends with limits of their own or of each, and the pool's.
struct Use {
    pool: Pool,
    /// Of each backend, and last that of the pool.
    logs: Vec<Log>,
    open: Vec<(LeaseId, usize, u64)>,
    largest: u64,
}

fn rate(random: &mut Random, largest: u64) -> Rate {
    Rate {
        picks: random.random_range(1..=2 * largest),
        millis: random.random_range(1..1000),
        burst: random.random_range(1..=2 * largest),
    }
}

impl Use {
    fn of(random: &mut Random) -> Use {
        let largest = [3, 100, 1 << 20][random.random_range(0..3)];
        let mut pool = Pool::new();
        pool.raise_rules(2);
        let (each, own, of_pool) = (
            rate(random, largest),
            rate(random, largest),
            rate(random, 3 * largest),
        );
        pool.add(NAMES[0], None);
        pool.set_costs(Limited::Each, &[(TOKENS, Some(each))]);
        NAMES[1..].iter().for_each(|name| _ = pool.add(name, None));
        pool.set_costs(Limited::Backend(NAMES[1]), &[(TOKENS, Some(own))]);
        pool.set_costs(Limited::Pool, &[(TOKENS, Some(of_pool))]);
        let entries = Vec::new();
        let log = |rate| Log {
            rate,
            entries: entries.clone(),
        };
        Use {
            pool,
            logs: [each, own, each, of_pool].map(log).into(),
            open: Vec::new(),
            largest,
        }
    }

    fn step(&mut self, random: &mut Random) {
        match random.random_range(0..10) {
            0..5 => self.pick(random),
            5..8 if !self.open.is_empty() => self.settle(random),
            8 => {
                let left = (TOKENS, random.random_range(0..self.largest));
                self.pool.lower(NAMES[random.random_range(0..3)], left);
            }
            _ => {
                let span = [1, 10, 100, 5000][random.random_range(0..4)];
                self.pool
                    .tick(self.pool.clock() + random.random_range(0..span));
            }
        }
        if random.random_range(0..500) == 0 {
            self.pool = match codec::decode(&codec::encode(&self.pool)) {
                Ok(codec::Stored::Pool(pool)) => pool,
                other => panic!("{other:?}"),
            };
        }
    }

    fn pick(&mut self, random: &mut Random) {
        let amount = random.random_range(0..=self.largest);
        let owner = None;
        let terms = (random.random_range(0..4) > 0).then_some(LeaseTerms { span: 900, owner });
        let picked = self.pool.picks(&Request {
            algorithm: Some(ALGORITHMS[random.random_range(0..6)]),
            count: random.random_range(1..3),
            terms,
            costs: vec![(TOKENS, amount)],
            ..plain()
        });
        for (slot, number) in picked.slots.iter().zip(0..) {
            self.log(*slot, amount.into(), 0, amount.into());
            if let Some(first) = picked.lease {
                let number = first.number + number;
                self.open.push((LeaseId { number, ..first }, *slot, amount));
            }
        }
    }

    fn settle(&mut self, random: &mut Random) {
        let at = random.random_range(0..self.open.len());
        let (lease, slot, amount) = self.open.swap_remove(at);
        let real = random.random_range(0..=2 * self.largest);
        if self.pool.lease(lease).is_none() {
            return;
        }
        self.pool.settle(lease, &[(TOKENS, real)]);
        assert!(self.pool.done(lease, &Report::default()).is_some());
        let more = i128::from(real) - i128::from(amount);
        self.log(slot, more, more.max(0), 0);
    }

    fn log(&mut self, slot: usize, amount: i128, under: i128, picked: i128) {
        let at = self.pool.clock();
        for log in [slot, 3] {
            self.logs[log].entries.push(Entry {
                at,
                amount,
                under,
                picked,
            });
        }
    }
}

fn plain<'a>() -> Request<'a> {
    Request {
        count: 1,
        ..Request::default()
    }
}

#[test]
fn no_window_holds_more_than_the_bound() {
    let random = &mut Random::seed_from_u64(7);
    for _ in 0..60 {
        let mut used = Use::of(random);
        (0..300).for_each(|_| used.step(random));
        used.logs.iter().for_each(Log::check_each_window);
    }
    let (steps, rounds) = match std::env::var_os("REDIS_LB_LONG") {
        Some(_) => (100_000, 10),
        None => (5_000, 8),
    };
    let (mut is_close, mut picks) = (0, 0);
    for _ in 0..rounds {
        let mut used = Use::of(random);
        (0..steps).for_each(|_| used.step(random));
        used.pool.check();
        for log in &used.logs {
            let (closest, most) = log.check_in_one_walk();
            is_close += usize::from(closest > most / 2);
            picks += log.entries.len();
        }
    }
    // Else nothing was tried that could have gone beyond the bound.
    assert!(is_close >= rounds && picks > steps, "{is_close} {picks}");
}

/// As in a crafted payload: a choice cannot be undone there, and yet a pick that finds nobody leaves no trace.
#[test]
fn who_finds_nobody_leaves_no_trace_at_the_bounds_of_credits_either() {
    for backends in [3usize, 40] {
        let mut pool = Pool::new();
        let names: Vec<Vec<u8>> = (0..backends).map(|n| vec![b'0', n as u8]).collect();
        let (picks, millis, burst) = (1, 1000, 5);
        let rate = Rate {
            picks,
            millis,
            burst,
        };
        for name in &names {
            pool.add(name, Some(7));
            pool.set_credit(name, -(CREDIT_MAX as i64));
        }
        pool.set_costs(Limited::Each, &[(TOKENS, Some(rate))]);
        let asked = |amount: u64| Request {
            algorithm: Some(Algorithm::WRR),
            costs: vec![(TOKENS, amount)],
            ..plain()
        };
        // All but one are empty, and then that one too.
        for name in &names[1..] {
            pool.lower(name, (TOKENS, 0));
        }
        assert!(pool.would_pick(&asked(5)));
        let before = codec::encode(&pool);
        assert!(pool.would_pick(&asked(5)) && codec::encode(&pool) == before);
        let picked = pool.picks(&asked(5)).slots;
        assert_eq!(pool.name(picked[0]), names[0]);
        pool.check();
        for name in &names {
            pool.set_credit(name, CREDIT_MAX as i64);
        }
        let before = codec::encode(&pool);
        assert!(!pool.would_pick(&asked(5)) && pool.picks(&asked(5)).slots.is_empty());
        assert_eq!(codec::encode(&pool), before);
        pool.check();
    }
}

/// A debt grows up to its bound, and no further; the time until it is paid is shown all the same.
#[test]
fn the_largest_numbers_fit() {
    let mut pool = Pool::new();
    pool.add(b"a", None);
    let largest: u64 = 1 << 40;
    let of = |picks, millis, burst| {
        Some(Rate {
            picks,
            millis,
            burst,
        })
    };
    pool.set_costs(Limited::Backend(b"a"), &[(TOKENS, of(1, largest, largest))]);
    let costs: [Cost; 1] = [(TOKENS, largest)];
    for _ in 0..3 {
        let picked = pool.picks(&Request {
            terms: Some(LeaseTerms {
                span: 1,
                owner: None,
            }),
            costs: vec![],
            ..plain()
        });
        pool.settle(picked.lease.unwrap(), &costs);
    }
    let left = |pool: &Pool| pool.costs(Some(0)).next().unwrap().left;
    assert_eq!(left(&pool), -2 * largest as i64);
    pool.availability_for(&costs);
    pool.set_costs(Limited::Backend(b"a"), &[(TOKENS, of(1, 1, 1))]);
    assert_eq!(left(&pool), -2 * largest as i64);
    pool.tick(1 << 47);
    assert_eq!(left(&pool), 1);
}

/// What holds for each backend, and what a lease took, are of the bucket that was there: not of one that has its name.
#[test]
fn a_lease_settles_with_the_bucket_that_it_took_from() {
    let mut pool = Pool::new();
    pool.add(b"a", None);
    let rate = |burst| {
        Some(Rate {
            picks: 1,
            millis: 1000,
            burst,
        })
    };
    let left = |pool: &Pool| -> Vec<i64> { pool.costs(Some(0)).map(|cost| cost.left).collect() };
    let lease = |pool: &mut Pool| {
        let span = 1000;
        let owner = None;
        let terms = Some(LeaseTerms { span, owner });
        let costs = vec![(TOKENS, 8)];
        let picked = pool.picks(&Request {
            terms,
            costs,
            ..plain()
        });
        picked.lease.unwrap()
    };
    // A cost that was not limited took nothing.
    let before = lease(&mut pool);
    pool.set_costs(Limited::Each, &[(TOKENS, rate(20))]);
    let first = lease(&mut pool);
    assert_eq!(left(&pool), [12]);
    pool.set_costs(Limited::Each, &[(TOKENS, None)]);
    pool.set_costs(Limited::Each, &[(TOKENS, rate(20))]);
    let second = lease(&mut pool);
    for (id, expected) in [(before, 9), (first, 6), (second, 11)] {
        pool.settle(id, &[(TOKENS, 3)]);
        pool.done(id, &Report::default());
        assert_eq!(left(&pool), [expected]);
    }
}
