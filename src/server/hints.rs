//! The list of the pools in which something is due, and of the moments at which it is waited for. It knows no server.
//!
//! A value does not know its key, so the list holds hints: look at that key at that time. A hint is checked when its time has
//! come; it may be wrong, but there is one for each pool in which something is due, on replicas too, for the day on which
//! they are primaries.

use std::collections::BTreeSet;
use std::os::raw::c_int;

use crate::lb::Millis;

/// No hint is for a time farther away, so those of pools that are gone do not pile up.
const HORIZON: Millis = 60_000;
/// The time of a hint that is of use in any case.
pub const AT_ONCE: Millis = 0;
/// Whichever databases there are.
pub const ANY: c_int = -1;

/// A time by the server's clock, a database, and the name of a key.
pub type Hint = (Millis, c_int, Box<[u8]>);

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Hints {
    keys: BTreeSet<Hint>,
    /// Moments at which somebody waits for what is due then. A look at any other time does as well, but later.
    awaited: BTreeSet<Millis>,
}

/// The latest time that a hint can be for. In whole seconds, so that a pool that comes and goes has 60 at most.
pub fn horizon(now: Millis) -> Millis {
    (now + HORIZON).next_multiple_of(1000)
}

impl Hints {
    /// None at all.
    pub const fn new() -> Hints {
        Hints {
            keys: BTreeSet::new(),
            awaited: BTreeSet::new(),
        }
    }

    /// Something will be due at that key.
    pub fn add(&mut self, time: Millis, db: c_int, key: &[u8]) {
        self.keys.insert((time, db, key.into()));
    }

    /// Whether the time of any hint has come.
    pub fn is_due(&self, now: Millis) -> bool {
        self.keys.first().is_some_and(|(time, _, _)| *time <= now)
    }

    /// Takes the first hint out of the list, if its time has come.
    pub fn pop(&mut self, now: Millis) -> Option<Hint> {
        self.is_due(now).then(|| self.keys.pop_first())?
    }

    /// Somebody waits for what is due then.
    pub fn await_at(&mut self, time: Millis) {
        self.awaited.insert(time);
    }

    /// The first moment after `now` at which somebody waits for something. Earlier ones are forgotten.
    pub fn awaited(&mut self, now: Millis) -> Option<Millis> {
        self.awaited = self.awaited.split_off(&(now + 1));
        self.awaited.first().copied()
    }

    /// Every pool is to be looked at, because it may be another time for it.
    pub fn look_at_all(&mut self) {
        let all = std::mem::take(&mut self.keys).into_iter();
        self.keys = all.map(|(_, db, key)| (AT_ONCE, db, key)).collect();
    }

    /// The keys of two databases have changed places.
    pub fn swap(&mut self, a: c_int, b: c_int) {
        let all = std::mem::take(&mut self.keys).into_iter();
        let swapped = |db| match db {
            db if db == a => b,
            db if db == b => a,
            db => db,
        };
        self.keys = all
            .map(|(time, db, key)| (time, swapped(db), key))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(time: Millis, db: c_int, key: &[u8]) -> Option<Hint> {
        Some((time, db, key.into()))
    }

    #[test]
    fn a_hint_comes_out_when_its_time_has_come() {
        let mut hints = Hints::new();
        hints.add(20, 0, b"b");
        hints.add(10, 0, b"a");
        assert_eq!(hints.pop(9), None);
        assert_eq!(hints.pop(25), hint(10, 0, b"a"));
        hints.look_at_all();
        assert_eq!(hints.pop(0), hint(AT_ONCE, 0, b"b"));
        assert_eq!(hints.pop(99), None);
    }

    #[test]
    fn hints_follow_their_databases() {
        let mut hints = Hints::new();
        for db in 0..3 {
            hints.add(1, db, b"a");
        }
        hints.add(1, 0, b"b");
        hints.swap(0, 2);
        let swapped: Vec<Hint> = std::iter::from_fn(|| hints.pop(1)).collect();
        let dbs: Vec<c_int> = swapped.iter().map(|(_, db, _)| *db).collect();
        assert_eq!(dbs, [0, 1, 2, 2]);
        assert_eq!(swapped[3], (1, 2, b"b"[..].into()));
    }

    #[test]
    fn moments_that_are_over_are_forgotten() {
        let mut hints = Hints::new();
        [30, 10, 20]
            .into_iter()
            .for_each(|time| hints.await_at(time));
        assert_eq!(hints.awaited(9), Some(10));
        assert_eq!(hints.awaited(10), Some(20));
        assert_eq!(hints.awaited(25), Some(30));
        assert_eq!(hints.awaited(30), None);
        assert!(hints.awaited.is_empty());
    }

    #[test]
    fn a_pool_that_comes_and_goes_has_few_hints() {
        assert_eq!(horizon(1), 61_000);
        assert_eq!(horizon(999), horizon(1));
    }
}
