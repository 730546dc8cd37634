//! The queues of clients that wait for a backend: one for each key, first come first served. This file knows no server.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Bound;
use std::os::raw::c_int;

use crate::lb::{Algorithm, LeaseTerms, Millis, Pool, Request};

/// A key: its database and its name.
pub type At = (c_int, Box<[u8]>);

/// Names of backends, in order.
type Names = Box<[Box<[u8]>]>;

/// A pick that a client waits for: a [`Request`] that owns its names.
#[derive(Clone, Debug)]
pub struct Asked {
    algorithm: Option<Algorithm>,
    item: Option<Box<[u8]>>,
    count: usize,
    distinct: bool,
    exclude: Names,
    lease: Option<(Millis, Option<Box<[u8]>>)>,
}

/// The properties of a pick that decide whether it can be served now. Either all waiters of one kind can be served, or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The excluded backends, sorted, each once.
    excluded: Names,
    is_leasing: bool,
}

/// Whether leases are granted at present. A lease takes memory, so a server that is out of memory grants none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leasing {
    Granted,
    Refused,
}

/// The waiters at one key. A waiter is known by its arrival, a number that grows.
#[derive(Debug)]
struct Queue<W> {
    waiters: BTreeMap<u64, (Kind, W)>,
    kinds: HashMap<Kind, BTreeSet<u64>>,
    /// The first waiter of each kind, with the number of the kind. No other kind at this key has it.
    heads: BTreeMap<u64, u32>,
    /// The kinds that exclude a backend, for each backend that any kind excludes.
    excluding: HashMap<Box<[u8]>, KindSet>,
    /// The numbers of all kinds.
    known: KindSet,
}

/// A set of numbers of kinds, 64 to a word. Only words with any bit are kept.
#[derive(Clone, Debug, Default)]
struct KindSet(BTreeMap<u32, u64>);

impl KindSet {
    fn contains(&self, number: u32) -> bool {
        let word = self.0.get(&(number / 64));
        word.is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }

    fn insert(&mut self, number: u32) {
        *self.0.entry(number / 64).or_default() |= 1 << (number % 64);
    }

    fn remove(&mut self, number: u32) {
        if let Some(bits) = self.0.get_mut(&(number / 64)) {
            *bits &= !(1 << (number % 64));
            if *bits == 0 {
                self.0.remove(&(number / 64));
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the numbers that are in the other set too.
    fn keep_common(&mut self, other: &KindSet) {
        self.0.retain(|word, bits| {
            *bits &= other.0.get(word).copied().unwrap_or(0);
            *bits != 0
        });
    }

    /// The lowest number that is not in the set.
    fn first_missing(&self) -> u32 {
        let full = self
            .0
            .iter()
            .zip(0..)
            .take_while(|((word, bits), at)| **word == *at && **bits == u64::MAX);
        let word = full.count() as u32;
        word * 64 + self.0.get(&word).map_or(0, |bits| bits.trailing_ones())
    }
}

/// The queues of all keys. `C` identifies a client, and `W` is the data of its wait.
#[derive(Debug)]
pub struct Queues<C, W> {
    queues: BTreeMap<At, Queue<W>>,
    clients: HashMap<C, (At, u64)>,
    arrivals: u64,
}

impl Asked {
    pub fn of(request: &Request) -> Asked {
        let terms = request.terms;
        Asked {
            algorithm: request.algorithm,
            item: request.item.map(Into::into),
            count: request.count,
            distinct: request.distinct,
            exclude: request.exclude.iter().map(|name| (*name).into()).collect(),
            lease: terms.map(|terms| (terms.span, terms.owner.map(Into::into))),
        }
    }

    pub fn request(&self) -> Request<'_> {
        Request {
            algorithm: self.algorithm,
            item: self.item.as_deref(),
            count: self.count,
            distinct: self.distinct,
            exclude: self.exclude.iter().map(|name| &**name).collect(),
            terms: self.lease.as_ref().map(|(span, owner)| LeaseTerms {
                span: *span,
                owner: owner.as_deref(),
            }),
        }
    }

    pub fn kind(&self) -> Kind {
        let mut excluded = self.exclude.to_vec();
        excluded.sort_unstable();
        excluded.dedup();
        Kind {
            excluded: excluded.into(),
            is_leasing: self.lease.is_some(),
        }
    }
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Queue {
            waiters: BTreeMap::new(),
            kinds: HashMap::new(),
            heads: BTreeMap::new(),
            excluding: HashMap::new(),
            known: KindSet::default(),
        }
    }
}

impl<W> Queue<W> {
    fn add(&mut self, arrival: u64, kind: Kind, waiter: W) {
        match self.kinds.get_mut(&kind) {
            Some(others) => _ = others.insert(arrival),
            None => {
                let number = self.known.first_missing();
                self.known.insert(number);
                for name in &kind.excluded {
                    self.excluding
                        .entry(name.clone())
                        .or_default()
                        .insert(number);
                }
                self.kinds.insert(kind.clone(), BTreeSet::from([arrival]));
                self.heads.insert(arrival, number);
            }
        }
        self.waiters.insert(arrival, (kind, waiter));
    }

    fn remove(&mut self, arrival: u64) -> Option<W> {
        let (kind, waiter) = self.waiters.remove(&arrival)?;
        let others = self.kinds.get_mut(&kind)?;
        others.remove(&arrival);
        if let Some(number) = self.heads.remove(&arrival) {
            match others.first() {
                Some(next) => _ = self.heads.insert(*next, number),
                None => {
                    self.kinds.remove(&kind);
                    self.known.remove(number);
                    for name in &kind.excluded {
                        let kinds = self.excluding.get_mut(name);
                        if kinds.is_some_and(|kinds| {
                            kinds.remove(number);
                            kinds.is_empty()
                        }) {
                            self.excluding.remove(name);
                        }
                    }
                }
            }
        }
        Some(waiter)
    }

    /// The first waiter that can be served from this pool.
    ///
    /// A kind cannot be served if it excludes every available backend. All kinds are tried together, 64 at a time: for each
    /// available backend only the kinds that exclude it too are left. The longest list of exclusions bounds the number of backends that
    /// are looked at.
    fn first(&self, pool: &Pool, leasing: impl FnOnce() -> Leasing) -> Option<&W> {
        if pool.available() == 0 {
            return None;
        }
        let mut unable = self.known.clone();
        for name in pool.eligible() {
            match self.excluding.get(name) {
                Some(kinds) => unable.keep_common(kinds),
                None => unable = KindSet::default(),
            }
            if unable.is_empty() {
                break;
            }
        }
        let mut heads = self.heads.iter();
        let mut able = heads
            .by_ref()
            .filter(|(_, number)| !unable.contains(**number));
        let (head, _) = able.next()?;
        let first = &self.waiters[head];
        if !first.0.is_leasing || leasing() == Leasing::Granted {
            return Some(&first.1);
        }
        let able = able.map(|(head, _)| &self.waiters[head]);
        able.filter(|(kind, _)| !kind.is_leasing)
            .map(|(_, waiter)| waiter)
            .next()
    }
}

impl<C, W> Default for Queues<C, W> {
    fn default() -> Self {
        Queues {
            queues: BTreeMap::new(),
            clients: HashMap::new(),
            arrivals: 0,
        }
    }
}

impl<C: Copy + Eq + Hash, W> Queues<C, W> {
    /// The number of clients that wait.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Puts a client at the end of the queue at that key.
    pub fn add(&mut self, at: At, client: C, kind: Kind, waiter: W) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.clients.insert(client, (at.clone(), arrival));
        let queue = self.queues.entry(at).or_default();
        queue.add(arrival, kind, waiter);
    }

    /// Takes a client out of its queue, if it waits.
    pub fn remove(&mut self, client: C) -> Option<W> {
        let (at, arrival) = self.clients.remove(&client)?;
        let queue = self.queues.get_mut(&at)?;
        let waiter = queue.remove(arrival)?;
        if queue.waiters.is_empty() {
            self.queues.remove(&at);
        }
        Some(waiter)
    }

    /// The key at which a client waits.
    pub fn place_of(&self, client: C) -> Option<&At> {
        self.clients.get(&client).map(|(at, _)| at)
    }

    /// The number of clients that wait at that key, and the data of the oldest wait.
    pub fn standing(&self, at: &At) -> Option<(usize, &W)> {
        let waiters = &self.queues.get(at)?.waiters;
        let (_, oldest) = waiters.values().next()?;
        Some((waiters.len(), oldest))
    }

    /// Whether a client waits at that key.
    pub fn is_any_at(&self, at: &At) -> bool {
        self.queues.contains_key(at)
    }

    /// The first waiter at that key that can be served from this pool.
    pub fn first(&self, at: &At, pool: &Pool, leasing: impl FnOnce() -> Leasing) -> Option<&W> {
        self.queues.get(at)?.first(pool, leasing)
    }

    /// All waiters at that key, in order.
    pub fn at(&self, at: &At) -> impl Iterator<Item = &W> {
        let queue = self.queues.get(at).into_iter();
        queue.flat_map(|queue| queue.waiters.values().map(|(_, waiter)| waiter))
    }

    /// The keys at which a client waits, in order, from the first key after `behind` on.
    pub fn keys(&self, behind: Option<&At>) -> impl Iterator<Item = &At> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.queues.range::<At, _>((from, Bound::Unbounded));
        keys.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(exclude: &[&'static str], lease: Option<Millis>) -> Asked {
        let terms = lease.map(|span| LeaseTerms { span, owner: None });
        Asked::of(&Request {
            algorithm: None,
            item: None,
            count: 1,
            distinct: false,
            exclude: exclude.iter().map(|name| name.as_bytes()).collect(),
            terms,
        })
    }

    fn at(name: &str) -> At {
        (0, name.as_bytes().into())
    }

    fn pool(names: &[&str]) -> Pool {
        let mut pool = Pool::new();
        names
            .iter()
            .for_each(|name| _ = pool.add(name.as_bytes(), None));
        pool
    }

    /// A queue at the key `web`. The clients are numbered in their order.
    fn queue(waiters: &[Asked]) -> Queues<usize, usize> {
        let mut queues = Queues::default();
        for (client, asked) in waiters.iter().enumerate() {
            queues.add(at("web"), client, asked.kind(), client);
        }
        queues
    }

    fn first(queues: &Queues<usize, usize>, pool: &Pool) -> Option<usize> {
        queues.first(&at("web"), pool, || Leasing::Granted).copied()
    }

    #[test]
    fn the_first_waiter_that_can_use_a_backend_is_served_and_the_others_keep_their_places() {
        let waiters = [
            asked(&["a"], None),
            asked(&["a", "b"], None),
            asked(&[], None),
            asked(&["a"], None),
        ];
        let mut queues = queue(&waiters);
        assert_eq!(first(&queues, &pool(&[])), None);
        assert_eq!(first(&queues, &pool(&["a"])), Some(2));
        assert_eq!(first(&queues, &pool(&["b"])), Some(0));
        assert_eq!(first(&queues, &pool(&["a", "b", "c"])), Some(0));
        assert_eq!(queues.remove(0), Some(0));
        assert_eq!(first(&queues, &pool(&["a", "b", "c"])), Some(1));
        assert_eq!(first(&queues, &pool(&["b"])), Some(2));
        assert_eq!(queues.remove(2), Some(2));
        assert_eq!(first(&queues, &pool(&["a"])), None);
        assert_eq!(first(&queues, &pool(&["b"])), Some(3));
        assert_eq!(queues.remove(2), None);
        queues.remove(1);
        queues.remove(3);
        assert!(!queues.is_any_at(&at("web")));
        assert_eq!(queues.len(), 0);
    }

    /// More kinds than a word has bits, each with a list of its own. Numbers of kinds that are gone are used again.
    #[test]
    fn of_many_kinds_the_one_that_can_use_a_backend_is_found() {
        let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
        let but = |left_out: usize| -> Vec<&'static str> {
            let all = names.iter().enumerate();
            all.filter(|(n, _)| *n != left_out)
                .map(|(_, name)| *name)
                .collect()
        };
        let waiters: Vec<Asked> = (0..200).map(|n| asked(&but(n), None)).collect();
        let mut queues = queue(&waiters);
        for round in 0..3 {
            for n in [0, 63, 64, 65, 130, 199] {
                assert_eq!(first(&queues, &pool(&[names[n]])), Some(round * 1000 + n));
                assert_eq!(queues.remove(round * 1000 + n), Some(round * 1000 + n));
                assert_eq!(first(&queues, &pool(&[names[n]])), None);
                let client = (round + 1) * 1000 + n;
                queues.add(at("web"), client, asked(&but(n), None).kind(), client);
            }
            assert_eq!(queues.queues[&at("web")].known.first_missing(), 200);
        }
        assert_eq!(first(&queues, &pool(&[])), None);
        assert_eq!(first(&queues, &pool(&names)), Some(1));
    }

    #[test]
    fn where_no_lease_is_granted_only_waiters_for_a_lease_wait_on() {
        let queues = queue(&[asked(&[], Some(5)), asked(&["a"], None), asked(&[], None)]);
        let served = |leasing| queues.first(&at("web"), &pool(&["a"]), || leasing).copied();
        assert_eq!(served(Leasing::Granted), Some(0));
        assert_eq!(served(Leasing::Refused), Some(2));
    }

    #[test]
    fn keys_do_not_mix_and_are_listed_in_order() {
        let mut queues = Queues::default();
        for (client, name) in ["c", "a", "b"].into_iter().enumerate() {
            queues.add(at(name), client, asked(&[], None).kind(), client);
        }
        let keys = |behind: Option<&At>| queues.keys(behind).cloned().collect::<Vec<_>>();
        assert_eq!(keys(None), [at("a"), at("b"), at("c")]);
        assert_eq!(keys(Some(&at("a"))), [at("b"), at("c")]);
        assert_eq!(queues.at(&at("c")).copied().collect::<Vec<_>>(), [0]);
        assert_eq!(queues.at(&at("d")).count(), 0);
    }

    #[test]
    fn a_request_is_kept_as_it_was_asked() {
        let request = Request {
            algorithm: Algorithm::by_name(b"hash"),
            item: Some(b"item"),
            count: 3,
            distinct: true,
            exclude: vec![b"b", b"a", b"b"],
            terms: Some(LeaseTerms {
                span: 7,
                owner: Some(b"me"),
            }),
        };
        let asked = Asked::of(&request);
        assert_eq!(format!("{:?}", asked.request()), format!("{request:?}"));
    }
}
