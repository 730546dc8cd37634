//! Any words, with blanks between, as the arguments of LB.PICK, LB.ADD, LB.DONE, LB.REPORT, LB.LIMIT and LB.HEALTH: what is understood says what the words
//! say, and a pool bears it; what is refused is refused in one line.

#![no_main]

use std::collections::{HashMap, HashSet};

use libfuzzer_sys::fuzz_target;
use redis_lb::commands::arguments::{PickWords, StickyForm, pairs, pick_words};
use redis_lb::commands::health_words::health_words;
use redis_lb::commands::limit_words::{LimitWords, limit_words};
use redis_lb::commands::report_words::{Teller, Told, report_words};
use redis_lb::lb::{
    COSTS_NAMED_MAX, COUNT_MAX, Cost, EXCLUDE_MAX, HealthSettings, LOAD_MAX, Limited, NAME_MAX, Outcome, Pool,
    RATE_MAX, SPAN_MAX,
};
use redis_lb::server::Error;

fuzz_target!(|data: &[u8]| {
    let words: Vec<&[u8]> = data.split(|byte| *byte == b' ').collect();
    match pick_words(words.iter().copied(), StickyForm::Pinning) {
        Ok(read) => is_understood(&read, &words),
        Err(error) => is_one_line(&error),
    }
    match pairs(words.iter().copied()) {
        Ok(pairs) => are_the_last(&pairs, &words),
        Err(error) => is_one_line(&error),
    }
    for teller in [Teller::Done, Teller::Report] {
        match report_words(teller, words.iter().copied()) {
            Ok(told) => is_told(&told, &words),
            Err(error) => is_one_line(&error),
        }
    }
    match limit_words(words.iter().copied()) {
        Ok(read) => are_limits(&read),
        Err(error) => is_one_line(&error),
    }
    match health_words(words.iter().copied()) {
        Ok(read) => are_settings(&read.over(&HealthSettings::default()), &words),
        Err(error) => is_one_line(&error),
    }
});

fn is_understood(read: &PickWords, words: &[&[u8]]) {
    let request = &read.request;
    assert!((1..=COUNT_MAX).contains(&request.count));
    assert!(request.exclude.len() <= EXCLUDE_MAX);
    let mut written = written(read);
    if written.len() < words.len() {
        // It says what is so anyway.
        written.extend(["PRIO".into(), "0".into()]);
    }
    if !names_a_cost_twice(&request.costs, words) {
        assert_eq!(in_any_order(&written), in_any_order(words));
    }

    let mut pool = Pool::new();
    for backend in [&b"a"[..], b"COUNT", b"1"] {
        pool.add(backend, None);
    }
    let picked = pool.picks(request);
    assert_eq!(
        picked.lease.is_some(),
        request.terms.is_some() && !picked.slots.is_empty()
    );
    let picked = picked.slots;
    let different: HashSet<&[u8]> = picked.iter().map(|slot| pool.name(*slot)).collect();
    assert!(picked.len() <= request.count);
    assert!(!request.distinct || different.len() == picked.len());
    assert!(request.exclude.iter().all(|name| !different.contains(name)));
}

/// The words that say what was understood.
fn written(read: &PickWords) -> Vec<Vec<u8>> {
    let mut words = read.to_words();
    if let Some(block) = &read.block {
        words.extend(["BLOCK".into(), block.millis.to_string().into()]);
        if block.prio > 0 {
            words.extend(["PRIO".into(), block.prio.to_string().into()]);
        }
        if let Some(tenant) = block.tenant {
            words.extend(["FOR".into(), tenant.to_vec()]);
        }
    }
    words
}

fn in_any_order<W: AsRef<[u8]>>(words: &[W]) -> Vec<Vec<u8>> {
    let upper = words.iter().map(|word| word.as_ref().to_ascii_uppercase());
    let mut words: Vec<_> = upper.collect();
    words.sort();
    words
}

fn are_the_last(pairs: &[(&[u8], u16)], words: &[&[u8]]) {
    let last: HashMap<&[u8], &[u8]> = words.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!(pairs.len(), last.len());
    for (backend, weight) in pairs {
        assert!((1..=NAME_MAX).contains(&backend.len()));
        assert_eq!(last[backend], weight.to_string().as_bytes());
    }
}

/// All words are in the report, and a pool bears it.
fn is_told(said: &Told, words: &[&[u8]]) {
    let report = &said.report;
    assert!(
        report
            .cool
            .is_none_or(|span| (1..=SPAN_MAX).contains(&span))
    );
    assert!(report.load.is_none_or(|load| load <= LOAD_MAX));
    let mut told: Vec<Vec<u8>> = vec![];
    told.extend(report.outcome.map(|outcome| match outcome {
        Outcome::Ok => b"OK".into(),
        Outcome::Fail => b"FAIL".into(),
    }));
    let latency = report.latency.map(|micros| ("LATENCY", micros));
    let cool = report.cool.map(|millis| ("COOL", millis));
    for (word, number) in latency.into_iter().chain(cool) {
        told.extend([word.into(), number.to_string().into()]);
    }
    if report.load.is_some() {
        let at = words
            .iter()
            .position(|word| word.eq_ignore_ascii_case(b"LOAD"));
        let load = words[at.expect("it was told") + 1];
        told.extend([b"LOAD".into(), load.to_vec()]);
        let near: f64 = std::str::from_utf8(load)
            .expect("digits")
            .parse()
            .expect("a number");
        assert!((near * 1e6 - f64::from(report.load.unwrap_or(0))).abs() < 1.01);
    }
    if !said.costs.is_empty() {
        told.extend([b"COSTS".into(), said.costs.len().to_string().into()]);
    }
    if said.left.is_some() {
        told.push(b"LEFT".into());
    }
    for (name, amount) in said.costs.iter().chain(&said.left) {
        told.extend([name.to_vec(), amount.to_string().into()]);
    }
    if !names_a_cost_twice(&said.costs, words) {
        assert_eq!(in_any_order(&told), in_any_order(words));
    }

    let mut pool = Pool::new();
    pool.add(b"a", None);
    pool.report(b"a", report);
    said.left.iter().for_each(|left| _ = pool.lower(b"a", *left));
    pool.check();
}

/// Whether some of what was said of costs counts no more: of one that is named twice the last amount counts. Then all are in
/// their ranges at least.
fn names_a_cost_twice(costs: &[Cost], words: &[&[u8]]) -> bool {
    assert!(costs.len() <= COSTS_NAMED_MAX);
    assert!(costs.iter().all(|(name, amount)| {
        (1..=NAME_MAX).contains(&name.len()) && *amount <= RATE_MAX
    }));
    let number = costs.len().to_string();
    let mut pairs = words.windows(2);
    !costs.is_empty()
        && !pairs.any(|pair| {
            pair[0].eq_ignore_ascii_case(b"COSTS") && pair[1] == number.as_bytes()
        })
}

/// They are in their ranges, and a pool bears them.
fn are_limits(read: &LimitWords) {
    let rates = read.costs.iter().filter_map(|(_, rate)| *rate);
    for rate in rates.chain(read.limits.rate.flatten()) {
        assert!((1..=RATE_MAX).contains(&rate.picks) && (1..=RATE_MAX).contains(&rate.burst));
        assert!((1..=SPAN_MAX).contains(&rate.millis));
    }
    let mut pool = Pool::new();
    pool.add(b"a", None);
    if let Limited::Backend(name) = read.limited {
        assert!((1..=NAME_MAX).contains(&name.len()));
        pool.add(name, None);
    }
    if pool.has_room_for_costs(read.costs.iter().map(|(name, _)| *name)) {
        pool.set_costs(read.limited, &read.costs);
    }
    match read.limited {
        Limited::Pool => _ = pool.set_limits(None, &read.limits),
        Limited::Each => _ = pool.set_limits_of_each(&read.limits),
        Limited::Backend(name) => _ = pool.set_limits(Some(name), &read.limits),
    }
    pool.check();
}

/// They are in their ranges, and a pool bears them.
fn are_settings(settings: &HealthSettings, words: &[&[u8]]) {
    assert!(settings.is_sound());
    assert!(words.len() % 2 == 0 && words.len() <= 16);
    let mut pool = Pool::new();
    pool.add(b"a", None);
    assert_eq!(
        pool.set_health(*settings),
        *settings != HealthSettings::default()
    );
    pool.check();
    assert_eq!(pool.health_settings(), *settings);
}

fn is_one_line(error: &Error) {
    let message = error.message();
    let is_printable = message.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    assert!(message.starts_with("ERR ") && is_printable, "{message}");
}
