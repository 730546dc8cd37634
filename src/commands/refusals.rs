//! The errors of the commands. Each text names the fault and the remedy.

use std::ops::RangeInclusive;

use crate::lb::{NAME_MAX, WEIGHT_MAX};
use crate::server::Error;

impl Error {
    /// LB.ADD with an odd number of words, 3 or more: neither one backend nor pairs.
    #[cold]
    pub fn odd_pairs() -> Error {
        Error::fixed(
            "ERR not every backend has a weight: LB.ADD takes one backend, or `backend weight` pairs; to add many with weight 1 \
         give each its 1, or pipeline one LB.ADD for each",
        )
    }

    /// LB.SET or LB.WEIGHT with a backend that lacks its weight.
    #[cold]
    pub fn no_weight() -> Error {
        Error::fixed("ERR not every backend has a weight: give `backend weight` pairs")
    }

    /// DISTINCT without COUNT.
    #[cold]
    pub fn distinct_alone() -> Error {
        Error::fixed("ERR DISTINCT needs COUNT: a single pick repeats none")
    }

    /// OWNER without LEASE.
    #[cold]
    pub fn owner_alone() -> Error {
        Error::fixed("ERR OWNER needs LEASE: without one nothing is held")
    }

    /// BURST without a RATE or COST that is more than 0.
    #[cold]
    pub fn burst_alone() -> Error {
        Error::fixed(
            "ERR BURST needs RATE or COST before it: it is how much of that can come at once",
        )
    }

    /// STRICT without STICKY.
    #[cold]
    pub fn strict_alone() -> Error {
        Error::fixed("ERR STRICT needs STICKY: it holds a session to its backend")
    }

    /// STICKY with COUNT above 1.
    #[cold]
    pub fn sticky_many() -> Error {
        Error::fixed("ERR STICKY picks one backend, that of its session: COUNT can only be 1")
    }

    /// PRIO or FOR without BLOCK.
    #[cold]
    pub fn place_alone() -> Error {
        Error::fixed("ERR PRIO and FOR need BLOCK: without one nobody waits")
    }

    /// A pick by latency without LEASE.
    #[cold]
    pub fn latency_without_lease() -> Error {
        Error::fixed("ERR ewma goes by leases: LEASE ms grants one")
    }

    /// `hash` at the end.
    #[cold]
    pub fn no_item() -> Error {
        Error::fixed("ERR hash needs an item, as in LB.PICK key hash item")
    }

    /// LB.POLICY with `hash`.
    #[cold]
    pub fn policy_without_item() -> Error {
        Error::fixed(
            "ERR hash is no policy: it needs an item with each pick, as in LB.PICK key hash item",
        )
    }

    /// LB.PEEK with an option that only LB.PICK has.
    #[cold]
    pub fn peek_takes_nothing() -> Error {
        Error::fixed(
            "ERR LB.PEEK changes nothing: it takes neither STRICT nor LEASE nor COSTS nor BLOCK",
        )
    }

    /// A command that takes memory, on a server that is out of memory.
    #[cold]
    pub fn out_of_memory() -> Error {
        Error::fixed("OOM command not allowed when used memory > 'maxmemory'.")
    }

    /// LB.PEEK with an algorithm that picks by chance.
    #[cold]
    pub fn by_chance() -> Error {
        Error::fixed(
            "ERR chance cannot be foreseen: LB.PEEK takes rr, wrr, lc, ewma or hash, and a policy that is one of them",
        )
    }

    /// More backends than a pool can have.
    #[cold]
    pub fn pool_full() -> Error {
        Error::fixed("ERR the pool would have more than 16777216 backends")
    }

    /// A name or an item that is empty or too long.
    #[cold]
    pub fn length(what: &str, bytes: &[u8]) -> Error {
        let len = bytes.len();
        Error::new(format!("ERR {what} has 1 to {NAME_MAX} bytes, not {len}"))
    }

    /// The name of a cost where the number of costs should be.
    pub fn costs_without_number(word: &[u8], range: RangeInclusive<u64>) -> Error {
        let number = Error::number("COSTS", word, range);
        Error::new(format!(
            "{}: the number of costs comes first, as in COSTS 1 tokens 500",
            number.message()
        ))
    }

    /// An invalid weight.
    pub fn weight(backend: &[u8], weight: &[u8]) -> Error {
        let (backend, weight) = (shown(backend), shown(weight));
        Error::new(format!(
            "ERR the weight of {backend} is {weight}, which is not an integer from 0 to {WEIGHT_MAX}"
        ))
    }

    /// A backend that is not in the pool.
    pub fn no_backend(name: &[u8]) -> Error {
        let name = shown(name);
        Error::new(format!(
            "NOBACKEND the pool has no backend {name}: LB.ADD adds one"
        ))
    }

    /// An argument that is not one of the valid words.
    pub fn not_one_of(what: &str, word: &[u8], words: &str) -> Error {
        let word = shown(word);
        Error::new(format!("ERR {word} is no {what}: {words}"))
    }

    /// A backend where the number of backends should be.
    pub fn exclude_without_number(word: &[u8], range: RangeInclusive<u64>) -> Error {
        let number = Error::number("EXCLUDE", word, range);
        Error::new(format!(
            "{}: the number of backends comes first, as in EXCLUDE 1 a",
            number.message()
        ))
    }

    /// An algorithm where an option should be.
    pub fn late_algorithm(word: &[u8]) -> Error {
        let word = shown(word);
        Error::new(format!(
            "ERR {word} stands among the options: one algorithm can be given, and it comes before them, right behind the key"
        ))
    }

    /// A keyword at the end, without its value.
    pub fn no_value(keyword: &str) -> Error {
        Error::new(format!("ERR {keyword} lacks its value"))
    }

    /// A keyword that is given twice.
    pub fn repeated(keyword: &[u8]) -> Error {
        let keyword = shown(keyword);
        Error::new(format!("ERR {keyword} is given twice"))
    }

    /// An invalid utilisation.
    pub fn load(load: &[u8]) -> Error {
        let load = shown(load);
        Error::new(format!(
            "ERR LOAD is {load}, which is not a decimal number from 0 to 1000, as 0.75"
        ))
    }

    /// A number out of its range.
    pub fn number(what: &str, number: &[u8], range: RangeInclusive<u64>) -> Error {
        let number = shown(number);
        let (least, most) = range.into_inner();
        Error::new(format!(
            "ERR {what} is {number}, which is not an integer from {least} to {most}"
        ))
    }
}

/// Bytes from a client in a form for an error text: printable, quoted and not too long.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 64;
    let dots = if bytes.len() > MOST { "..." } else { "" };
    format!("'{}{dots}'", bytes[..bytes.len().min(MOST)].escape_ascii())
}
