//! The sessions of a pool: for each one the backend that it sticks to, and until when.
//!
//! A session is known by a 64-bit hash of its name: sessions of equal hashes share a pin. It is found in O(1). Each of its picks gives
//! it another deadline, in O(1) where a few spans are in use, else in O(log n). No step walks all sessions, moves them, or makes
//! room for all of them. A session takes 40 bytes, up to 4 in the order of deadlines and 3 in the table of hashes.
//!
//! A session is *over* at its deadline, or when its backend is gone. It is *cleared* later, and until then it pins nothing. What is
//! over and not yet cleared is state, as with leases. A backend that goes, and gaps that close, touch no session: each one refers to
//! the group of its backend, and the group knows the slot.
//!
//! Rejected: to leave the sessions of a gone backend where they are until their deadlines. They would take the room of others, for
//! years if the spans are long.

use serde::{Deserialize, Serialize};

use super::deadlines::{Deadlines, Ending};
use super::entry::lease_hash;
use super::places::{Links, Places, Record};
use crate::lb::ground::bounds::{SESSIONS_MAX, Slot};
use crate::lb::ground::chains::{At, Chains, Found, NONE, Records};
use crate::lb::ground::clock::{self, Millis, SPAN_MAX};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::pages::Pages;
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};
use crate::lb::ground::sparse::Sparse;

/// All sessions of a pool.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    entries: Places<Entry>,
    by_hash: Chains,
    by_deadline: Deadlines,
    /// For each slot the place of its group, plus one. 0 = it has none, because nothing was ever pinned to it.
    of_slots: Sparse<u32>,
    groups: Places<Group>,
    /// The groups of gone backends, in the order in which the backends went. None of them is empty.
    gone: List,
    /// How many sessions are in these groups.
    orphans: usize,
    /// The turn of the next pick. 0 where there are no sessions.
    turn: u16,
}

/// A session as it lies in memory, in 40 bytes. Its place is layout: it is not saved.
#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    /// The deadline, and in the lowest 16 bits the turn of the last pick. Turns put those of one deadline in order. They begin anew
    /// after 65,536 picks, which changes no more than the order of those of one deadline.
    ends: u64,
    /// The next one with the same place in the table of hashes.
    chain: At,
    /// The group of its backend.
    group: u32,
    /// Its neighbours in the order in which sessions end.
    order: Links,
    /// Its neighbours in its group. In a vacant entry: the neighbours among the vacant ones.
    in_group: Links,
}

/// Instead of the next one: an entry is vacant.
const VACANT: At = NONE - 2;

/// The sessions of a backend, in the order in which they were pinned to it.
#[derive(Clone, Debug)]
struct Group {
    list: List,
    len: u32,
    /// The slot of the backend; [`NONE`] when the backend is gone.
    slot: u32,
    /// The neighbours among the groups of gone backends, or among the vacant ones.
    links: Links,
}

/// Some records, linked in an order.
#[derive(Clone, Copy, Debug)]
struct List {
    first: At,
    last: At,
}

#[derive(Serialize, Deserialize)]
struct SavedGroup {
    /// How many backends stand before its own. If that is gone: the number of all backends.
    member: u32,
    len: u32,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    hash: [u8; 8],
    deadline: Millis,
    turn: u16,
}

impl Entry {
    fn deadline(&self) -> Millis {
        self.ends >> 16
    }

    fn in_group(&mut self) -> &mut Links {
        &mut self.in_group
    }
}

impl Ending for Entry {
    #[inline(always)]
    fn key(&self) -> (u64, u64) {
        (self.ends, self.hash)
    }

    #[inline(always)]
    fn order(&mut self) -> &mut Links {
        &mut self.order
    }

    #[inline(always)]
    fn ordered(&self) -> Links {
        self.order
    }
}

impl Record for Entry {
    fn vacate(&mut self, links: Links) {
        self.order.next = VACANT;
        self.in_group = links;
    }

    fn links(&mut self) -> &mut Links {
        &mut self.in_group
    }

    fn is_vacant(&self) -> bool {
        self.order.next == VACANT
    }
}

/// Clients choose their sessions, and payloads hold any hashes. As with leases, a key of the process's own keeps both from making
/// them collide in the table.
impl Records for Pages<Entry> {
    #[inline(always)]
    fn hash(&self, at: At) -> u64 {
        lease_hash(self[at as usize].hash)
    }

    #[inline(always)]
    fn link(&self, at: At) -> At {
        self[at as usize].chain
    }

    #[inline(always)]
    fn link_mut(&mut self, at: At) -> &mut At {
        &mut self[at as usize].chain
    }
}

impl Record for Group {
    fn vacate(&mut self, links: Links) {
        self.links = links;
    }

    fn links(&mut self) -> &mut Links {
        &mut self.links
    }

    fn is_vacant(&self) -> bool {
        self.slot == NONE && self.len == 0
    }
}

impl Default for List {
    fn default() -> List {
        List {
            first: NONE,
            last: NONE,
        }
    }
}

impl List {
    fn push<R>(&mut self, at: At, records: &mut Pages<R>, links: fn(&mut R) -> &mut Links) {
        let previous = std::mem::replace(&mut self.last, at);
        match previous {
            NONE => self.first = at,
            previous => links(&mut records[previous as usize]).next = at,
        }
        *links(&mut records[at as usize]) = Links {
            previous,
            next: NONE,
        };
    }

    fn remove<R>(&mut self, at: At, records: &mut Pages<R>, links: fn(&mut R) -> &mut Links) {
        let between = *links(&mut records[at as usize]);
        self.link(between, between.next, between.previous, records, links);
    }

    /// A record of the list has moved to this place.
    fn moved<R>(&mut self, to: At, records: &mut Pages<R>, links: fn(&mut R) -> &mut Links) {
        let between = *links(&mut records[to as usize]);
        self.link(between, to, to, records, links);
    }

    /// Between these two, `first` is the first one now and `last` the last one.
    fn link<R>(
        &mut self,
        between: Links,
        first: At,
        last: At,
        records: &mut Pages<R>,
        links: fn(&mut R) -> &mut Links,
    ) {
        match between.previous {
            NONE => self.first = first,
            previous => links(&mut records[previous as usize]).next = first,
        }
        match between.next {
            NONE => self.last = last,
            next => links(&mut records[next as usize]).previous = last,
        }
    }
}

impl Sessions {
    /// How many there are that have a backend, whether over or not.
    pub fn len(&self) -> usize {
        self.by_hash.len() - self.orphans
    }

    /// Whether there are none, also of gone backends.
    pub fn is_empty(&self) -> bool {
        self.by_hash.len() == 0
    }

    /// How many are pinned to the backend of a slot.
    pub fn on(&self, slot: Slot) -> u32 {
        let group = self.present_group(slot);
        group.map_or(0, |group| self.groups.records[group as usize].len)
    }

    fn present_group(&self, slot: Slot) -> Option<u32> {
        self.of_slots.get(slot)?.checked_sub(1)
    }

    fn find(&self, hash: u64) -> Option<Found> {
        let entries = &self.entries.records;
        let is_it = |at: At| entries[at as usize].hash == hash;
        self.by_hash.find(lease_hash(hash), entries, is_it)
    }

    /// The slot that a session is pinned to, if it is at this clock.
    pub fn pinned(&self, hash: u64, clock: Millis) -> Option<Slot> {
        let entry = &self.entries.records[self.find(hash)?.at as usize];
        let slot = self.groups.records[entry.group as usize].slot;
        (entry.deadline() > clock && slot != NONE).then_some(slot as Slot)
    }

    /// Pins a session to a slot until then. If there are too many sessions, one goes: one that has no backend, or else the one that
    /// ends first.
    pub fn pin(&mut self, hash: u64, slot: Slot, deadline: Millis) {
        let group = self.group_of(slot);
        let ends = deadline << 16 | u64::from(self.turn);
        match self.find(hash) {
            Some(Found { at, .. }) => {
                let Entry {
                    group: from, order, ..
                } = self.entries.records[at as usize];
                if from != group {
                    self.leave(from, at);
                    self.join(group, at);
                }
                let entries = &mut self.entries.records;
                self.by_deadline.remove(at, order, entries);
                entries[at as usize].ends = ends;
                self.by_deadline.insert(at, ends, hash, entries);
            }
            None => {
                if self.by_hash.len() >= SESSIONS_MAX {
                    self.end_first_orphan_or_due();
                }
                let at = self.add(hash, ends, group);
                let entries = &mut self.entries.records;
                self.by_deadline.insert(at, ends, hash, entries);
            }
        }
        self.turn = self.turn.wrapping_add(1);
    }

    /// Adds a session, which has no place in the order yet.
    fn add(&mut self, hash: u64, ends: u64, group: u32) -> At {
        let at = self.entries.next();
        let chain = (self.by_hash).insert(at, lease_hash(hash), &mut self.entries.records);
        self.entries.add(Entry {
            hash,
            ends,
            chain,
            group,
            order: Links::NONE,
            in_group: Links::NONE,
        });
        self.join(group, at);
        at
    }

    fn group_of(&mut self, slot: Slot) -> u32 {
        let group = self.of_slots.at(slot);
        if *group == 0 {
            *group = 1 + self.groups.add(Group::of(slot as u32));
        }
        *group - 1
    }

    fn join(&mut self, group: u32, at: At) {
        let entries = &mut self.entries.records;
        entries[at as usize].group = group;
        let group = &mut self.groups.records[group as usize];
        group.list.push(at, entries, Entry::in_group);
        group.len += 1;
        self.orphans += usize::from(group.slot == NONE);
    }

    fn leave(&mut self, place: u32, at: At) {
        let group = &mut self.groups.records[place as usize];
        (group.list).remove(at, &mut self.entries.records, Entry::in_group);
        group.len -= 1;
        self.orphans -= usize::from(group.slot == NONE);
        if group.is_vacant() {
            (self.gone).remove(place, &mut self.groups.records, Group::links);
            self.groups.vacate(place);
        }
    }

    /// Ends the pin of a session; false where it is not pinned at this clock.
    pub fn unpin(&mut self, hash: u64, clock: Millis) -> bool {
        let is_pinned = self.pinned(hash, clock).is_some();
        if let Some(found) = self.find(hash).filter(|_| is_pinned) {
            self.end(found);
        }
        is_pinned
    }

    /// Whether any is over at this clock.
    #[inline(always)]
    pub fn is_any_over(&self, clock: Millis) -> bool {
        self.orphans > 0 || self.first_due(clock).is_some()
    }

    fn first_due(&self, clock: Millis) -> Option<At> {
        let (ends, at) = self.by_deadline.first()?;
        (ends >> 16 <= clock).then_some(at)
    }

    /// Clears the first one that is over at this clock: by deadlines, then those of gone backends in the order in which these went.
    /// False where there is none.
    pub fn end_first(&mut self, clock: Millis) -> bool {
        let first = self.first_due(clock).or_else(|| self.first_orphan());
        if let Some(at) = first {
            self.end_at(at);
        }
        first.is_some()
    }

    fn end_first_orphan_or_due(&mut self) {
        let first = self.first_orphan().or_else(|| {
            let (_, at) = self.by_deadline.first()?;
            Some(at)
        });
        if let Some(at) = first {
            self.end_at(at);
        }
    }

    fn first_orphan(&self) -> Option<At> {
        match self.gone.first {
            NONE => None,
            group => Some(self.groups.records[group as usize].list.first),
        }
    }

    fn end_at(&mut self, at: At) {
        let entries = &self.entries.records;
        self.end(self.by_hash.find_at(at, entries.hash(at), entries));
    }

    fn end(&mut self, found: Found) {
        let at = found.at;
        let Entry {
            group,
            chain,
            order,
            ..
        } = self.entries.records[at as usize];
        let entries = &mut self.entries.records;
        self.by_hash.remove(found, chain, entries);
        self.by_deadline.remove(at, order, entries);
        self.leave(group, at);
        self.entries.vacate(at);
        // Twice, so that it shrinks faster than sessions end.
        for _ in 0..2 {
            if let Some((from, to)) = self.entries.shrink(|_| true) {
                self.moved(from, to);
            }
        }
        if self.is_empty() {
            self.turn = 0;
        }
    }

    /// A session has moved to another place.
    fn moved(&mut self, from: At, to: At) {
        let entries = &mut self.entries.records;
        let group = entries[to as usize].group;
        self.by_deadline.moved(from, to, entries);
        self.by_hash.moved(from, to, entries);
        let list = &mut self.groups.records[group as usize].list;
        list.moved(to, entries, Entry::in_group);
    }

    // Saved

    /// Writes all of them, if there are any. The gaps say which backend a slot is.
    pub fn save(&self, gaps: &Gaps, members: usize, to: &mut Writer) {
        if self.is_empty() {
            return;
        }
        to.put(&self.turn);
        for (slot, group) in self.of_slots.iter() {
            if let Some(group) = group.checked_sub(1) {
                self.save_group(group, gaps.before_slot(slot), to);
            }
        }
        let mut gone = self.gone.first;
        while gone != NONE {
            self.save_group(gone, members, to);
            gone = self.groups.records[gone as usize].links.next;
        }
    }

    fn save_group(&self, group: u32, member: usize, to: &mut Writer) {
        let Group { list, len, .. } = self.groups.records[group as usize];
        if len > 0 {
            let member = member as u32;
            to.put(&SavedGroup { member, len });
        }
        let mut at = list.first;
        while at != NONE {
            let entry = &self.entries.records[at as usize];
            to.put(&Saved {
                hash: entry.hash.to_le_bytes(),
                deadline: entry.deadline(),
                turn: entry.ends as u16,
            });
            at = entry.in_group.next;
        }
    }

    /// Reads them, of a pool with this number of backends, at this clock.
    pub fn load(members: usize, clock: Millis, from: &mut Reader) -> Result<Sessions, Malformed> {
        let mut sessions = Sessions {
            turn: from.get()?,
            ..Sessions::default()
        };
        let mut ends = Vec::new();
        while !from.is_at_end() {
            let SavedGroup { member, len } = from.get()?;
            let group = match (member as Slot).cmp(&members) {
                std::cmp::Ordering::Less => sessions.group_of(member as Slot),
                std::cmp::Ordering::Equal => sessions.add_gone(),
                std::cmp::Ordering::Greater => Err(Malformed::Field("session's backend"))?,
            };
            checked("sessions", (), len > 0)?;
            for _ in 0..len {
                let saved: Saved = from.get()?;
                let hash = u64::from_le_bytes(saved.hash);
                let is_new = ends.len() < SESSIONS_MAX && sessions.find(hash).is_none();
                checked("sessions", (), is_new)?;
                let is_in_range = saved.deadline <= clock::deadline(clock, SPAN_MAX);
                let deadline = checked("deadline", saved.deadline, is_in_range)?;
                let end = deadline << 16 | u64::from(saved.turn);
                ends.push((end, hash, sessions.add(hash, end, group)));
            }
        }
        ends.sort_unstable();
        let entries = &mut sessions.entries.records;
        for (end, hash, at) in ends {
            sessions.by_deadline.insert(at, end, hash, entries);
        }
        Ok(sessions)
    }

    fn add_gone(&mut self) -> u32 {
        let group = self.groups.add(Group::of(NONE));
        (self.gone).push(group, &mut self.groups.records, Group::links);
        group
    }

    /// Panics where the ways to find a session disagree. For the tests.
    pub fn check(&self) {
        let entries = &self.entries.records;
        self.by_deadline.check(entries);
        let mut all = 0;
        for at in self.by_deadline.iter(entries) {
            let found = self.find(entries[at as usize].hash);
            assert_eq!(found.map(|found| found.at), Some(at));
            all += 1;
        }
        assert_eq!(all, self.by_hash.len());
        assert!(all <= SESSIONS_MAX && (all > 0 || self.turn == 0));
        let (mut grouped, mut orphans, mut gone) = (0, 0, 0_usize);
        for (place, group) in self.groups.records.iter().enumerate() {
            let (mut len, mut at) = (0, group.list.first);
            while at != NONE && !group.is_vacant() {
                assert_eq!(entries[at as usize].group, place as u32);
                (len, at) = (len + 1, entries[at as usize].in_group.next);
            }
            assert_eq!(len, group.len);
            grouped += len as usize;
            match group.slot {
                NONE => (orphans, gone) = (orphans + len as usize, gone + usize::from(len > 0)),
                slot => assert_eq!(self.present_group(slot as Slot), Some(place as u32)),
            }
        }
        assert_eq!((grouped, orphans), (all, self.orphans));
        let mut at = self.gone.first;
        while at != NONE {
            (gone, at) = (gone - 1, self.groups.records[at as usize].links.next);
        }
        assert_eq!(gone, 0);
    }
}

impl Group {
    fn of(slot: u32) -> Group {
        Group {
            list: List::default(),
            len: 0,
            slot,
            links: Links::NONE,
        }
    }
}

impl Kept for Sessions {
    /// The sessions of a backend that is gone are over.
    fn forget(&mut self, slot: Slot) {
        let Some(place) = self.of_slots.take(slot).checked_sub(1) else {
            return;
        };
        let group = &mut self.groups.records[place as usize];
        group.slot = NONE;
        self.orphans += group.len as usize;
        match group.is_vacant() {
            true => self.groups.vacate(place),
            false => (self.gone).push(place, &mut self.groups.records, Group::links),
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
        self.by_hash.relocate(by);
        self.by_deadline.relocate(by);
        self.of_slots.relocate(by);
        self.groups.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.entries.heap_bytes()
            + self.by_hash.heap_bytes()
            + self.by_deadline.heap_bytes()
            + self.of_slots.heap_bytes()
            + self.groups.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lb::ground::chance::Chance;
    use crate::lb::ground::kept::Gaps;

    /// The hash of the n-th session.
    fn nth(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn saved(sessions: &Sessions, gaps: &Gaps, members: usize) -> Vec<u8> {
        let mut bytes = Writer::default();
        sessions.save(gaps, members, &mut bytes);
        bytes.into_bytes()
    }

    fn loaded(bytes: &[u8], members: usize, clock: Millis) -> Sessions {
        let mut from = Reader::of(bytes);
        let sessions = Sessions::load(members, clock, &mut from).unwrap();
        assert!(from.is_at_end());
        sessions
    }

    /// A million of any spans, so that nearly all lie in the heap.
    #[test]
    fn a_session_takes_48_bytes_at_most() {
        assert_eq!(size_of::<Entry>(), 40);
        let mut chance = Chance::seeded(1);
        let mut sessions = Sessions::default();
        for n in 0..1_000_000 {
            let deadline = clock::deadline(n / 100, 1 + chance.below(1 << 40));
            sessions.pin(nth(n), n as usize % 1000, deadline);
        }
        let bytes = sessions.heap_bytes();
        assert!(bytes <= 48_000_000, "{bytes}");
        while sessions.end_first(u64::MAX >> 16) {}
        sessions.check();
        let bytes = sessions.heap_bytes();
        assert!(bytes < 100_000, "{bytes} bytes stay");
    }

    #[test]
    fn of_too_many_the_one_goes_that_would_end_soonest() {
        let mut sessions = Sessions::default();
        let most = SESSIONS_MAX as u64;
        for n in 0..most {
            sessions.pin(nth(n), n as usize % 2, 1_000 + n);
        }
        sessions.pin(nth(0), 0, 9_000_000);
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert_eq!(sessions.pinned(nth(1), 0), Some(1));
        sessions.pin(nth(most), 0, 5);
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert_eq!(sessions.pinned(nth(1), 0), None);
        sessions.pin(nth(most + 1), 0, 9_000_000);
        assert_eq!(sessions.pinned(nth(most), 0), None);
        assert_eq!(sessions.pinned(nth(2), 0), Some(0));
        // Those of a gone backend end nobody's pin.
        sessions.forget(1);
        assert_eq!(sessions.len(), SESSIONS_MAX / 2 + 1);
        for n in 0..1000 {
            sessions.pin(nth(2 * most + n), 0, 5);
        }
        assert_eq!(sessions.by_hash.len(), SESSIONS_MAX);
        assert_eq!(sessions.len(), SESSIONS_MAX / 2 + 1001);
        sessions.check();
    }

    /// Any hashes, also such that lie side by side in a table that goes by their lowest bits.
    #[test]
    fn no_choice_of_sessions_makes_them_collide() {
        for shift in [0, 12, 32, 44] {
            let mut sessions = Sessions::default();
            (0..20_000).for_each(|n| sessions.pin(n << shift, 0, 1));
            let looks = std::cell::Cell::new(0);
            for n in 0..20_000_u64 {
                let entries = &sessions.entries.records;
                (sessions.by_hash).find(lease_hash(n << shift), entries, |at| {
                    looks.set(looks.get() + 1);
                    entries[at as usize].hash == n << shift
                });
            }
            assert!(looks.get() < 80_000, "{} for 20,000", looks.get());
        }
    }

    /// Turns begin anew: of one deadline the sessions end in another order then, and in the same one wherever they are.
    #[test]
    fn more_picks_than_there_are_turns() {
        let mut sessions = Sessions::default();
        for n in 0..100_000 {
            sessions.pin(nth(n % 70_000), 0, 1_000);
        }
        sessions.check();
        let gaps = Gaps::of([false].into_iter());
        let mut other = loaded(&saved(&sessions, &gaps, 1), 1, 0);
        for _ in 0..7 {
            for _ in 0..10_000 {
                assert!(sessions.end_first(1_000) && other.end_first(1_000));
            }
            assert_eq!(saved(&sessions, &gaps, 1), saved(&other, &gaps, 1));
        }
    }

    /// A session in the plainest form.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Plain {
        slot: Option<Slot>,
        ends: (Millis, u64),
        pinned: u64,
        gone: u64,
    }

    /// Against a sorted map. In the middle they are saved and loaded, gaps close, and backends go.
    #[test]
    fn they_are_found_and_end_as_in_a_plain_map() {
        for spans in [2, 50, 100_000] {
            let mut chance = Chance::seeded(spans);
            let mut sessions = Sessions::default();
            let mut plain: BTreeMap<u64, Plain> = BTreeMap::new();
            let (mut clock, mut slots) = (1_000, 40);
            for step in 0..60_000 {
                let hash = nth(chance.below(3_000));
                let slot = chance.below(slots) as usize;
                match chance.below(if step % 10_000 < 5_000 { 20 } else { 60 }) {
                    0..10 => {
                        let deadline = clock::deadline(clock, chance.below(spans) * 40);
                        sessions.pin(hash, slot, deadline);
                        let before = plain.get(&hash).filter(|s| s.slot == Some(slot));
                        let pinned = before.map_or(step, |s| s.pinned);
                        plain.insert(
                            hash,
                            Plain {
                                slot: Some(slot),
                                ends: (deadline, step),
                                pinned,
                                gone: 0,
                            },
                        );
                    }
                    10 => {
                        let is_it = |s: &&Plain| s.slot.is_some() && s.ends.0 > clock;
                        let is_there = plain.get(&hash).filter(is_it).is_some();
                        assert_eq!(sessions.unpin(hash, clock), is_there);
                        if is_there {
                            plain.remove(&hash);
                        }
                    }
                    11 if step % 7 == 0 => {
                        sessions.forget(slot);
                        for session in plain.values_mut().filter(|s| s.slot == Some(slot)) {
                            (session.slot, session.gone) = (None, step);
                        }
                    }
                    12 if step % 50 == 0 => {
                        // Slot 3 was vacated before, and its gap closes.
                        sessions.forget(3);
                        sessions.renumber(&Gaps::of((0..slots).map(|slot| slot == 3)));
                        for session in plain.values_mut() {
                            match session.slot {
                                Some(3) => (session.slot, session.gone) = (None, step),
                                Some(slot) if slot > 3 => session.slot = Some(slot - 1),
                                _ => {}
                            }
                        }
                        slots = (slots - 1).max(10);
                    }
                    13 if step % 20 == 0 => {
                        let gaps = Gaps::of((0..slots).map(|_| false));
                        let bytes = saved(&sessions, &gaps, slots as usize);
                        if !bytes.is_empty() {
                            sessions = loaded(&bytes, slots as usize, clock);
                        }
                        assert_eq!(saved(&sessions, &gaps, slots as usize), bytes);
                    }
                    14 => clock += chance.below(200),
                    _ => {
                        let due = plain.iter().filter(|(_, s)| s.ends.0 <= clock);
                        let due = due.min_by_key(|(_, s)| s.ends).map(|(hash, _)| *hash);
                        let orphans = plain.iter().filter(|(_, s)| s.slot.is_none());
                        let orphan = orphans.min_by_key(|(_, s)| (s.gone, s.pinned));
                        let first = due.or(orphan.map(|(hash, _)| *hash));
                        assert_eq!(sessions.is_any_over(clock), first.is_some());
                        assert_eq!(sessions.end_first(clock), first.is_some());
                        if let Some(first) = first {
                            assert_eq!(sessions.find(first).map(|found| found.at), None);
                            plain.remove(&first);
                        }
                    }
                }
                let there = plain.get(&hash).filter(|s| s.ends.0 > clock);
                assert_eq!(sessions.pinned(hash, clock), there.and_then(|s| s.slot));
                if step % 500 == 0 {
                    sessions.check();
                    let on = |slot| plain.values().filter(|s| s.slot == slot).count();
                    assert_eq!(sessions.len(), plain.len() - on(None));
                    (0..slots as usize).for_each(|slot| {
                        assert_eq!(sessions.on(slot) as usize, on(Some(slot)));
                    });
                }
            }
        }
    }
}
