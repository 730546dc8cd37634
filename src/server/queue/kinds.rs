//! The kinds of waiters at one key. Either all waiters of one kind find a backend, or none does, costs aside. Of those that name the same
//! costs one that lacks them keeps back all that come later.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::lb::{Pool, Sticky};

/// Names of backends, in order.
pub type Names = Box<[Box<[u8]>]>;

/// The properties of a pick that decide whether it can be served now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The excluded backends, sorted, each once.
    pub(super) excluded: Names,
    /// The names of the costs that it takes, sorted.
    pub costs: Names,
    /// Whether it takes memory: a lease, or a session.
    pub is_leasing: bool,
    /// The session, if it is a pick for one.
    pub(super) sticky: Option<Sticky>,
}

impl Kind {
    /// Whether a pick of this kind finds a backend, where it does so (or not) without a session.
    fn can_be_served(&self, without_session: bool, pool: &Pool) -> bool {
        let Some(sticky) = &self.sticky else {
            return without_session;
        };
        without_session && !sticky.is_strict || {
            let exclude: Vec<&[u8]> = self.excluded.iter().map(|name| &**name).collect();
            pool.has_eligible_for_session(&exclude, sticky)
        }
    }
}

/// All kinds, by numbers that are as low as can be.
#[derive(Debug, Default)]
pub struct Kinds {
    numbers: HashMap<Rc<Kind>, u32>,
    /// Each kind, and the number of its waiters.
    kinds: HashMap<u32, (Rc<Kind>, usize)>,
    /// The kinds that exclude a backend, for each backend that any kind excludes.
    excluding: HashMap<Box<[u8]>, KindSet>,
    /// The kinds that name a cost, for each cost that any kind names.
    naming: HashMap<Box<[u8]>, KindSet>,
    leasing: KindSet,
    /// The kinds of sessions.
    sticky: KindSet,
    known: KindSet,
}

impl Kinds {
    /// Counts one waiter more of that kind. Answers the number of the kind.
    pub fn join(&mut self, kind: Kind) -> u32 {
        if let Some(number) = self.numbers.get(&kind).copied() {
            if let Some((_, waiters)) = self.kinds.get_mut(&number) {
                *waiters += 1;
            }
            return number;
        }
        let number = self.known.first_missing();
        self.known.insert(number);
        for (names, kinds) in [
            (&kind.excluded, &mut self.excluding),
            (&kind.costs, &mut self.naming),
        ] {
            for name in names {
                kinds.entry(name.clone()).or_default().insert(number);
            }
        }
        if kind.is_leasing {
            self.leasing.insert(number);
        }
        if kind.sticky.is_some() {
            self.sticky.insert(number);
        }
        let kind = Rc::new(kind);
        self.numbers.insert(kind.clone(), number);
        self.kinds.insert(number, (kind, 1));
        number
    }

    /// Counts one waiter less of that kind.
    pub fn leave(&mut self, number: u32) {
        let Some((kind, waiters)) = self.kinds.get_mut(&number) else {
            return;
        };
        *waiters -= 1;
        if *waiters > 0 {
            return;
        }
        let kind = kind.clone();
        self.kinds.remove(&number);
        self.numbers.remove(&kind);
        self.known.remove(number);
        self.leasing.remove(number);
        self.sticky.remove(number);
        for (names, all) in [
            (&kind.excluded, &mut self.excluding),
            (&kind.costs, &mut self.naming),
        ] {
            for name in names {
                let kinds = all.get_mut(name);
                if kinds.is_some_and(|kinds| {
                    kinds.remove(number);
                    kinds.is_empty()
                }) {
                    all.remove(name);
                }
            }
        }
    }

    /// The kind of that number.
    pub fn kind(&self, number: u32) -> &Kind {
        &self.kinds[&number].0
    }

    /// All kinds.
    pub fn known(&self) -> &KindSet {
        &self.known
    }

    /// Those that ask for leases.
    pub fn leasing(&self) -> &KindSet {
        &self.leasing
    }

    /// Those that name a cost.
    pub fn naming(&self, cost: &[u8]) -> Option<&KindSet> {
        self.naming.get(cost)
    }

    /// Whether any waits for the backend of a session.
    pub fn is_any_sticky(&self) -> bool {
        !self.sticky.is_empty()
    }

    /// The kinds that cannot be served. For each session that waits, its pin is looked at.
    pub fn out(&self, pool: &Pool) -> Cow<'_, KindSet> {
        let mut out = match pool.available() {
            0 => Cow::Borrowed(&self.known),
            _ => self.excluding_all(pool),
        };
        for number in self.sticky.but(&KindSet::default()) {
            let is_out = out.contains(number);
            let can_be_served = self.kind(number).can_be_served(!is_out, pool);
            match (is_out, can_be_served) {
                (true, true) => out.to_mut().remove(number),
                (false, false) => out.to_mut().insert(number),
                _ => {}
            }
        }
        out
    }

    /// The kinds that exclude every backend that can be picked. There is such a backend.
    ///
    /// All kinds are tried together, 64 at a time: for each available backend only the kinds that exclude it too are left. The
    /// longest list of exclusions bounds the number of backends that are looked at. Backends that all kinds exclude, or none, cost
    /// only a look.
    fn excluding_all(&self, pool: &Pool) -> Cow<'_, KindSet> {
        let mut out = Cow::Borrowed(&self.known);
        for name in pool.eligible() {
            let Some(kinds) = self.excluding.get(name) else {
                return Cow::default();
            };
            if out.len() == self.known.len() {
                out = Cow::Borrowed(kinds);
            } else if kinds.len() < self.known.len() {
                out.to_mut().keep_common(kinds);
                if out.is_empty() {
                    break;
                }
            }
        }
        out
    }
}

/// A set of numbers of kinds, 64 to a word. Only words with any bit are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindSet {
    words: BTreeMap<u32, u64>,
    len: usize,
}

impl KindSet {
    pub fn contains(&self, number: u32) -> bool {
        let word = self.words.get(&(number / 64));
        word.is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }

    pub fn insert(&mut self, number: u32) {
        let bits = self.words.entry(number / 64).or_default();
        let bit = 1 << (number % 64);
        self.len += usize::from(*bits & bit == 0);
        *bits |= bit;
    }

    pub fn remove(&mut self, number: u32) {
        if let Some(bits) = self.words.get_mut(&(number / 64)) {
            let bit = 1 << (number % 64);
            self.len -= usize::from(*bits & bit != 0);
            *bits &= !bit;
            if *bits == 0 {
                self.words.remove(&(number / 64));
            }
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps the numbers that are in the other set too.
    fn keep_common(&mut self, other: &KindSet) {
        self.words.retain(|word, bits| {
            *bits &= other.words.get(word).copied().unwrap_or(0);
            *bits != 0
        });
        self.count();
    }

    /// Adds the numbers of the other set.
    pub fn add_all(&mut self, other: &KindSet) {
        for (word, bits) in &other.words {
            *self.words.entry(*word).or_default() |= bits;
        }
        self.count();
    }

    fn count(&mut self) {
        self.len = self
            .words
            .values()
            .map(|bits| bits.count_ones() as usize)
            .sum();
    }

    /// The numbers that are not in the other set.
    pub fn but<'a>(&'a self, other: &'a KindSet) -> impl Iterator<Item = u32> + 'a {
        self.words.iter().flat_map(|(word, bits)| {
            let mut left = bits & !other.words.get(word).copied().unwrap_or(0);
            std::iter::from_fn(move || {
                let lowest = (left > 0).then(|| word * 64 + left.trailing_zeros())?;
                left &= left - 1;
                Some(lowest)
            })
        })
    }

    /// The lowest number that is not in the set.
    pub fn first_missing(&self) -> u32 {
        let full = self
            .words
            .iter()
            .zip(0..)
            .take_while(|((word, bits), at)| **word == *at && **bits == u64::MAX);
        let word = full.count() as u32;
        word * 64 + self.words.get(&word).map_or(0, |bits| bits.trailing_ones())
    }
}
