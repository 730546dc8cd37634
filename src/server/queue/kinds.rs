//! The kinds of waiters at one key. Either all waiters of one kind find a backend, or none does, costs aside. Of those that name the same
//! costs one that lacks them keeps back all that come later.

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
    pub fn out(&self, pool: &Pool) -> KindSet {
        let mut out = match pool.available() {
            0 => self.known.clone(),
            _ => self.excluding_all(pool),
        };
        for number in self.sticky.but(&KindSet::default()) {
            match self.kind(number).can_be_served(!out.contains(number), pool) {
                true => out.remove(number),
                false => out.insert(number),
            }
        }
        out
    }

    /// The kinds that exclude every backend that can be picked. There is such a backend.
    ///
    /// All kinds are tried together, 64 at a time: for each available backend only the kinds that exclude it too are left. The
    /// longest list of exclusions bounds the number of backends that are looked at.
    fn excluding_all(&self, pool: &Pool) -> KindSet {
        let mut out: Option<KindSet> = None;
        for name in pool.eligible() {
            let Some(kinds) = self.excluding.get(name) else {
                return KindSet::default();
            };
            let left = out.get_or_insert_with(|| kinds.clone());
            left.keep_common(kinds);
            if left.is_empty() {
                break;
            }
        }
        out.unwrap_or_default()
    }
}

/// A set of numbers of kinds, 64 to a word. Only words with any bit are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindSet(BTreeMap<u32, u64>);

impl KindSet {
    pub fn contains(&self, number: u32) -> bool {
        let word = self.0.get(&(number / 64));
        word.is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }

    pub fn insert(&mut self, number: u32) {
        *self.0.entry(number / 64).or_default() |= 1 << (number % 64);
    }

    pub fn remove(&mut self, number: u32) {
        if let Some(bits) = self.0.get_mut(&(number / 64)) {
            *bits &= !(1 << (number % 64));
            if *bits == 0 {
                self.0.remove(&(number / 64));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the numbers that are in the other set too.
    fn keep_common(&mut self, other: &KindSet) {
        self.0.retain(|word, bits| {
            *bits &= other.0.get(word).copied().unwrap_or(0);
            *bits != 0
        });
    }

    /// Adds the numbers of the other set.
    pub fn add_all(&mut self, other: &KindSet) {
        for (word, bits) in &other.0 {
            *self.0.entry(*word).or_default() |= bits;
        }
    }

    /// The numbers that are not in the other set.
    pub fn but<'a>(&'a self, other: &'a KindSet) -> impl Iterator<Item = u32> + 'a {
        let words = self.0.iter().map(|(word, bits)| {
            let others = other.0.get(word).copied().unwrap_or(0);
            (*word, bits & !others)
        });
        words.flat_map(|(word, bits)| {
            let bits = (0..64).filter(move |bit| bits >> bit & 1 == 1);
            bits.map(move |bit| word * 64 + bit)
        })
    }

    /// The lowest number that is not in the set.
    pub fn first_missing(&self) -> u32 {
        let full = self
            .0
            .iter()
            .zip(0..)
            .take_while(|((word, bits), at)| **word == *at && **bits == u64::MAX);
        let word = full.count() as u32;
        word * 64 + self.0.get(&word).map_or(0, |bits| bits.trailing_ones())
    }
}
