//! The core without a server: `cargo bench`, or `cargo bench -- wrr` for what has that in its name.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use redis_lb::lb::{ALGORITHMS, Algorithm, Backend, Pool, Request};

const SIZES: [u32; 7] = [3, 10, 100, 1_000, 10_000, 100_000, 1_000_000];

fn main() {
    divan::main();
}

/// One pick, weights 1 to 100.
#[divan::bench(args = of_each_size(&ALGORITHMS))]
fn pick(bencher: Bencher, (algorithm, size): (Algorithm, u32)) {
    let mut pool = pool(size, mixed);
    let mut items = 0..;
    bencher.bench_local(|| pick_one(&mut pool, algorithm, items.next()).map(Backend::picks));
}

/// One pick by wrr where no two weights are the same, as far as there are so many.
#[divan::bench(args = SIZES)]
fn pick_of_different_weights(bencher: Bencher, size: u32) {
    let mut pool = pool(size, different);
    bencher.bench_local(|| pool.pick(None).map(Backend::picks));
}

/// One pick by hash where all weights are the same.
#[divan::bench(args = SIZES)]
fn pick_by_hash_of_equal_weights(bencher: Bencher, size: u32) {
    pick_by_hash(bencher, size, |_| 1);
}

/// One pick by hash where one backend is much heavier than all others.
#[divan::bench(args = SIZES)]
fn pick_by_hash_beside_a_heavy_one(bencher: Bencher, size: u32) {
    pick_by_hash(bencher, size, |i| if i == 0 { u16::MAX } else { 1 });
}

fn pick_by_hash(bencher: Bencher, size: u32, weight: fn(u32) -> u16) {
    let mut pool = pool(size, weight);
    let mut items = 0..;
    bencher.bench_local(|| pick_one(&mut pool, Algorithm::HASH, items.next()).map(Backend::picks));
}

/// A hundred picks in one request, all different where the pool is as large.
#[divan::bench(args = of_each_size(&ALGORITHMS))]
fn pick_100_distinct(bencher: Bencher, (algorithm, size): (Algorithm, u32)) {
    let mut pool = pool(size, mixed);
    let wanted = Request {
        distinct: true,
        ..request(Some(algorithm), 100)
    };
    bencher.bench_local(|| pool.picks(&wanted));
}

/// A pick that passes over one backend.
#[divan::bench(args = of_each_size(&ALGORITHMS))]
fn pick_with_an_exclusion(bencher: Bencher, (algorithm, size): (Algorithm, u32)) {
    let mut pool = pool(size, mixed);
    let excluded = name(size / 2);
    let wanted = Request {
        exclude: vec![&excluded],
        ..request(Some(algorithm), 1)
    };
    bencher.bench_local(|| pool.picks(&wanted));
}

/// What the next pick would be. The pool moves on in between, so that nothing is known already.
#[divan::bench(args = of_each_size(&foreseeable()))]
fn peek_and_pick(bencher: Bencher, (algorithm, size): (Algorithm, u32)) {
    let mut pool = pool(size, mixed);
    let wanted = request(Some(algorithm), 1);
    let mut items = 0..;
    bencher.bench_local(|| {
        black_box(pool.peek(&wanted));
        pick_one(&mut pool, algorithm, items.next()).map(Backend::picks)
    });
}

/// A backend comes, is known to one pick, and goes.
#[divan::bench(args = SIZES)]
fn add_pick_remove(bencher: Bencher, size: u32) {
    let mut pool = pool(size, mixed);
    let newcomer = name(size);
    bencher.bench_local(|| {
        pool.add(&newcomer, Some(7));
        black_box(pool.pick(None));
        pool.remove(&newcomer)
    });
}

/// Another weight for one backend after the other, and the pick after it.
#[divan::bench(args = SIZES)]
fn reweight_and_pick(bencher: Bencher, size: u32) {
    let mut pool = pool(size, mixed);
    let names: Vec<_> = (0..size).map(name).collect();
    let mut turns = 0;
    bencher.bench_local(|| {
        let weight = 1 + (turns * 31 % 100) as u16;
        let name: &[u8] = &names[turns % names.len()];
        turns += 1;
        pool.set_weights(&[(name, weight)]).expect("it is there");
        pool.pick(None).map(Backend::picks)
    });
}

/// A whole pool, name by name.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn fill(bencher: Bencher, size: u32) {
    let names: Vec<_> = (0..size).map(name).collect();
    bencher.counter(ItemsCount::new(size)).bench_local(|| {
        let mut pool = Pool::new();
        for (i, name) in names.iter().enumerate() {
            pool.add(name, Some(mixed(i as u32)));
        }
        pool
    });
}

/// Not of the core: a read at a random place of that memory, in MB, which waits for the one before it. The next backend and its name are
/// two such reads at least, where many large pools fill the memory.
#[divan::bench(args = [1, 8, 64])]
fn read_at_random(bencher: Bencher, megabytes: usize) {
    let lines = megabytes << 20 >> 6;
    // A full cycle, since the number of lines is a power of two (Hull and Dobell, 1962).
    let next = |line: usize| (line.wrapping_mul(0x5851_F42D_4C95_7F2D) + 0x1405_7B7F) % lines;
    let memory: Vec<[usize; 8]> = (0..lines).map(|line| [next(line); 8]).collect();
    let mut line = 0;
    bencher
        .counter(ItemsCount::new(1_000usize))
        .bench_local(|| {
            for _ in 0..1_000 {
                line = memory[line][0];
            }
            line
        });
}

fn of_each_size(algorithms: &[Algorithm]) -> Vec<(Algorithm, u32)> {
    let pairs = |&algorithm| SIZES.map(|size| (algorithm, size));
    algorithms.iter().flat_map(pairs).collect()
}

fn foreseeable() -> Vec<Algorithm> {
    ALGORITHMS
        .into_iter()
        .filter(|algorithm| !algorithm.is_by_chance())
        .collect()
}

fn request(algorithm: Option<Algorithm>, count: usize) -> Request<'static> {
    Request {
        algorithm,
        item: (algorithm == Some(Algorithm::HASH)).then_some(b"item"),
        count,
        distinct: false,
        exclude: vec![],
        terms: None,
        costs: vec![],
        sticky: None,
    }
}

fn pick_one(pool: &mut Pool, algorithm: Algorithm, item: Option<u64>) -> Option<Backend<'_>> {
    match (algorithm.goes_by_item(), item) {
        (true, Some(item)) => pool.pick_for(&item.to_ne_bytes()),
        _ => pool.pick(Some(algorithm)),
    }
}

fn pool(size: u32, weight: fn(u32) -> u16) -> Pool {
    let mut pool = Pool::new();
    pool.seed(1);
    for i in 0..size {
        pool.add(&name(i), Some(weight(i)));
    }
    // The first pick by wrr looks at all of them, and the first ones differ from those in the middle of a pool's life.
    for _ in 0..10_000 {
        pool.pick(None);
    }
    pool
}

fn name(i: u32) -> Vec<u8> {
    format!("node-{i:07}.prod:8080").into_bytes()
}

fn mixed(i: u32) -> u16 {
    1 + (u64::from(i) * 7919 % 100) as u16
}

fn different(i: u32) -> u16 {
    1 + (i % 65_535) as u16
}
