//! The lines of waiters at one key, and their turns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::kinds::KindSet;
use super::line::{Line, NEAR, Place};

/// The waiters whose turn it is together: their number, and under `fair` the name for which they wait.
pub type LineKey = (u8, Option<Rc<[u8]>>);

/// All lines. None is empty.
#[derive(Debug, Default)]
pub struct Lines {
    /// The lines in the order in which they are served.
    lines: BTreeMap<Place, Line>,
    places: HashMap<LineKey, Place>,
    /// The lines in which each kind stands. Their places may be those of earlier turns; a search corrects the first ones.
    listed: HashMap<u32, BTreeMap<Place, LineKey>>,
    /// The number, the length and the turn of each line. The last waiter of all stands in the last of these lines.
    lengths: BTreeSet<(u8, usize, u64)>,
    turns: u64,
}

impl Lines {
    /// Puts a waiter at the end of a line. A new line stands behind all others of its number.
    pub fn add(&mut self, arrival: u64, key: LineKey, kind: u32) {
        let place = *self.places.entry(key.clone()).or_insert_with(|| {
            let place = (key.0, self.turns);
            self.turns += 1;
            place
        });
        let line = self.lines.entry(place).or_default();
        self.lengths.remove(&(place.0, line.len(), place.1));
        if line.add(arrival, kind, place) {
            self.listed.entry(kind).or_default().insert(place, key);
        }
        self.lengths.insert((place.0, line.len(), place.1));
    }

    /// Takes a waiter out of its line.
    pub fn remove(&mut self, arrival: u64, key: &LineKey, kind: u32) {
        let Some(place) = self.places.get(key).copied() else {
            return;
        };
        let Some(line) = self.lines.get_mut(&place) else {
            return;
        };
        self.lengths.remove(&(place.0, line.len(), place.1));
        let listed = line.remove(arrival, kind);
        match line.len() {
            0 => {
                self.lines.remove(&place);
                self.places.remove(key);
            }
            len => _ = self.lengths.insert((place.0, len, place.1)),
        }
        if let (Some(listed), Some(lines)) = (listed, self.listed.get_mut(&kind)) {
            lines.remove(&listed);
            if lines.is_empty() {
                self.listed.remove(&kind);
            }
        }
    }

    /// A line has had its turn: it goes to the end of those of its number.
    pub fn turn(&mut self, key: &LineKey) {
        let Some(place) = self.places.get_mut(key) else {
            return;
        };
        if let Some(line) = self.lines.remove(place) {
            self.lengths.remove(&(place.0, line.len(), place.1));
            place.1 = self.turns;
            self.turns += 1;
            self.lengths.insert((place.0, line.len(), place.1));
            self.lines.insert(*place, line);
        }
    }

    /// The first waiter of the number `most` or a lower one whose kind is not among those that are out. `known` are all kinds.
    pub fn first(&mut self, most: u8, known: &KindSet, out: &KindSet) -> Option<u64> {
        let lines = self.lines.range(..=(most, u64::MAX));
        let near = lines.take(NEAR).find_map(|(_, line)| line.first(out));
        if near.is_some() || self.lines.len() <= NEAR {
            return near;
        }
        let places = known.but(out).filter_map(|kind| self.first_place(kind));
        let place = places.min().filter(|place| place.0 <= most)?;
        self.lines.get(&place)?.first(out)
    }

    /// The place of the first line in which that kind stands.
    fn first_place(&mut self, kind: u32) -> Option<Place> {
        let lines = self.listed.get_mut(&kind)?;
        loop {
            let (listed, key) = lines.pop_first()?;
            let place = *self.places.get(&key)?;
            lines.insert(place, key);
            if place == listed {
                return Some(place);
            }
            self.lines.get_mut(&place)?.listed(kind, place);
        }
    }

    /// The last waiter of all in the order in which they are served, if nobody comes or goes and a newcomer does not stand behind
    /// that one. The newcomer would stand in the line of that key.
    pub fn last_behind(&self, key: &LineKey) -> Option<u64> {
        let last = *self.lengths.last()?;
        let own = self.places.get(key);
        let own = own.and_then(|place| Some((self.lines.get(place)?.len() + 1, place.1)));
        let (len, turn) = own.unwrap_or((1, u64::MAX));
        let line = self.lines.get(&(last.0, last.2));
        line.filter(|_| last > (key.0, len, turn))?.last()
    }

    /// Panics where the lists disagree, about waiters that stand in these lines by these kinds.
    #[cfg(test)]
    pub fn check(&self, waiters: impl Iterator<Item = (LineKey, u32)>) {
        use std::collections::HashSet;
        assert_eq!(self.lines.len(), self.places.len());
        assert_eq!(self.lengths.len(), self.lines.len());
        let mut listed = HashSet::new();
        for (kind, lines) in &self.listed {
            for (place, key) in lines {
                assert!(*place <= self.places[key]);
                listed.insert((*kind, self.places[key]));
            }
        }
        let mut count = 0;
        let stands: HashSet<_> = waiters
            .map(|(key, kind)| {
                count += 1;
                (kind, self.places[&key])
            })
            .collect();
        assert_eq!(listed, stands);
        assert_eq!(count, self.lines.values().map(Line::len).sum::<usize>());
    }
}
