//! The hints: which keys to look at, and when, because something is due in a pool. And the moments at which a client waits
//! for something that is due then. This file knows no server.
//!
//! A value does not know its key, so a hint names a key and a time. It is checked when its time has come, and it may be wrong.
//! But every pool in which something is due has a hint. That is so on replicas too, because a replica may become a primary.

use std::collections::BTreeSet;
use std::os::raw::c_int;

use crate::lb::Millis;

/// A hint is at most this far ahead, so that the hints of deleted pools do not pile up.
const HORIZON: Millis = 60_000;
/// The time of a hint that is always valid.
pub const AT_ONCE: Millis = 0;
/// Stands for every database.
pub const ANY: c_int = -1;

/// A time by the server's clock, a database, and the name of a key.
pub type Hint = (Millis, c_int, Box<[u8]>);

/// The hints and the awaited moments. See the head of the file.
#[derive(Debug, Default)]
pub struct Hints {
    keys: BTreeSet<Hint>,
    /// Moments at which something is due that a client waits for. Without them the client is served too, but later.
    awaited: BTreeSet<Millis>,
}

/// The latest time that a hint can have. It is in whole seconds, so that a pool that is deleted and created again and again
/// has at most 60 hints.
pub fn horizon(now: Millis) -> Millis {
    (now + HORIZON).next_multiple_of(1000)
}

impl Hints {
    /// No hints and no awaited moments.
    pub const fn new() -> Hints {
        Hints {
            keys: BTreeSet::new(),
            awaited: BTreeSet::new(),
        }
    }

    /// Adds a hint: something will be due at that key.
    pub fn add(&mut self, time: Millis, db: c_int, key: &[u8]) {
        self.keys.insert((time, db, key.into()));
    }

    /// Whether the time of any hint has come.
    pub fn is_due(&self, now: Millis) -> bool {
        self.keys.first().is_some_and(|(time, _, _)| *time <= now)
    }

    /// Takes out the first hint, if its time has come.
    pub fn pop(&mut self, now: Millis) -> Option<Hint> {
        self.is_due(now).then(|| self.keys.pop_first())?
    }

    /// Adds a moment: a client waits for something that is due then.
    pub fn await_at(&mut self, time: Millis) {
        self.awaited.insert(time);
    }

    /// The first awaited moment after `now`. Forgets the moments up to `now`.
    pub fn awaited(&mut self, now: Millis) -> Option<Millis> {
        self.awaited = self.awaited.split_off(&(now + 1));
        self.awaited.first().copied()
    }

    /// Makes every hint due at once, because the time of the pools may have changed.
    pub fn look_at_all(&mut self) {
        let all = std::mem::take(&mut self.keys).into_iter();
        self.keys = all.map(|(_, db, key)| (AT_ONCE, db, key)).collect();
    }

    /// Follows a SWAPDB: the keys of two databases have changed places.
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
