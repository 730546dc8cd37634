//! A line of waiters: those of one number, or under `fair` those of one number and one name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::kinds::KindSet;

/// The place of a line: its number, and its turn among the lines of that number. Turns only grow, and none comes twice.
pub type Place = (u8, u64);

/// The number of lines, and of kinds in a line, that a search tries in their order before it goes by kinds. Few in tests, so
/// that they take both ways.
pub const NEAR: usize = if cfg!(test) { 3 } else { 64 };

/// A line of waiters, known by their arrivals, in their order.
#[derive(Debug, Default)]
pub struct Line {
    arrivals: BTreeSet<u64>,
    kinds: HashMap<u32, OfKind>,
    /// The first waiter of each kind, with the number of the kind.
    heads: BTreeMap<u64, u32>,
    known: KindSet,
}

/// The waiters of one kind in a line.
#[derive(Debug)]
struct OfKind {
    arrivals: BTreeSet<u64>,
    /// The place under which the list of the kind has the line.
    listed: Place,
}

impl Line {
    pub fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// The last waiter.
    pub fn last(&self) -> Option<u64> {
        self.arrivals.last().copied()
    }

    /// Adds a waiter at the end. Answers whether its kind is new in the line: then the list of the kind gets the line, under
    /// this place.
    pub fn add(&mut self, arrival: u64, kind: u32, place: Place) -> bool {
        self.arrivals.insert(arrival);
        let is_new = !self.kinds.contains_key(&kind);
        if is_new {
            self.known.insert(kind);
            self.heads.insert(arrival, kind);
        }
        let of_kind = self.kinds.entry(kind).or_insert_with(|| OfKind {
            arrivals: BTreeSet::new(),
            listed: place,
        });
        of_kind.arrivals.insert(arrival);
        is_new
    }

    /// Removes a waiter. If it was the last of its kind, answers the place under which the list of the kind has the line.
    pub fn remove(&mut self, arrival: u64, kind: u32) -> Option<Place> {
        self.arrivals.remove(&arrival);
        let of_kind = self.kinds.get_mut(&kind)?;
        of_kind.arrivals.remove(&arrival);
        let next = of_kind.arrivals.first().copied();
        let was_head = self.heads.remove(&arrival).is_some();
        match next {
            Some(next) if was_head => {
                self.heads.insert(next, kind);
                None
            }
            Some(_) => None,
            None => {
                self.known.remove(kind);
                self.kinds.remove(&kind).map(|of_kind| of_kind.listed)
            }
        }
    }

    /// Notes that the list of that kind has the line under this place now.
    pub fn listed(&mut self, kind: u32, place: Place) {
        if let Some(of_kind) = self.kinds.get_mut(&kind) {
            of_kind.listed = place;
        }
    }

    /// The first waiter whose kind is not among those that are out.
    pub fn first(&self, out: &KindSet) -> Option<u64> {
        let mut near = self.heads.iter().take(NEAR);
        let near = near.find(|(_, kind)| !out.contains(**kind));
        match near {
            Some((arrival, _)) => Some(*arrival),
            None if self.heads.len() <= NEAR => None,
            None => {
                let kinds = self.known.but(out);
                kinds.filter_map(|kind| self.first_of(kind)).min()
            }
        }
    }

    fn first_of(&self, kind: u32) -> Option<u64> {
        self.kinds.get(&kind)?.arrivals.first().copied()
    }
}
