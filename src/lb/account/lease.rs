//! The leases of a pool.
//!
//! A lease is found by its number, by its backend and by its owner in O(1), and by its deadline in O(log n). No step walks
//! all leases, moves them, or makes room for all of them: so none takes long, however many there are. A lease takes 56 bytes, up
//! to 4 in the order of deadlines and 3 in the table of numbers. When they end, a pool keeps room for 32 leases, if
//! it had as many at once: 5 KB at most, and 5 KB more if each had an owner of its own.
//!
//! A lease is *over* at its deadline, or by a mark: an owner released its leases, a backend is down or gone. It is *cleared*
//! later, and counts until then. What is over and not yet cleared is state.

use std::collections::BTreeMap;

use super::deadlines::Deadlines;
use super::entry::{Entry, List, Mark, Short, lease_hash};
use super::epochs::Epochs;
use super::lease_id::LeaseId;
use super::owners::Owners;
use super::places::{Links, Places, Record};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chains::{Chains, Found, NONE, Records};
use crate::lb::ground::clock::Millis;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::sparse::Sparse;

pub use crate::lb::ground::chains::At;

/// A lease that is not cleared yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease<'a> {
    /// Its name.
    pub id: LeaseId,
    /// The slot of its backend, if that is still there.
    pub slot: Option<Slot>,
    /// Its owner, if one was named.
    pub owner: Option<&'a [u8]>,
    /// The pool's clock when it was granted.
    pub granted: Millis,
    /// When it ends by itself.
    pub deadline: Millis,
    /// Whether it is over by a mark, whatever its deadline.
    pub is_marked: bool,
}

impl Lease<'_> {
    /// How long it still lasts; 0 where it is over.
    pub fn remaining(&self, clock: Millis) -> Millis {
        match self.is_marked {
            true => 0,
            false => self.deadline.saturating_sub(clock),
        }
    }
}

/// All leases of a pool.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    entries: Places<Entry>,
    by_number: Chains,
    by_deadline: Deadlines,
    /// For each slot the place of its group, plus one. 0 = it has none, because it never had a lease.
    of_slots: Sparse<u32>,
    groups: Places<Group>,
    owners: Owners,
    /// The lists with marks, in the order in which the marks were made.
    marked: BTreeMap<u64, Marked>,
    epochs: Epochs,
    /// The number of the next lease.
    pub next: u64,
}

/// The leases of a backend, in the order in which they were granted.
#[derive(Clone, Debug)]
struct Group {
    list: List,
    /// The slot of the backend; [`NONE`] when the backend is gone.
    slot: u32,
    links: Links,
}

/// A list with a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Of the backend of this group.
    Group(u32),
    /// Of this owner.
    Owner(u32),
}

impl Record for Group {
    fn vacate(&mut self, links: Links) {
        self.links = links;
    }

    fn links(&mut self) -> &mut Links {
        &mut self.links
    }

    fn is_vacant(&self) -> bool {
        self.slot == NONE && self.list.len == 0
    }
}

impl Leases {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are no leases, and never were any.
    pub fn is_default(&self) -> bool {
        self.next == 0 && self.is_empty() && self.epochs.is_empty()
    }

    /// How many are on that slot.
    #[inline]
    pub fn on(&self, slot: Slot) -> u32 {
        self.list_of(slot).map_or(0, |list| list.len)
    }

    /// From now on leases are of that epoch.
    pub fn open_epoch(&mut self, epoch: u64) {
        self.epochs.open(self.next, epoch);
    }

    /// Adds an epoch, from the lease of number `first` on. In a saved pool its leases come later.
    pub fn append_epoch(&mut self, first: u64, epoch: u64) {
        self.epochs.append(first, epoch);
    }

    /// The epochs.
    #[inline(always)]
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Grants a lease with the next number.
    #[inline(always)]
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
        let group = self.group_of(slot);
        self.insert(number, group, owner, granted, deadline);
        self.epochs.id(number)
    }

    /// The group of a slot.
    #[inline(always)]
    pub fn group_of(&mut self, slot: Slot) -> u32 {
        let group = self.of_slots.at(slot);
        if *group == 0 {
            *group = 1 + self.groups.add(Group {
                list: List::default(),
                slot: slot as u32,
                links: Links::NONE,
            });
        }
        *group - 1
    }

    /// A new group of a backend that is gone.
    pub fn group_of_gone(&mut self) -> u32 {
        self.groups.add(Group {
            list: List::default(),
            slot: NONE,
            links: Links::NONE,
        })
    }

    /// Adds a lease. Its number is above those of all others, and has an epoch.
    #[inline(always)]
    pub fn insert(
        &mut self,
        number: u64,
        group: u32,
        owner: Option<&[u8]>,
        granted: Millis,
        deadline: Millis,
    ) {
        let owner = owner.map_or(NONE, |name| self.owners.find_or_add(name));
        let at = self.entries.next();
        let entries = &mut self.entries.records;
        let list = &mut self.groups.records[group as usize].list;
        let entry = Entry {
            number,
            deadline: Short::of(deadline),
            granted: Short::of(granted),
            group,
            owner,
            chain: (self.by_number).insert(at, lease_hash(number), entries),
            order: Links::NONE,
            group_links: list.push(at, entries, |e| &mut e.group_links),
            owner_links: match owner {
                NONE => Links::NONE,
                owner => {
                    let list = self.owners.list_mut(owner);
                    list.push(at, entries, |e| &mut e.owner_links)
                }
            },
        };
        self.entries.add(entry);
        self.epochs.begins(number);
        let entries = &mut self.entries.records;
        self.by_deadline.insert(at, deadline, number, entries);
    }

    /// The lease of that id, cleared or not.
    #[inline(always)]
    pub fn find(&self, id: LeaseId) -> Option<Found> {
        let found = self.find_number(id.number)?;
        (self.epochs.id(id.number) == id).then_some(found)
    }

    #[inline(always)]
    fn find_number(&self, number: u64) -> Option<Found> {
        let is_it = |at: At| self.entry(at).number == number;
        let entries = &self.entries.records;
        self.by_number.find(lease_hash(number), entries, is_it)
    }

    /// Whether the lease of that number is there, cleared or not.
    pub fn has(&self, number: u64) -> bool {
        self.find_number(number).is_some()
    }

    /// Whether a lease is over at this clock.
    #[inline(always)]
    pub fn is_over(&self, at: At, clock: Millis) -> bool {
        let entry = self.entry(at);
        entry.deadline.millis() <= clock || self.is_marked(entry)
    }

    #[inline(always)]
    fn is_marked(&self, entry: &Entry) -> bool {
        let number = entry.number;
        self.groups.records[entry.group as usize]
            .list
            .is_over(number)
            || entry.owner != NONE && self.owners.list(entry.owner).is_over(number)
    }

    /// The lease at that place.
    pub fn lease(&self, at: At) -> Lease<'_> {
        let entry = self.entry(at);
        let slot = self.groups.records[entry.group as usize].slot;
        Lease {
            id: self.epochs.id(entry.number),
            slot: (slot != NONE).then_some(slot as Slot),
            owner: (entry.owner != NONE).then(|| self.owners.name(entry.owner)),
            granted: entry.granted.millis(),
            deadline: entry.deadline.millis(),
            is_marked: self.is_marked(entry),
        }
    }

    #[inline(always)]
    fn entry(&self, at: At) -> &Entry {
        &self.entries.records[at as usize]
    }

    /// Ends the lease at that place; answers on which slot it was, if that backend is still there.
    pub fn end(&mut self, at: At) -> Option<Slot> {
        let entries = &self.entries.records;
        self.end_found(self.by_number.find_at(at, entries.hash(at), entries))
    }

    /// The same of a lease that was found.
    #[inline(always)]
    pub fn end_found(&mut self, found: Found) -> Option<Slot> {
        let at = found.at;
        let Entry {
            number,
            group,
            owner,
            chain,
            order,
            group_links,
            owner_links,
            ..
        } = *self.entry(at);
        let entries = &mut self.entries.records;
        self.by_number.remove(found, chain, entries);
        self.by_deadline.remove(at, order, entries);
        let of_group = &mut self.groups.records[group as usize];
        let list = &mut of_group.list;
        let mut marks = [
            list.remove(number, group_links, entries, |e| &mut e.group_links),
            None,
        ];
        let slot = of_group.slot;
        if of_group.is_vacant() {
            self.groups.vacate(group);
        }
        if owner != NONE {
            let list = self.owners.list_mut(owner);
            marks[1] = list.remove(number, owner_links, entries, |e| &mut e.owner_links);
            if list.len == 0 {
                self.owners.remove(owner);
            }
        }
        for turn in marks.iter().flatten() {
            self.marked.remove(turn);
        }
        self.epochs.ends(number);
        self.entries.vacate(at);
        if self.is_too_large() {
            self.shrink();
        }
        (slot != NONE).then_some(slot as Slot)
    }

    /// Whether it takes more memory than it needs.
    #[inline(always)]
    fn is_too_large(&self) -> bool {
        self.entries.has_too_many() || self.owners.has_too_many()
    }

    /// Gives back some of the memory that is not needed, more than one lease takes.
    #[inline(never)]
    fn shrink(&mut self) {
        for _ in 0..2 {
            if let Some((from, to)) = self.entries.shrink(|_| true) {
                self.moved(from, to);
            }
            if let Some(owner) = self.owners.shrink() {
                self.owner_moved(owner);
            }
        }
        // An owner with many leases has kept its place, and so all places before it.
        if self.is_empty() && self.owners.has_too_many() {
            self.owners = Owners::default();
        }
    }

    /// An owner has moved to this place.
    fn owner_moved(&mut self, owner: u32) {
        let list = self.owners.list(owner);
        let mut at = list.first;
        if let Some(mark) = &list.mark {
            self.marked.insert(mark.turn, Marked::Owner(owner));
        }
        while at != NONE {
            self.entries.records[at as usize].owner = owner;
            at = self.entry(at).owner_links.next;
        }
    }

    /// A lease has moved to another place.
    fn moved(&mut self, from: At, to: At) {
        let Entry { group, owner, .. } = *self.entry(to);
        let entries = &mut self.entries.records;
        self.by_deadline.moved(from, to, entries);
        self.by_number.moved(from, to, entries);
        let list = &mut self.groups.records[group as usize].list;
        list.moved(to, entries, |e| &mut e.group_links);
        if owner != NONE {
            let list = self.owners.list_mut(owner);
            list.moved(to, entries, |e| &mut e.owner_links);
        }
    }

    /// Gives a lease another deadline.
    pub fn renew(&mut self, at: At, deadline: Millis) {
        let Entry { order, number, .. } = *self.entry(at);
        let entries = &mut self.entries.records;
        self.by_deadline.remove(at, order, entries);
        entries[at as usize].deadline = Short::of(deadline);
        self.by_deadline.insert(at, deadline, number, entries);
    }

    // Marks

    /// From now on the leases of that owner are over; answers how many were not.
    pub fn release(&mut self, owner: &[u8]) -> usize {
        let found = self.owners.find(owner);
        found.map_or(0, |owner| self.mark(Marked::Owner(owner)))
    }

    /// From now on the leases on that slot are over.
    pub fn end_on(&mut self, slot: Slot) {
        if let Some(group) = self.present_group(slot) {
            self.mark(Marked::Group(group));
        }
    }

    fn mark(&mut self, marked: Marked) -> usize {
        let next = self.next;
        let turn = self.marked.last_key_value().map_or(0, |(turn, _)| turn + 1);
        let list = self.list_mut(marked);
        let unmarked = list.unmarked();
        if unmarked > 0 {
            let over = list.len;
            match &mut list.mark {
                Some(mark) => (mark.below, mark.over) = (next, over),
                mark => {
                    let below = next;
                    *mark = Some(Box::new(Mark { below, over, turn }));
                    self.marked.insert(turn, marked);
                }
            }
        }
        unmarked as usize
    }

    /// Marks the first leases of a list, as many as a saved pool says; false where it cannot have so many. The marks come in the
    /// order in which they were made.
    pub fn load_mark(&mut self, marked: Marked, over: u32) -> bool {
        let turn = self.marked.len() as u64;
        let list = self.list_mut(marked);
        if over == 0 || over > list.len || list.mark.is_some() {
            return false;
        }
        let mut at = list.first;
        for _ in 1..over {
            at = match marked {
                Marked::Group(_) => self.entry(at).group_links.next,
                Marked::Owner(_) => self.entry(at).owner_links.next,
            };
        }
        let below = self.entry(at).number + 1;
        self.list_mut(marked).mark = Some(Box::new(Mark { below, over, turn }));
        self.marked.insert(turn, marked);
        true
    }

    fn list_mut(&mut self, marked: Marked) -> &mut List {
        match marked {
            Marked::Group(group) => &mut self.groups.records[group as usize].list,
            Marked::Owner(owner) => self.owners.list_mut(owner),
        }
    }

    fn list(&self, marked: Marked) -> &List {
        match marked {
            Marked::Group(group) => &self.groups.records[group as usize].list,
            Marked::Owner(owner) => self.owners.list(owner),
        }
    }

    /// The marks in the order in which they were made, each with the number of leases that are over by it.
    pub fn marks(&self) -> impl Iterator<Item = (Marked, u32)> {
        let over = |marked| self.list(marked).mark.as_ref().map_or(0, |mark| mark.over);
        self.marked
            .values()
            .map(move |marked| (*marked, over(*marked)))
    }

    /// The slot of a group, if its backend is still there.
    pub fn slot_of(&self, group: u32) -> Option<Slot> {
        let slot = self.groups.records[group as usize].slot;
        (slot != NONE).then_some(slot as Slot)
    }

    /// The name of an owner.
    pub fn owner_name(&self, owner: u32) -> &[u8] {
        self.owners.name(owner)
    }

    /// The owner of that name.
    pub fn owner(&self, name: &[u8]) -> Option<u32> {
        self.owners.find(name)
    }

    /// How many leases of that slot, or of a group, are not over by its mark.
    pub fn unmarked_on(&self, slot: Slot) -> u32 {
        self.list_of(slot).map_or(0, List::unmarked)
    }

    /// Whether every lease of a gone backend is over by the mark of its group. That is so but for damaged payloads.
    pub fn are_gone_marked(&self) -> bool {
        let mut gone = self
            .groups
            .records
            .iter()
            .filter(|group| group.slot == NONE);
        gone.all(|group| group.list.unmarked() == 0)
    }

    /// Whether any lease is over by a mark.
    pub fn is_any_marked(&self) -> bool {
        !self.marked.is_empty()
    }

    /// The first lease of the oldest mark.
    pub fn first_marked(&self) -> Option<At> {
        let (_, marked) = self.marked.first_key_value()?;
        Some(self.list(*marked).first)
    }

    // Ways to find leases

    /// When the lease of that number ends by itself, if it is there.
    pub fn deadline_of(&self, number: u64) -> Option<Millis> {
        Some(self.entry(self.find_number(number)?.at).deadline.millis())
    }

    /// When the first lease ends by itself; later than any clock where there is none.
    #[inline(always)]
    pub fn due(&self) -> Millis {
        self.by_deadline.due()
    }

    /// The lease that ends first by itself.
    #[inline(always)]
    pub fn first_due(&self) -> Option<(Millis, At)> {
        self.by_deadline.first()
    }

    /// The group of that slot, if it has one.
    pub fn present_group(&self, slot: Slot) -> Option<u32> {
        self.of_slots.get(slot)?.checked_sub(1)
    }

    #[inline]
    fn list_of(&self, slot: Slot) -> Option<&List> {
        let group = self.present_group(slot)?;
        Some(&self.groups.records[group as usize].list)
    }

    /// The oldest lease on that slot.
    pub fn first_on(&self, slot: Slot) -> Option<At> {
        Some(self.list_of(slot)?.first).filter(|at| *at != NONE)
    }

    /// The oldest lease of each backend that has any.
    pub fn firsts(&self) -> impl Iterator<Item = At> {
        let groups = self.groups.records.iter();
        let groups = groups.filter(|group| group.slot != NONE && group.list.len > 0);
        groups.map(|group| group.list.first)
    }

    /// The oldest lease of that owner.
    pub fn first_of(&self, owner: &[u8]) -> Option<At> {
        let owner = self.owners.find(owner)?;
        Some(self.owners.list(owner).first)
    }

    /// The next younger lease on the same slot.
    pub fn next_on_slot(&self, at: At) -> Option<At> {
        Some(self.entry(at).group_links.next).filter(|at| *at != NONE)
    }

    /// The next younger lease of the same owner.
    pub fn next_of_owner(&self, at: At) -> Option<At> {
        Some(self.entry(at).owner_links.next).filter(|at| *at != NONE)
    }

    /// All leases in the order in which they end; each next one costs O(log n).
    pub fn by_deadline(&self) -> impl Iterator<Item = Lease<'_>> {
        let all = self.by_deadline.iter(&self.entries.records);
        all.map(|at| self.lease(at))
    }

    /// All leases with their groups, the oldest first. O(n log n).
    pub fn by_age(&self) -> Vec<(u32, Lease<'_>)> {
        let entries = self.entries.records.iter().enumerate();
        let used = entries.filter(|(_, entry)| !entry.is_vacant());
        let lease = |(at, entry): (usize, &Entry)| (entry.group, self.lease(at as At));
        let mut all: Vec<(u32, Lease)> = used.map(lease).collect();
        all.sort_unstable_by_key(|(_, lease)| lease.id.number);
        all
    }

    /// Panics where the ways to find a lease disagree. For the tests.
    pub fn check(&self) {
        assert_eq!(self.by_number.len(), self.len());
        let mut grouped = vec![Vec::new(); self.groups.records.len()];
        let mut owned = 0;
        self.by_deadline.check(&self.entries.records);
        assert_eq!(self.by_deadline().count(), self.len());
        for at in self.by_deadline.iter(&self.entries.records) {
            let entry = self.entry(at);
            let found = self.find(self.epochs.id(entry.number));
            assert_eq!(found.map(|found| found.at), Some(at));
            assert!(entry.number < self.next);
            grouped[entry.group as usize].push(entry.number);
            owned += u32::from(entry.owner != NONE);
        }
        let mut marks = 0;
        for (at, group) in self.groups.records.iter().enumerate() {
            grouped[at].sort_unstable();
            let mut linked = Vec::new();
            let mut here = Some(group.list.first).filter(|_| group.list.len > 0);
            while let Some(at) = here {
                linked.push(self.entry(at).number);
                here = self.next_on_slot(at);
            }
            assert_eq!(linked, grouped[at]);
            assert_eq!(linked.len(), group.list.len as usize);
            let over = linked.iter().filter(|n| group.list.is_over(**n)).count() as u32;
            assert_eq!(over, group.list.len - group.list.unmarked());
            marks += usize::from(group.list.mark.is_some());
            assert!(
                group.slot == NONE || self.present_group(group.slot as Slot) == Some(at as u32)
            );
        }
        for (turn, marked) in &self.marked {
            let mark = self
                .list(*marked)
                .mark
                .as_ref()
                .expect("a list in turn is marked");
            assert!(mark.turn == *turn && mark.over > 0);
            marks -= usize::from(matches!(marked, Marked::Group(_)));
        }
        assert_eq!(marks, 0);
        self.epochs.check(self.len());
        assert_eq!(self.owners.leases(), owned);
    }
}

impl Kept for Leases {
    /// The leases of a backend that is gone are over.
    fn forget(&mut self, slot: Slot) {
        let Some(group) = self.of_slots.take(slot).checked_sub(1) else {
            return;
        };
        self.mark(Marked::Group(group));
        let of_group = &mut self.groups.records[group as usize];
        of_group.slot = NONE;
        if of_group.is_vacant() {
            self.groups.vacate(group);
        }
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.of_slots.renumber(gaps);
        for (slot, group) in self.of_slots.iter() {
            if let Some(group) = group.checked_sub(1) {
                self.groups.records[group as usize].slot = slot as u32;
            }
        }
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.entries.relocate(by);
        self.by_number.relocate(by);
        self.by_deadline.relocate(by);
        self.of_slots.relocate(by);
        self.groups.relocate(by);
        self.owners.relocate(by);
        self.epochs.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        // A leaf of a B-tree has room for eleven and holds about eight.
        let marks = self.marked.len();
        self.entries.heap_bytes()
            + self.by_number.heap_bytes()
            + self.by_deadline.heap_bytes()
            + self.of_slots.heap_bytes()
            + self.groups.heap_bytes()
            + self.epochs.heap_bytes()
            + self.owners.heap_bytes()
            + marks * 32
            + marks.div_ceil(8) * 224
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
            leases.open_epoch(0);
            numbers.sort_unstable();
            let group = leases.group_of(0);
            for number in &numbers {
                leases.insert(*number, group, None, 0, 1);
            }
            let sum: usize = numbers
                .iter()
                .map(|number| {
                    let looks = std::cell::Cell::new(0);
                    let entries = &leases.entries.records;
                    leases.by_number.find(lease_hash(*number), entries, |at| {
                        looks.set(looks.get() + 1);
                        entries[at as usize].number == *number
                    });
                    looks.get()
                })
                .sum();
            assert!(sum < 4 * numbers.len(), "{sum} for {}", numbers.len());
        }
    }

    #[test]
    fn epochs_that_are_over_cost_nothing_each() {
        let mut leases = Leases::default();
        for epoch in 0..1000 {
            leases.open_epoch(epoch);
            leases.grant(0, None, 0, epoch + 1);
        }
        let mut moves = 0;
        while let Some((_, at)) = leases.first_due() {
            let before = leases.epochs.kept();
            leases.end(at);
            moves += usize::from(leases.epochs.kept() != before);
            leases.check();
            let shown: Vec<u64> = leases.epochs().iter().map(|e| e.epoch).collect();
            let open = 999 - leases.len().max(1) as u64 + 1;
            assert_eq!(shown, Vec::from_iter(open..1000));
        }
        assert!(moves <= 10, "{moves}");
    }

    /// While one lease stays, the room of all others is given back, also where each had an owner of its own.
    #[test]
    fn a_flood_leaves_no_memory_behind() {
        let name = |i: u64| i.to_be_bytes();
        for owners in [1, 10, 50_000] {
            let mut leases = Leases::default();
            for i in 0..50_000 {
                leases.grant(i as usize % 100, Some(&name(i % owners)), i, i + 60_000);
            }
            leases.grant(0, Some(b"stays"), 0, 1_000_000);
            for _ in 0..50_000 {
                let (_, at) = leases.first_due().unwrap();
                leases.end(at);
            }
            assert_eq!(leases.len(), 1);
            leases.check();
            let bytes = leases.heap_bytes();
            assert!(bytes < 32_768, "{bytes} bytes, {owners} owners");
            leases.end(leases.first_due().unwrap().1);
            leases.check();
            let of_slots = leases.of_slots.heap_bytes() + leases.groups.heap_bytes();
            let bytes = leases.heap_bytes() - of_slots;
            assert!(bytes <= 10 * 1024, "{bytes} bytes, {owners} owners");
        }
    }

    /// Leases that come and go by a few dozens move none of the others, and allocate and free nothing.
    #[test]
    fn a_few_leases_keep_their_room() {
        let mut leases = Leases::default();
        let mut rooms = Vec::new();
        for round in 0..10 {
            for _ in 0..32 {
                leases.grant(0, Some(b"gateway"), round, round + 1);
            }
            while let Some((_, at)) = leases.first_due() {
                leases.end(at);
                assert_eq!(leases.entries.records.len(), 32);
            }
            leases.check();
            rooms.push(leases.heap_bytes());
        }
        assert!(
            rooms.iter().all(|room| *room == rooms[0] && *room < 5000),
            "{rooms:?}"
        );
    }

    #[test]
    fn an_entry_takes_56_bytes_and_a_lease_64_at_most() {
        assert_eq!(size_of::<Entry>(), 56);
        let mut leases = Leases::default();
        for i in 0..1_000_000 {
            leases.grant(0, Some(b"gateway"), i, i + 60_000);
        }
        let bytes = leases.heap_bytes();
        assert!(bytes <= 64_000_000, "{bytes}");
    }
}
