//! Any words, with blanks between, as the arguments of LB.PICK and of LB.ADD: what is understood says what the words
//! say, and a pool bears it; what is refused is refused in one line.

#![no_main]

use std::collections::{HashMap, HashSet};

use libfuzzer_sys::fuzz_target;
use redis_lb::commands::arguments::{PickWords, pairs, pick_words};
use redis_lb::lb::{COUNT_MAX, EXCLUDE_MAX, NAME_MAX, Pool};
use redis_lb::server::Error;

fuzz_target!(|data: &[u8]| {
    let words: Vec<&[u8]> = data.split(|byte| *byte == b' ').collect();
    match pick_words(words.iter().copied()) {
        Ok(read) => is_understood(&read, &words),
        Err(error) => is_one_line(&error),
    }
    match pairs(words.iter().copied()) {
        Ok(pairs) => are_the_last(&pairs, &words),
        Err(error) => is_one_line(&error),
    }
});

fn is_understood(read: &PickWords, words: &[&[u8]]) {
    let request = &read.request;
    assert!((1..=COUNT_MAX).contains(&request.count));
    assert!(request.exclude.len() <= EXCLUDE_MAX);
    assert_eq!(in_any_order(&written(read)), in_any_order(words));

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
    if let Some(millis) = read.block {
        words.extend(["BLOCK".into(), millis.to_string().into()]);
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

fn is_one_line(error: &Error) {
    let message = error.message();
    let is_printable = message.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    assert!(message.starts_with("ERR ") && is_printable, "{message}");
}
