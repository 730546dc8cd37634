//! Backends in queues by running weight. Credits of equal weights grow alike, so a queue keeps its order while its backends wait.

use std::collections::VecDeque;

use super::duels::Line;
use crate::lb::field::Seat;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::memory::{Mover, allocated, buffer};

/// A part of a queue has room for this number of backends.
const PART: usize = 64;
/// Queues are made where they are this long on average. Shorter ones would take more memory than the nodes that they save.
const LENGTH_MIN: usize = 256;
/// They are given up where there are more of them than one for this number of slots.
const SLOTS_MIN: usize = 128;

/// The eligible backends of a tier, a queue for each running weight that there is.
///
/// The lines of a queue are parallel. One of them moves when its backend is picked: then nearly always to the end of its queue.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    queues: Vec<Queue>,
    /// The line of the first backend of each queue.
    heads: Vec<Head>,
    /// The running weights with the places of their queues, in order of weight. Empty queues have other places.
    by_weight: Vec<(u32, u32)>,
}

/// A line of the backend of that slot.
#[derive(Clone, Debug)]
pub struct Head {
    start: i64,
    weight: u32,
    slot: u32,
}

impl Line for Head {
    const ARE_IN_ORDER: bool = false;

    #[inline(always)]
    fn start(&self) -> i64 {
        self.start
    }

    #[inline(always)]
    fn weight(&self) -> u32 {
        self.weight
    }

    #[inline(always)]
    fn gain_in(&self, _tier: u8, weight: u32) -> Option<u32> {
        self.weight.checked_sub(weight).filter(|gain| *gain > 0)
    }

    #[inline(always)]
    fn slot(&self, _place: usize) -> Slot {
        self.slot as Slot
    }
}

impl Queues {
    /// The queues of these backends, if they are long enough.
    pub fn of(seats: &[Seat], tier: u8) -> Option<Queues> {
        let mut queues = Queues::default();
        let mut are_sorted: Vec<bool> = Vec::new();
        // The places of weights that were met lately, which spares nearly all searches.
        let mut places = [0; 256];
        let mut backends = 0;
        for (slot, seat) in seats.iter().enumerate() {
            let Some(weight) = seat.running_in(tier) else {
                continue;
            };
            let place = &mut places[weight as usize % 256];
            if (queues.heads.get(*place)).is_none_or(|head| head.weight != weight) {
                *place = queues.place(weight);
                if queues.by_weight.len() > seats.len() / LENGTH_MIN {
                    return None;
                }
                are_sorted.resize(queues.queues.len(), true);
            }
            // Until all are in, the last one stands in for the head.
            let last = &mut queues.heads[*place];
            are_sorted[*place] &= last.weight == 0 || seat.credit() <= last.start;
            *last = Head::of(seats, slot as u32);
            queues.queues[*place].push(slot as u32);
            backends += 1;
        }
        if backends < queues.by_weight.len() * LENGTH_MIN {
            return None;
        }
        for (place, is_sorted) in are_sorted.into_iter().enumerate() {
            if !is_sorted {
                queues.queues[place].sort(seats);
            }
            queues.show(seats, place);
        }
        Some(queues)
    }

    /// The lines that compete.
    #[inline(always)]
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Whether there are too many of them for this number of slots.
    pub fn are_many(&self, slots: usize) -> bool {
        self.by_weight.len() > slots / SLOTS_MIN
    }

    /// The first backend of the queue of that running weight was picked, and its line starts anew there. Answers the place of the queue.
    #[inline(always)]
    pub fn picked(&mut self, seats: &[Seat], weight: u32, slot: Slot, start: i64) -> usize {
        let at = self.by_weight.partition_point(|(w, _)| *w < weight);
        let place = self.by_weight[at].1 as usize;
        let queue = &mut self.queues[place];
        let next = queue.pop();
        seats[slot].set_credit(start);
        match next {
            Some(next) if queue.is_last(seats, slot as u32) => {
                queue.push(slot as u32);
                let head = &mut self.heads[place];
                (head.start, head.slot) = (seats[next as Slot].credit(), next);
            }
            _ => {
                queue.insert(seats, slot as u32);
                self.show(seats, place);
            }
        }
        place
    }

    /// A backend is about to leave. Answers the place of its queue.
    pub fn leave(&mut self, seats: &[Seat], slot: Slot) -> usize {
        let weight = seats[slot].running_weight();
        let place = self.place(weight);
        self.queues[place].remove(seats, slot as u32);
        self.show(seats, place);
        if self.queues[place].first().is_none()
            && let Ok(at) = self.find(weight)
        {
            self.by_weight.remove(at);
        }
        place
    }

    /// A backend has come. Answers the place of its queue.
    pub fn enter(&mut self, seats: &[Seat], slot: Slot) -> usize {
        let place = self.place(seats[slot].running_weight());
        self.queues[place].insert(seats, slot as u32);
        self.show(seats, place);
        place
    }

    /// The place of the queue of that weight, which may be new.
    fn place(&mut self, weight: u32) -> usize {
        match self.find(weight) {
            Ok(at) => self.by_weight[at].1 as usize,
            Err(at) => {
                let empty = || self.heads.iter().position(|head| head.weight == 0);
                let is_any_empty = self.by_weight.len() < self.queues.len();
                let place = is_any_empty.then(empty).flatten();
                let place = place.unwrap_or(self.queues.len());
                if place == self.queues.len() {
                    self.queues.push(Queue::default());
                    self.heads.push(Head::NONE);
                }
                self.by_weight.insert(at, (weight, place as u32));
                place
            }
        }
    }

    fn find(&self, weight: u32) -> Result<usize, usize> {
        self.by_weight.binary_search_by_key(&weight, |(w, _)| *w)
    }

    /// Lets the first backend of a queue compete.
    #[inline(always)]
    fn show(&mut self, seats: &[Seat], place: usize) {
        self.heads[place] = match self.queues[place].first() {
            Some(slot) => Head::of(seats, slot),
            None => Head::NONE,
        };
    }

    /// Lets the mover move all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.queues);
        by.vec(&mut self.heads);
        by.vec(&mut self.by_weight);
        for queue in &mut self.queues {
            relocate(&mut queue.parts, by);
            queue.parts.iter_mut().for_each(|part| relocate(part, by));
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let queues: usize = self.queues.iter().map(Queue::heap_bytes).sum();
        buffer(&self.queues) + buffer(&self.heads) + buffer(&self.by_weight) + queues
    }

    /// Panics where the queues do not hold the eligible backends in their order, or their heads are others. For the tests.
    pub fn check(&self, seats: &[Seat], tier: u8) {
        let mut backends = 0;
        for (place, (queue, head)) in self.queues.iter().zip(&self.heads).enumerate() {
            let slots: Vec<u32> = queue.parts.iter().flatten().copied().collect();
            assert!(slots.is_sorted_by_key(|slot| key(seats, *slot)));
            assert!(
                queue
                    .parts
                    .iter()
                    .all(|part| (1..=PART).contains(&part.len()))
            );
            let weight = head.weight;
            for slot in &slots {
                assert_eq!(seats[*slot as Slot].running_in(tier), Some(weight));
            }
            let first = slots.first();
            assert_eq!(first.is_some(), weight > 0);
            assert_eq!(
                first.is_some(),
                self.by_weight.contains(&(weight, place as u32))
            );
            if let Some(slot) = first {
                assert_eq!(
                    (head.slot, head.start),
                    (*slot, seats[*slot as Slot].credit())
                );
            }
            backends += slots.len();
        }
        let all = seats.iter().filter(|seat| seat.running_in(tier).is_some());
        assert_eq!(backends, all.count());
        assert!(self.by_weight.is_sorted());
    }
}

impl Head {
    /// That of an empty queue.
    const NONE: Head = Head {
        start: 0,
        weight: 0,
        slot: u32::MAX,
    };

    #[inline(always)]
    fn of(seats: &[Seat], slot: u32) -> Head {
        let seat = &seats[slot as Slot];
        Head {
            start: seat.credit(),
            weight: seat.running_weight(),
            slot,
        }
    }
}

/// Backends of equal weight, those of the highest credit first, and among equals those that were added first.
///
/// In parts, so that one that does not come to the end goes to its place in a few steps.
#[derive(Clone, Debug, Default)]
struct Queue {
    parts: VecDeque<VecDeque<u32>>,
}

/// The place in a queue.
#[inline(always)]
fn key(seats: &[Seat], slot: u32) -> (i64, u32) {
    (-seats[slot as Slot].credit(), slot)
}

impl Queue {
    /// Brings backends in order that were pushed in another one.
    fn sort(&mut self, seats: &[Seat]) {
        let mut slots: Vec<u32> = self.parts.iter().flatten().copied().collect();
        slots.sort_by_key(|slot| key(seats, *slot));
        let places = self.parts.iter_mut().flatten();
        places.zip(slots).for_each(|(place, slot)| *place = slot);
    }

    fn first(&self) -> Option<u32> {
        self.parts.front()?.front().copied()
    }

    /// Drops the first one. Answers the next one, if it lies in the same part.
    #[inline(always)]
    fn pop(&mut self) -> Option<u32> {
        let part = self.parts.front_mut()?;
        part.pop_front();
        if part.is_empty() {
            self.parts.pop_front();
            return None;
        }
        part.front().copied()
    }

    /// Whether that backend comes behind all others.
    #[inline(always)]
    fn is_last(&self, seats: &[Seat], slot: u32) -> bool {
        let last = self.parts.back().and_then(|part| part.back());
        last.is_none_or(|last| key(seats, *last) < key(seats, slot))
    }

    /// Adds one that comes behind all others.
    #[inline(always)]
    fn push(&mut self, slot: u32) {
        match self.parts.back_mut() {
            Some(last) if last.len() < PART => last.push_back(slot),
            _ => self.parts.push_back(part([slot])),
        }
    }

    fn insert(&mut self, seats: &[Seat], slot: u32) {
        match self.is_last(seats, slot) {
            true => self.push(slot),
            false => self.insert_between(seats, slot),
        }
    }

    /// Inserts a backend that does not come to the end.
    fn insert_between(&mut self, seats: &[Seat], slot: u32) {
        let at = self.part_of(seats, slot);
        let some = &mut self.parts[at];
        let place = some.partition_point(|other| key(seats, *other) < key(seats, slot));
        some.insert(place, slot);
        if some.len() > PART {
            let rest = some.split_off(PART / 2);
            some.shrink_to(PART);
            self.parts.insert(at + 1, part(rest));
        }
    }

    fn remove(&mut self, seats: &[Seat], slot: u32) {
        let at = self.part_of(seats, slot);
        let some = &mut self.parts[at];
        let place = some.partition_point(|other| key(seats, *other) < key(seats, slot));
        debug_assert_eq!(some.get(place), Some(&slot));
        some.remove(place);
        if some.is_empty() {
            self.parts.remove(at);
        } else if let Some(next) = self.parts.get(at + 1)
            && self.parts[at].len() + next.len() <= PART / 2
        {
            let mut next = self.parts.remove(at + 1).unwrap_or_default();
            self.parts[at].append(&mut next);
        }
    }

    /// The last part that does not begin behind that backend, or the first one.
    fn part_of(&self, seats: &[Seat], slot: u32) -> usize {
        let begins_before = |part: &VecDeque<u32>| {
            (part.front()).is_some_and(|other| key(seats, *other) <= key(seats, slot))
        };
        self.parts.partition_point(begins_before).saturating_sub(1)
    }

    fn heap_bytes(&self) -> usize {
        let parts = self.parts.iter().map(ring);
        ring(&self.parts) + parts.sum::<usize>()
    }
}

/// A part of a queue, with room for others.
fn part(slots: impl IntoIterator<Item = u32>) -> VecDeque<u32> {
    let mut part = VecDeque::with_capacity(PART);
    part.extend(slots);
    part
}

/// The bytes that the buffer of a ring takes.
fn ring<T>(ring: &VecDeque<T>) -> usize {
    allocated(ring.capacity() * size_of::<T>())
}

fn relocate<T>(ring: &mut VecDeque<T>, by: &mut impl Mover) {
    let mut row = Vec::from(std::mem::take(ring));
    by.vec(&mut row);
    *ring = row.into();
}
