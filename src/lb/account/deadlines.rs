//! The order in which leases end: by (deadline, number). Sessions end in the same way.
//!
//! Nearly every client asks for the same time, so nearly all leases end in the order in which they were granted. A lease that
//! ends after the last one of a lane joins that lane, in O(1), and leaves it in O(1). There are a few lanes, so that a few spans
//! can be mixed. Any other lease lies in a binary heap, in O(log n).
//!
//! Rejected: the heap alone. The end of the oldest of ten leases costs 600 instructions in it, and of a million 1,500.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::places::Links;
use crate::lb::ground::chains::{At, NONE};
use crate::lb::ground::clock::Millis;
use crate::lb::ground::memory::Mover;
use crate::lb::ground::pages::Pages;

/// A record of a thing that ends.
pub trait Ending {
    /// When it ends, and a number that no other one has that ends then.
    fn key(&self) -> (u64, u64);
    /// Its neighbours in the order. In the heap: its place there, and [`IN_HEAP`].
    fn order(&mut self) -> &mut Links;
    /// The same, to be read.
    fn ordered(&self) -> Links;
}

/// All leases in the order in which they end.
#[derive(Clone, Debug)]
pub struct Deadlines {
    /// The lease that ends first, and when it does.
    first: At,
    due: Millis,
    lanes: [Lane; LANES],
    heap: Pages<At>,
}

/// Instead of the next one: it lies in the heap.
pub const IN_HEAP: At = NONE - 1;
/// When nothing ends.
const NEVER: Millis = Millis::MAX;
const LANES: usize = 4;

/// Leases that are linked in their order.
#[derive(Clone, Copy, Debug)]
struct Lane {
    first: At,
    last: At,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        let empty = Lane {
            first: NONE,
            last: NONE,
        };
        Deadlines {
            first: NONE,
            due: NEVER,
            lanes: [empty; LANES],
            heap: Pages::default(),
        }
    }
}

/// The key of the order.
#[inline(always)]
fn key(entries: &Pages<impl Ending>, at: At) -> (Millis, u64) {
    entries[at as usize].key()
}

impl Deadlines {
    /// When the first lease ends; [`NEVER`] where there is none.
    #[inline(always)]
    pub fn due(&self) -> Millis {
        self.due
    }

    /// The lease that ends first, and when it does.
    #[inline(always)]
    pub fn first(&self) -> Option<(Millis, At)> {
        (self.first != NONE).then_some((self.due, self.first))
    }

    /// Whether a lease ends before the one that ended first until now.
    #[inline(always)]
    fn is_before_first(&self, own: (Millis, u64), entries: &Pages<impl Ending>) -> bool {
        own.0 < self.due || own.0 == self.due && own < key(entries, self.first)
    }

    /// Adds the lease of that number, and with that deadline.
    #[inline(always)]
    pub fn insert(
        &mut self,
        at: At,
        deadline: Millis,
        number: u64,
        entries: &mut Pages<impl Ending>,
    ) {
        let own = (deadline, number);
        if self.is_before_first(own, entries) {
            (self.due, self.first) = (deadline, at);
        }
        for lane in &mut self.lanes {
            let previous = lane.last;
            if previous == NONE {
                lane.first = at;
            } else {
                let last = &mut entries[previous as usize];
                if last.key() > own {
                    continue;
                }
                last.order().next = at;
            }
            lane.last = at;
            *entries[at as usize].order() = Links {
                previous,
                next: NONE,
            };
            return;
        }
        self.insert_in_heap(at, entries);
    }

    /// Takes out a lease of that order.
    #[inline(always)]
    pub fn remove(&mut self, at: At, order: Links, entries: &mut Pages<impl Ending>) {
        match order {
            Links {
                previous: place,
                next: IN_HEAP,
            } => self.remove_from_heap(place as usize, entries),
            Links { previous, next } => {
                *self.link_from(previous, at, entries) = next;
                *self.link_back_from(next, at, entries) = previous;
            }
        }
        if self.first == at {
            self.find_first(entries);
        }
    }

    #[inline(always)]
    fn find_first(&mut self, entries: &Pages<impl Ending>) {
        (self.due, self.first) = (NEVER, NONE);
        for lane in 0..LANES {
            self.consider(self.lanes[lane].first, entries);
        }
        if let Some(at) = self.heap.first() {
            self.consider(*at, entries);
        }
    }

    #[inline(always)]
    fn consider(&mut self, at: At, entries: &Pages<impl Ending>) {
        if at != NONE {
            let own = key(entries, at);
            if self.is_before_first(own, entries) {
                (self.due, self.first) = (own.0, at);
            }
        }
    }

    /// A lease has moved to another place. Nothing else has changed.
    pub fn moved(&mut self, from: At, to: At, entries: &mut Pages<impl Ending>) {
        match entries[to as usize].ordered() {
            Links {
                previous: place,
                next: IN_HEAP,
            } => self.heap[place as usize] = to,
            Links { previous, next } => {
                *self.link_from(previous, from, entries) = to;
                *self.link_back_from(next, from, entries) = to;
            }
        }
        if self.first == from {
            self.first = to;
        }
    }

    /// The link that leads on to `at` from the one before it, or from the head of its lane.
    #[inline(always)]
    fn link_from<'a>(
        &'a mut self,
        previous: At,
        at: At,
        entries: &'a mut Pages<impl Ending>,
    ) -> &'a mut At {
        match previous {
            NONE => {
                let lane = self.lanes.iter_mut().find(|lane| lane.first == at);
                &mut lane.expect("it heads a lane").first
            }
            previous => &mut entries[previous as usize].order().next,
        }
    }

    /// The link that leads back to `at` from the one behind it, or from the end of its lane.
    #[inline(always)]
    fn link_back_from<'a>(
        &'a mut self,
        next: At,
        at: At,
        entries: &'a mut Pages<impl Ending>,
    ) -> &'a mut At {
        match next {
            NONE => {
                let lane = self.lanes.iter_mut().find(|lane| lane.last == at);
                &mut lane.expect("it ends a lane").last
            }
            next => &mut entries[next as usize].order().previous,
        }
    }

    /// All leases in their order; each next one costs O(log n).
    pub fn iter(&self, entries: &Pages<impl Ending>) -> impl Iterator<Item = At> {
        let entry = |at: At| (at != NONE).then(|| Reverse((key(entries, at), at)));
        let mut front = BinaryHeap::from_iter(self.lanes.iter().filter_map(|l| entry(l.first)));
        front.extend(
            self.heap
                .first()
                .map(|at| Reverse((key(entries, *at), *at))),
        );
        std::iter::from_fn(move || {
            let Reverse((_, at)) = front.pop()?;
            match entries[at as usize].ordered() {
                Links {
                    previous: place,
                    next: IN_HEAP,
                } => {
                    let below = 2 * place as usize + 1;
                    let below = [below, below + 1].map(|place| self.heap.get(place).copied());
                    front.extend(below.into_iter().flatten().filter_map(entry));
                }
                Links { next, .. } => front.extend(entry(next)),
            }
            Some(at)
        })
    }

    // The heap

    #[inline(never)]
    fn insert_in_heap(&mut self, at: At, entries: &mut Pages<impl Ending>) {
        self.heap.push(at);
        self.rise(self.heap.len() - 1, entries);
    }

    #[inline(never)]
    fn remove_from_heap(&mut self, place: usize, entries: &mut Pages<impl Ending>) {
        self.heap.swap_remove(place);
        if let Some(other) = self.heap.get(place).copied() {
            self.rise(place, entries);
            if self.heap[place] == other {
                self.sink(place, entries);
            }
        }
    }

    /// Puts a lease at a place of the heap, and notes that at its entry.
    fn put(&mut self, place: usize, at: At, entries: &mut Pages<impl Ending>) {
        self.heap[place] = at;
        *entries[at as usize].order() = Links {
            previous: place as u32,
            next: IN_HEAP,
        };
    }

    fn rise(&mut self, mut place: usize, entries: &mut Pages<impl Ending>) {
        let at = self.heap[place];
        let own = key(entries, at);
        while place > 0 {
            let above = (place - 1) / 2;
            let other = self.heap[above];
            if key(entries, other) < own {
                break;
            }
            self.put(place, other, entries);
            place = above;
        }
        self.put(place, at, entries);
    }

    fn sink(&mut self, mut place: usize, entries: &mut Pages<impl Ending>) {
        let at = self.heap[place];
        let own = key(entries, at);
        loop {
            let below = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let keyed = below.map(|place| (key(entries, self.heap[place]), place));
            let Some((_, from)) = keyed.min().filter(|(first, _)| *first < own) else {
                break;
            };
            self.put(place, self.heap[from], entries);
            place = from;
        }
        self.put(place, at, entries);
    }

    /// Lets the mover move the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        self.heap.relocate(by);
    }

    /// How many bytes it takes on the heap of the process.
    pub fn heap_bytes(&self) -> usize {
        self.heap.heap_bytes()
    }

    /// Panics where the links, the heap and the order do not agree. For the tests.
    pub fn check(&self, entries: &Pages<impl Ending>) {
        for (place, at) in self.heap.iter().enumerate() {
            let Links { previous, next } = entries[*at as usize].ordered();
            assert_eq!((previous as usize, next), (place, IN_HEAP));
            let above = self.heap[place.saturating_sub(1) / 2];
            assert!(place == 0 || key(entries, above) < key(entries, *at));
        }
        let mut linked = self.heap.iter().count();
        for lane in &self.lanes {
            let (mut previous, mut at) = (NONE, lane.first);
            while at != NONE {
                let links = entries[at as usize].ordered();
                assert_eq!(links.previous, previous);
                assert!(previous == NONE || key(entries, previous) < key(entries, at));
                (previous, at) = (at, links.next);
                linked += 1;
            }
            assert_eq!(lane.last, previous);
        }
        let ordered: Vec<At> = self.iter(entries).collect();
        assert_eq!(ordered.len(), linked);
        let due = |at: &At| (key(entries, *at).0, *at);
        assert_eq!(ordered.first().map(due), self.first());
        assert!(ordered.is_sorted_by_key(|at| key(entries, *at)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lb::account::entry::{Entries, Entry, Short};
    use crate::lb::ground::chance::Chance;

    fn entry(number: u64, deadline: Millis) -> Entry {
        Entry {
            number,
            deadline: Short::of(deadline),
            granted: Short::of(0),
            group: 0,
            owner: NONE,
            chain: NONE,
            order: Links::NONE,
            group_links: Links::NONE,
            owner_links: Links::NONE,
        }
    }

    /// Against a sorted set. A few spans find lanes, any span comes into the heap, and some leases move.
    #[test]
    fn leases_end_in_the_order_of_their_deadlines_and_numbers() {
        for spans in [1, 4, 1000] {
            let mut chance = Chance::seeded(spans);
            let mut entries = Entries::default();
            let (mut deadlines, mut plain) = (Deadlines::default(), BTreeSet::new());
            let mut most_in_heap = 0;
            for number in 0..3000 {
                let deadline = number / 3 + 10 * chance.below(spans);
                let at = entries.len() as At;
                entries.push(entry(number, deadline));
                deadlines.insert(at, deadline, number, &mut entries);
                plain.insert((deadline, number, at));
                for _ in 0..chance.below(3) {
                    let any = chance.below(plain.len().max(1) as u64) as usize;
                    let Some((deadline, number, at)) = plain.iter().nth(any).copied() else {
                        break;
                    };
                    plain.remove(&(deadline, number, at));
                    let order = entries[at as usize].order;
                    match chance.below(3) {
                        0 => deadlines.remove(at, order, &mut entries),
                        1 => {
                            let to = entries.len() as At;
                            entries.push(entries[at as usize].clone());
                            deadlines.moved(at, to, &mut entries);
                            plain.insert((deadline, number, to));
                        }
                        _ => {
                            deadlines.remove(at, order, &mut entries);
                            let deadline = deadline + 500;
                            entries[at as usize].deadline = Short::of(deadline);
                            deadlines.insert(at, deadline, number, &mut entries);
                            plain.insert((deadline, number, at));
                        }
                    }
                }
                if number % 100 == 0 {
                    deadlines.check(&entries);
                }
                let first = plain.first().map(|(deadline, _, at)| (*deadline, *at));
                assert_eq!(deadlines.first(), first);
                most_in_heap = most_in_heap.max(deadlines.heap.len());
            }
            let ordered: Vec<At> = deadlines.iter(&entries).collect();
            assert_eq!(ordered, Vec::from_iter(plain.iter().map(|(.., at)| *at)));
            assert!(spans < 1000 || most_in_heap > 100);
        }
    }

    #[test]
    fn leases_of_a_few_spans_need_no_heap() {
        let mut entries = Entries::default();
        let mut deadlines = Deadlines::default();
        for number in 0..4000 {
            let span = [60_000, 10, 3_600_000, 500][number as usize % 4];
            entries.push(entry(number, number + span));
            deadlines.insert(number as At, number + span, number, &mut entries);
        }
        deadlines.check(&entries);
        assert!(deadlines.heap.len() == 0);
    }
}
