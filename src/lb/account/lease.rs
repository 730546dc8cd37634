//! The leases of a pool.
//!
//! A lease is found by its number, by its backend and by its owner in O(1), and by its deadline in O(log n). No step walks
//! all leases. One takes 48 bytes, 4 in the heap of deadlines and 6 to 7 in the
//! table of numbers.

use super::entry::{At, Entry, Links, List, NONE, Short};
use super::lease_id::LeaseId;
use super::numbers::Numbers;
use super::owners::Owners;
use super::timed::{Timed, Whose};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, buffer};

/// A lease that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease<'a> {
    /// Its name.
    pub id: LeaseId,
    /// The slot of its backend.
    pub slot: Slot,
    /// Its owner, if one was named.
    pub owner: Option<&'a [u8]>,
    /// The pool's clock when it was granted.
    pub granted: Millis,
    /// When it ends by itself.
    pub deadline: Millis,
}

/// All leases of a pool.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    entries: Vec<Entry>,
    /// One more than the place of the first vacant entry, 0 = none. Each names the next one in the same way, in
    /// `backend_links.next`.
    vacant: At,
    by_number: Numbers,
    /// A binary heap on (deadline, number).
    by_deadline: Vec<At>,
    /// The leases of each slot, in the order in which they were granted.
    by_slot: Vec<List>,
    owners: Owners,
    /// The present epoch, and before it the epochs with open leases, and some that are over.
    epochs: Vec<Epoch>,
    /// How many epochs are over. They are swept out when they are more than half, so that each costs O(1).
    over: usize,
    /// The number of the next lease.
    pub next: u64,
}

#[derive(Clone, Debug)]
pub struct Epoch {
    /// The number of its first lease.
    pub first: u64,
    pub epoch: u64,
    open: u32,
}

impl Leases {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.by_deadline.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_deadline.is_empty()
    }

    /// Whether there are no leases, and never were any.
    pub fn is_default(&self) -> bool {
        self.next == 0 && self.is_empty() && self.epochs().next().is_none()
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.by_slot.len()
    }

    /// How many are open on that slot.
    pub fn on(&self, slot: Slot) -> u32 {
        self.by_slot[slot].len
    }

    /// From now on leases are of that epoch.
    pub fn open_epoch(&mut self, epoch: u64) {
        self.epochs.pop_if(|present| present.open == 0);
        self.append_epoch(self.next, epoch);
    }

    /// Adds an epoch, from the lease of number `first` on. In a saved pool its leases come later.
    pub fn append_epoch(&mut self, first: u64, epoch: u64) {
        self.epochs.push(Epoch {
            first,
            epoch,
            open: 0,
        });
    }

    /// The present epoch, and before it the epochs with open leases.
    pub fn epochs(&self) -> impl Iterator<Item = &Epoch> {
        let present = self.epochs.len().wrapping_sub(1);
        let epochs = self.epochs.iter().enumerate();
        epochs.filter_map(move |(at, e)| (e.open > 0 || at == present).then_some(e))
    }

    /// Grants a lease with the next number.
    pub fn grant(
        &mut self,
        slot: Slot,
        owner: Option<&[u8]>,
        granted: Millis,
        deadline: Millis,
    ) -> LeaseId {
        if self.epochs.is_empty() {
            // Only the streams of tests have no epoch.
            self.open_epoch(0);
        }
        let number = self.next;
        self.next += 1;
        self.insert(number, slot, owner, granted, deadline);
        self.id(number)
    }

    /// Adds a lease. Its number is above those of all others, and has an epoch.
    pub fn insert(
        &mut self,
        number: u64,
        slot: Slot,
        owner: Option<&[u8]>,
        granted: Millis,
        deadline: Millis,
    ) {
        let entry = Entry {
            number,
            deadline: Short::of(deadline),
            granted: Short::of(granted),
            slot: slot as u32,
            owner: owner.map_or(NONE, |name| self.owners.find_or_add(name)),
            place: self.by_deadline.len() as u32,
            backend_links: Links {
                previous: NONE,
                next: NONE,
            },
            owner_links: Links {
                previous: NONE,
                next: NONE,
            },
        };
        let owner = entry.owner;
        let at = match self.vacant {
            VACANT_NONE => {
                grow(&mut self.entries);
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
            vacant => {
                let at = vacant - 1;
                self.vacant = self.entries[at as usize].backend_links.next;
                self.entries[at as usize] = entry;
                at
            }
        };
        self.by_number.insert(at, &self.entries);
        let entries = &mut self.entries;
        self.by_slot[slot].push(at, entries, |e| &mut e.backend_links);
        if owner != NONE {
            let list = self.owners.list_mut(owner);
            list.push(at, entries, |e| &mut e.owner_links);
        }
        let epoch = self.epoch_of(number);
        self.epochs[epoch].open += 1;
        grow(&mut self.by_deadline);
        self.by_deadline.push(at);
        self.rise(self.by_deadline.len() - 1);
    }

    /// The lease of that id, if it is open.
    pub fn find(&self, id: LeaseId) -> Option<At> {
        let at = self.by_number.find(id.number, &self.entries)?;
        (self.id(id.number) == id).then_some(at)
    }

    /// The lease at that place.
    pub fn lease(&self, at: At) -> Lease<'_> {
        let entry = &self.entries[at as usize];
        Lease {
            id: self.id(entry.number),
            slot: entry.slot as Slot,
            owner: (entry.owner != NONE).then(|| self.owners.name(entry.owner)),
            granted: entry.granted.millis(),
            deadline: entry.deadline.millis(),
        }
    }

    /// Ends a lease; answers on which slot it was.
    pub fn end(&mut self, at: At) -> Slot {
        let Entry {
            number,
            slot,
            owner,
            place,
            ..
        } = self.entries[at as usize];
        self.by_number.remove(number, &self.entries);
        self.by_slot[slot as Slot].remove(at, &mut self.entries, |e| &mut e.backend_links);
        if owner != NONE {
            let list = self.owners.list_mut(owner);
            list.remove(at, &mut self.entries, |e| &mut e.owner_links);
            if list.len == 0 {
                self.owners.remove(owner);
            }
        }
        let epoch = self.epoch_of(number);
        self.epochs[epoch].open -= 1;
        if self.epochs[epoch].open == 0 && epoch + 1 < self.epochs.len() {
            self.over += 1;
            self.sweep_epochs();
        }
        self.by_deadline.swap_remove(place as usize);
        if (place as usize) < self.by_deadline.len() {
            self.place(place as usize);
            self.rise(place as usize);
            self.sink(place as usize);
        }
        self.entries[at as usize].backend_links.next = self.vacant;
        self.vacant = at + 1;
        if self.is_empty() && self.entries.capacity() > KEPT {
            // Nothing is left to be found, so the room for the highest flood can go.
            self.entries = Vec::new();
            self.by_deadline = Vec::new();
            self.by_number = Numbers::default();
            self.vacant = VACANT_NONE;
        }
        slot as Slot
    }

    /// Gives a lease another deadline.
    pub fn renew(&mut self, at: At, deadline: Millis) {
        let entry = &mut self.entries[at as usize];
        entry.deadline = Short::of(deadline);
        let place = entry.place as usize;
        self.rise(place);
        self.sink(place);
    }

    /// The lease that ends first by itself.
    pub fn first_due(&self) -> Option<(Millis, At)> {
        let at = *self.by_deadline.first()?;
        Some((self.entries[at as usize].deadline.millis(), at))
    }

    /// The oldest lease on that slot.
    pub fn first_on(&self, slot: Slot) -> Option<At> {
        Some(self.by_slot[slot].first).filter(|at| *at != NONE)
    }

    /// The oldest lease of that owner.
    pub fn first_of(&self, owner: &[u8]) -> Option<At> {
        let owner = self.owners.find(owner)?;
        Some(self.owners.list(owner).first)
    }

    /// The next younger lease on the same slot.
    pub fn next_on_slot(&self, at: At) -> Option<At> {
        Some(self.entries[at as usize].backend_links.next).filter(|at| *at != NONE)
    }

    /// The next younger lease of the same owner.
    pub fn next_of_owner(&self, at: At) -> Option<At> {
        Some(self.entries[at as usize].owner_links.next).filter(|at| *at != NONE)
    }

    /// All leases in the order in which they end; each next one costs O(log n).
    pub fn by_deadline(&self) -> impl Iterator<Item = Lease<'_>> {
        let mut front = std::collections::BinaryHeap::new();
        let entry = |place: usize| {
            let at = *self.by_deadline.get(place)?;
            Some(std::cmp::Reverse((self.key(at), place)))
        };
        front.extend(entry(0));
        std::iter::from_fn(move || {
            let std::cmp::Reverse((_, place)) = front.pop()?;
            front.extend([2 * place + 1, 2 * place + 2].into_iter().filter_map(entry));
            Some(self.lease(self.by_deadline[place]))
        })
    }

    /// All leases, the oldest first. O(n log n).
    pub fn by_age(&self) -> Vec<Lease<'_>> {
        let mut all: Vec<Lease> = self.by_deadline.iter().map(|at| self.lease(*at)).collect();
        all.sort_unstable_by_key(|lease| lease.id.number);
        all
    }

    fn id(&self, number: u64) -> LeaseId {
        LeaseId {
            epoch: self.epochs[self.epoch_of(number)].epoch,
            number,
        }
    }

    fn epoch_of(&self, number: u64) -> usize {
        self.epochs.partition_point(|e| e.first <= number) - 1
    }

    fn sweep_epochs(&mut self) {
        if self.over * 2 > self.epochs.len() {
            let present = self.epochs.pop();
            self.epochs.retain(|e| e.open > 0);
            self.epochs.extend(present);
            self.over = 0;
        }
    }

    // The heap

    fn key(&self, at: At) -> (Millis, u64) {
        let entry = &self.entries[at as usize];
        (entry.deadline.millis(), entry.number)
    }

    /// Notes at the entry where it lies.
    fn place(&mut self, place: usize) {
        self.entries[self.by_deadline[place] as usize].place = place as u32;
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.key(self.by_deadline[above]) <= self.key(self.by_deadline[place]) {
                break;
            }
            self.by_deadline.swap(above, place);
            self.place(place);
            place = above;
        }
        self.place(place);
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let below = (2 * place + 1..2 * place + 3).filter(|p| *p < self.by_deadline.len());
            let Some(first) = below.min_by_key(|p| self.key(self.by_deadline[*p])) else {
                break;
            };
            if self.key(self.by_deadline[place]) <= self.key(self.by_deadline[first]) {
                break;
            }
            self.by_deadline.swap(place, first);
            self.place(place);
            place = first;
        }
        self.place(place);
    }

    /// Panics where the ways to find a lease disagree. For the tests.
    pub fn check(&self) {
        assert_eq!(self.by_number.len(), self.len());
        let mut on = vec![0; self.by_slot.len()];
        let mut owned = 0;
        for (place, at) in self.by_deadline.iter().enumerate() {
            let entry = &self.entries[*at as usize];
            assert_eq!(entry.place as usize, place);
            assert!(place == 0 || self.key(self.by_deadline[(place - 1) / 2]) < self.key(*at));
            assert_eq!(self.find(self.id(entry.number)), Some(*at));
            assert!(entry.number < self.next);
            on[entry.slot as usize] += 1;
            owned += u32::from(entry.owner != NONE);
        }
        for (slot, list) in self.by_slot.iter().enumerate() {
            assert_eq!(list.len, on[slot]);
            let mut number = None;
            let mut at = self.first_on(slot);
            while let Some(here) = at {
                assert!(number < Some(self.entries[here as usize].number));
                number = Some(self.entries[here as usize].number);
                on[slot] -= 1;
                at = self.next_on_slot(here);
            }
            assert_eq!(on[slot], 0);
        }
        let open: u32 = self.epochs.iter().map(|e| e.open).sum();
        assert_eq!(open as usize, self.len());
        assert_eq!(self.epochs.len(), self.epochs().count() + self.over);
        assert_eq!(self.owners.leases(), owned);
    }
}

impl Kept for Leases {
    fn grown(&mut self, slots: usize) {
        self.by_slot.resize(slots, List::default());
    }

    /// O(leases).
    fn renumber(&mut self, gaps: &Gaps) {
        for at in &self.by_deadline {
            let entry = &mut self.entries[*at as usize];
            entry.slot = gaps.before_slot(entry.slot as Slot) as u32;
        }
        gaps.close(&mut self.by_slot);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.entries);
        self.by_number.relocate(by);
        by.vec(&mut self.by_deadline);
        by.vec(&mut self.by_slot);
        by.vec(&mut self.epochs);
    }

    fn heap_bytes(&self) -> usize {
        buffer(&self.entries)
            + self.by_number.heap_bytes()
            + buffer(&self.by_deadline)
            + buffer(&self.by_slot)
            + buffer(&self.epochs)
            + self.owners.heap_bytes()
    }
}

impl Timed for Leases {
    fn due(&self) -> Option<Millis> {
        self.first_due().map(|(deadline, _)| deadline)
    }

    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        let (_, at) = self.first_due().filter(|(due, _)| *due <= clock)?;
        Some(Whose::of(self.end(at)))
    }
}

/// The value of [`Leases::vacant`] where no entry is vacant.
const VACANT_NONE: At = 0;
/// Room for this number of leases stays when the last one has ended.
const KEPT: usize = 64;

/// Grows by a sixteenth, where a vector would double: with a million leases unused room costs more than moving them.
fn grow<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact((vec.len() / 16).max(4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payload brings any numbers, and a client lets any numbers stay. Without the key the multiples of the multiplier's inverse
    /// would lie side by side.
    #[test]
    fn no_choice_of_numbers_makes_them_collide() {
        const INVERSE: u64 = 0xf1de_83e1_9937_733d;
        assert_eq!(INVERSE.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1);
        let following: Vec<u64> = (0..20_000).collect();
        let multiples = (0..40_000).map(|k: u64| k.wrapping_mul(INVERSE));
        let multiples: Vec<u64> = multiples.filter(|n| *n < 1 << 63).collect();
        let staying =
            (0..100_000).filter(|n: &u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) < 1 << 61);
        for mut numbers in [following, multiples, staying.collect()] {
            let mut leases = Leases::default();
            leases.grown(1);
            leases.open_epoch(0);
            numbers.sort_unstable();
            for number in &numbers {
                leases.insert(*number, 0, None, 0, 1);
            }
            let distance = |n: &u64| leases.by_number.distance(*n, &leases.entries);
            let sum: usize = numbers.iter().map(distance).sum();
            assert!(sum < 10 * numbers.len(), "{sum} for {}", numbers.len());
        }
    }

    #[test]
    fn epochs_that_are_over_cost_nothing_each() {
        let mut leases = Leases::default();
        leases.grown(1);
        for epoch in 0..1000 {
            leases.open_epoch(epoch);
            leases.grant(0, None, 0, epoch + 1);
        }
        let mut moves = 0;
        while let Some((_, at)) = leases.first_due() {
            let before = leases.epochs.len();
            leases.end(at);
            moves += usize::from(leases.epochs.len() != before);
            leases.check();
            let shown: Vec<u64> = leases.epochs().map(|e| e.epoch).collect();
            let open = 999 - leases.len().max(1) as u64 + 1;
            assert_eq!(shown, Vec::from_iter(open..1000));
        }
        assert!(moves <= 10, "{moves}");
    }

    #[test]
    fn an_entry_takes_48_bytes_and_a_lease_64_at_most() {
        assert_eq!(size_of::<Entry>(), 48);
        let mut leases = Leases::default();
        leases.grown(1);
        for i in 0..1_000_000 {
            leases.grant(0, Some(b"gateway"), i, i + 60_000);
        }
        let bytes = leases.heap_bytes();
        assert!(bytes <= 64_000_000, "{bytes}");
    }
}
