//! Which backend gets an item? The map of `hash` beside those of others: `cargo bench --bench affinity -- conversations`.
//!
//! `scripts/bench affinity` runs it all. By itself (`cargo test`) it computes the short form, and compares it with tests/data/affinity.json.

mod conversations;
mod maps;

use std::hint::black_box;

use maps::{Backend, HaProxy, Maglev, Map, Nginx, Ring, moved, pool, shares};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use redis_lb::lb::Pool;
use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["maps", backends, items, of_changes] => {
            let items = [items, of_changes].map(|word| number(word).into());
            print(&rows_of_maps(number(backends), items));
        }
        ["conversations"] => print(&conversations::rows(&[0.5, 0.7, 0.85], 5, 8_000)),
        ["short"] => print(&[short()]),
        ["count", title, backends, weights] => {
            let weight = WEIGHTS.iter().find(|(title, _)| *title == weights);
            count(
                title,
                self::backends(number(backends), weight.expect("weights").1),
            );
        }
        _ => check(),
    }
}

fn number(word: &str) -> u32 {
    word.parse().expect("a number")
}

fn print(rows: &[Value]) {
    rows.iter().for_each(|row| println!("{row}"));
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// What the tests compute again.
fn short() -> Value {
    let sizes = [10, 100].map(|count| rows_of_maps(count, [2_000, 1_000]));
    json!({
        "maps": sizes.concat(),
        "conversations": conversations::rows(&[0.7], 1, 150),
    })
}

fn check() {
    let text = include_str!("../../data/affinity.json");
    let data: Value = serde_json::from_str(text).expect("JSON");
    let short = short();
    assert_eq!(short["maps"], data["short maps"]);
    assert_eq!(short["conversations"], data["short conversations"]);
    maps::check();
    println!("the short form is as in tests/data/affinity.json");
}

// The maps

fn name(id: u32) -> String {
    format!("10.{}.{}.{}:8080", id >> 16, id >> 8 & 255, id & 255)
}

type Weigh = fn(u32) -> u16;
const WEIGHTS: [(&str, Weigh); 3] = [
    ("equal", |_| 1),
    // Each as often.
    ("1 to 100", |id| 1 + (u64::from(id) * 7919 % 100) as u16),
    ("1, one of 65,535", |id| if id == 1 { 65_535 } else { 1 }),
];

fn backends(count: u32, weight: Weigh) -> Vec<Backend> {
    let backends = (1..=count).map(|id| Backend {
        name: name(id),
        weight: weight(id),
        id,
    });
    backends.collect()
}

/// A change of one backend.
struct Change {
    title: &'static str,
    changed: u32,
    after: Vec<Backend>,
}

/// Those of these backends: one of the heaviest goes, one as heavy comes, and where weights differ, one becomes lighter.
fn changes(before: &[Backend]) -> Vec<Change> {
    let count = before.len() as u32;
    let weights = before.iter().map(|backend| backend.weight);
    let most = weights.max().expect("a backend");
    let heaviest: Vec<&Backend> = before.iter().filter(|b| b.weight == most).collect();
    let heaviest = heaviest[heaviest.len() / 2].clone();
    let mut without = before.to_vec();
    without.retain(|backend| backend.id != heaviest.id);
    let newcomer = Backend {
        name: name(count + 1),
        weight: heaviest.weight,
        id: count + 1,
    };
    let mut changes = vec![
        Change {
            title: "removed",
            changed: heaviest.id,
            after: without,
        },
        Change {
            title: "added",
            changed: newcomer.id,
            after: [before, &[newcomer]].concat(),
        },
    ];
    if before.iter().any(|backend| backend.weight != most) {
        let mut lighter = before.to_vec();
        let of = lighter.iter_mut().find(|backend| backend.id == heaviest.id);
        let weight = &mut of.expect("it is there").weight;
        *weight = *weight * 7 / 10;
        changes.push(Change {
            title: "lighter",
            changed: heaviest.id,
            after: lighter,
        });
    }
    changes
}

/// The least that can move: what the shares differ by.
fn least(before: &[Backend], change: &Change) -> f64 {
    let share = |backends: &[Backend]| {
        let of = backends.iter().find(|b| b.id == change.changed);
        f64::from(of.map_or(0, |b| b.weight)) / weights(backends)
    };
    (share(before) - share(&change.after)).abs()
}

fn weights(backends: &[Backend]) -> f64 {
    backends.iter().map(|b| f64::from(b.weight)).sum()
}

/// One row for each map and kind of weights.
fn rows_of_maps(count: u32, items: [u64; 2]) -> Vec<Value> {
    let mut rows = vec![];
    for (title, weight) in &WEIGHTS[..2] {
        let all = backends(count, *weight);
        let mut found = vec![of_ours(&all, items)];
        // Points for each unit of weight take gigabytes, and are not built.
        let weights = weights(&all) as u64;
        if weights < 1_000_000 {
            found.push(of_map("nginx", &all, Nginx::of));
            found.push(of_map("HAProxy", &all, HaProxy::of));
        } else {
            let bytes = weights * Nginx::BYTES_OF_A_UNIT;
            found.push(json!({"map": "nginx", "bytes": bytes}));
            let bytes = weights * HaProxy::BYTES_OF_A_UNIT;
            found.push(json!({"map": "HAProxy", "bytes": bytes}));
        }
        found.push(of_map("Envoy RING_HASH", &all, Ring::of));
        found.push(of_map("Envoy MAGLEV", &all, Maglev::of));
        for row in &mut found {
            row["backends"] = json!(count);
            row["weights"] = json!(title);
        }
        rows.extend(found);
    }
    rows
}

/// By the lengths of arcs.
fn of_map<M: Map>(title: &str, all: &[Backend], of: fn(&[Backend]) -> M) -> Value {
    let before = of(all);
    let mut row = json!({"map": title, "bytes": before.bytes()});
    errors(&mut row, all, &shares(&before, all.len() as u32));
    for change in changes(all) {
        let (all_of_them, needless) = moved(&before, &of(&change.after), change.changed);
        tell(&mut row, &change, all, all_of_them, needless);
    }
    row
}

/// How far shares are from those that the weights say, in percent of them.
fn errors(row: &mut Value, all: &[Backend], shares: &[f64]) {
    let sum = weights(all);
    let errors = all.iter().map(|backend| {
        let exact = f64::from(backend.weight) / sum;
        100.0 * (shares[backend.id as usize] / exact - 1.0).abs()
    });
    let errors: Vec<f64> = errors.collect();
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    row["mean"] = json!(rounded(mean));
    row["most"] = json!(rounded(errors.into_iter().fold(0.0, f64::max)));
    let without = all.iter().filter(|b| shares[b.id as usize] == 0.0);
    row["without"] = json!(without.count());
}

/// What moved, where the least that can is 1.
fn tell(row: &mut Value, change: &Change, before: &[Backend], moved: f64, needless: f64) {
    let least = least(before, change);
    row[change.title] = json!(rounded(moved / least));
    row[format!("{}, needless", change.title)] = json!(rounded(needless / least));
}

/// By items, since the space of our map is not cut into arcs. Beside the errors stand those that chance alone gives for as many items. What a
/// change moves is found by the second number of them.
fn of_ours(all: &[Backend], [items, of_changes]: [u64; 2]) -> Value {
    let before = map(&mut pool(all), items.max(of_changes));
    let mut row = json!({"map": "hash", "bytes": bytes(all.len() as u64), "items": items});
    let shares = |chosen: &[u32]| {
        let mut shares = vec![0.0; all.len() + 1];
        for slot in &chosen[..items as usize] {
            shares[all[*slot as usize].id as usize] += 1.0 / items as f64;
        }
        shares
    };
    let mut by_chance = json!({});
    errors(&mut by_chance, all, &shares(&chosen_by_chance(all, items)));
    row["mean by chance"] = by_chance["mean"].take();
    row["most by chance"] = by_chance["most"].take();
    let of_before = shares(&before);
    errors(&mut row, all, &of_before);
    // χ² by degree of freedom is 1 where only chance is between items and weights.
    let sum = weights(all);
    let terms = all.iter().map(|backend| {
        let exact = f64::from(backend.weight) / sum;
        (of_before[backend.id as usize] - exact).powi(2) / exact
    });
    let degrees = all.len() as f64 - 1.0;
    row["chi-squared"] = json!(rounded(items as f64 * terms.sum::<f64>() / degrees));
    for change in changes(all) {
        let after = map(&mut pool(&change.after), of_changes);
        let (mut count, mut needless) = (0u64, 0u64);
        for (from, to) in before.iter().zip(&after) {
            let from = all[*from as usize].id;
            let to = change.after[*to as usize].id;
            if from != to {
                count += 1;
                needless += u64::from(from != change.changed && to != change.changed);
            }
        }
        let share = |count: u64| count as f64 / of_changes as f64;
        tell(&mut row, &change, all, share(count), share(needless));
        row[format!("{}, items", change.title)] = json!(count);
    }
    row
}

/// A hash for each backend, and the largest weight.
fn bytes(backends: u64) -> u64 {
    8 * backends + 2
}

fn map(pool: &mut Pool, items: u64) -> Vec<u32> {
    (0..items).map(|item| slot_of(pool, item)).collect()
}

fn slot_of(pool: &mut Pool, item: u64) -> u32 {
    let chosen = pool.pick_for(&item.to_le_bytes());
    let name = chosen.expect("one is eligible").name().to_vec();
    pool.slot(&name).expect("it is there") as u32
}

/// Slots as the weights say, by chance alone.
fn chosen_by_chance(all: &[Backend], items: u64) -> Vec<u32> {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(1);
    let ends = all.iter().scan(0u64, |sum, backend| {
        *sum += u64::from(backend.weight);
        Some(*sum)
    });
    let ends: Vec<u64> = ends.collect();
    let sum = u128::from(*ends.last().expect("a backend"));
    let drawn = (0..items).map(|_| {
        let number = ((u128::from(chance.next_u64()) * sum) >> 64) as u64;
        ends.partition_point(|end| *end <= number) as u32
    });
    drawn.collect()
}

// Instructions, which callgrind counts

/// Builds the map, looks items up, and takes one backend out.
fn count(title: &str, all: Vec<Backend>) {
    let change = &changes(&all)[0];
    let lookups = if all.len() > 10_000 { 100 } else { 1_000 };
    match title {
        "hash" => {
            let mut pool = pool(&all);
            slot_of(&mut pool, 0);
            look_up(lookups, |item| slot_of_pick(&mut pool, item));
            let gone = all.iter().find(|b| b.id == change.changed);
            let gone = gone.expect("it is there").name.as_bytes();
            counted(|| pool.remove(gone));
        }
        "nginx" => of_rebuilt(lookups, &all, change, Nginx::of),
        "Envoy RING_HASH" => of_rebuilt(lookups, &all, change, Ring::of),
        "Envoy MAGLEV" => of_rebuilt(lookups, &all, change, Maglev::of),
        "HAProxy" => {
            let map = HaProxy::of(&all);
            let mut tree = map.tree();
            look_up(lookups, |item| map.choose(&item.to_le_bytes()));
            let weight = all[change.changed as usize - 1].weight;
            counted(|| HaProxy::reweigh(&mut tree, change.changed, weight, 0));
        }
        _ => panic!("no map is called {title}"),
    }
}

fn of_rebuilt<M: Map>(lookups: u64, all: &[Backend], change: &Change, of: fn(&[Backend]) -> M) {
    let map = of(all);
    look_up(lookups, |item| map.choose(&item.to_le_bytes()));
    counted(|| of(&change.after));
}

/// The first byte of the name keeps the pick from being left out.
fn slot_of_pick(pool: &mut Pool, item: u64) -> u8 {
    let chosen = pool.pick_for(&item.to_le_bytes());
    chosen.expect("one is eligible").name()[0]
}

fn look_up<T>(lookups: u64, mut choose: impl FnMut(u64) -> T) {
    counted(|| {
        for item in 0..lookups {
            black_box(choose(black_box(item)));
        }
    });
}

/// What it makes is dropped later.
fn counted<T>(work: impl FnOnce() -> T) {
    mark();
    let made = black_box(work());
    mark();
    drop(made);
}

/// Callgrind writes out its counters before this.
#[inline(never)]
fn mark() {
    black_box(());
}
