//! Leases: what is in flight, by whom, and until when.
//!
//! A lease is found by its number, by its deadline, by its backend and by its owner; each of these costs O(1) or, by
//! deadline, O(log n), and no step walks all leases. One takes 48 bytes, 4 in the heap of deadlines and 6 to 7 in the
//! table of numbers.

use std::fmt;
use std::sync::LazyLock;

use hashbrown::HashTable;

use super::clock::Millis;
use super::index::hash;
use super::name::Name;
use super::{Mover, Slot, allocated};

/// What a lease is called outside: `<epoch>-<number>`.
///
/// The number alone is unique in one pool's life; the epoch makes it so among all that this pool could have been
/// otherwise: copies of it, restored dumps, a primary whose last words were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    /// Drawn by the primary, before the first lease after anything that may have doubled the pool.
    pub epoch: u64,
    /// Counts the leases of a pool.
    pub number: u64,
}

impl LeaseId {
    /// Reads what `Display` writes.
    pub fn parse(bytes: &[u8]) -> Option<LeaseId> {
        let (epoch, number) = std::str::from_utf8(bytes).ok()?.split_once('-')?;
        let plain = |digits: &str| {
            // As they are written, with no zeros before them: one lease has one id.
            let is_plain = digits.bytes().all(|b| b.is_ascii_digit())
                && (digits == "0" || !digits.starts_with('0'));
            is_plain.then(|| digits.parse().ok()).flatten()
        };
        Some(LeaseId {
            epoch: plain(epoch)?,
            number: plain(number)?,
        })
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

/// A lease, as one looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease<'a> {
    /// What it is called.
    pub id: LeaseId,
    /// On which backend it is.
    pub slot: Slot,
    /// Who holds it, if that was said.
    pub owner: Option<&'a [u8]>,
    /// The pool's clock when it was granted.
    pub granted: Millis,
    /// When it ends by itself.
    pub deadline: Millis,
}

/// All leases of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    entries: Vec<Entry>,
    /// One more than the place of the first vacant entry, 0 = none; each names the next one so as its
    /// `backend_links.next`.
    vacant: At,
    by_number: Numbers,
    /// A binary heap on (deadline, number).
    by_deadline: Vec<At>,
    /// The leases of each slot, in the order in which they were granted.
    by_slot: Vec<List>,
    owners: Owners,
    /// The present epoch, and before it those of which leases are open, and some that are over.
    epochs: Vec<Epoch>,
    /// How many are over: they are swept out when they are more than half, so that each costs O(1).
    over: usize,
    /// The number of the next lease.
    pub next: u64,
}

/// Where an entry lies. That is layout: it is not saved.
type At = u32;
const NONE: At = u32::MAX;

#[derive(Clone, Debug)]
struct Entry {
    number: u64,
    deadline: Short,
    granted: Short,
    slot: u32,
    owner: u32,
    /// Its place in the heap.
    place: u32,
    backend_links: Links,
    owner_links: Links,
}

/// A time in 48 bits.
#[derive(Clone, Copy, Debug)]
struct Short([u16; 3]);

impl Short {
    fn of(millis: Millis) -> Short {
        Short([millis as u16, (millis >> 16) as u16, (millis >> 32) as u16])
    }

    fn millis(self) -> Millis {
        let [low, middle, high] = self.0.map(u64::from);
        low | middle << 16 | high << 32
    }
}

#[derive(Clone, Copy, Debug)]
struct Links {
    previous: At,
    next: At,
}

/// Some leases, linked through their entries, the oldest first.
#[derive(Clone, Copy, Debug)]
struct List {
    first: At,
    last: At,
    len: u32,
}

impl Default for List {
    fn default() -> List {
        List {
            first: NONE,
            last: NONE,
            len: 0,
        }
    }
}

impl List {
    fn push(&mut self, at: At, entries: &mut [Entry], links: impl Fn(&mut Entry) -> &mut Links) {
        *links(&mut entries[at as usize]) = Links {
            previous: self.last,
            next: NONE,
        };
        match self.last {
            NONE => self.first = at,
            last => links(&mut entries[last as usize]).next = at,
        }
        self.last = at;
        self.len += 1;
    }

    fn remove(&mut self, at: At, entries: &mut [Entry], links: impl Fn(&mut Entry) -> &mut Links) {
        let Links { previous, next } = *links(&mut entries[at as usize]);
        match previous {
            NONE => self.first = next,
            previous => links(&mut entries[previous as usize]).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => links(&mut entries[next as usize]).previous = previous,
        }
        self.len -= 1;
    }
}

#[derive(Clone, Debug)]
pub(super) struct Epoch {
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

    /// How many are open on that slot.
    pub fn on(&self, slot: Slot) -> u32 {
        self.by_slot[slot].len
    }

    /// Makes room for the slot that was added last.
    pub fn added(&mut self, slots: usize) {
        self.by_slot.resize(slots, List::default());
    }

    /// From now on leases are of that epoch.
    pub fn open_epoch(&mut self, epoch: u64) {
        self.epochs.pop_if(|present| present.open == 0);
        self.append_epoch(epoch);
    }

    /// An epoch out of a saved pool, whose leases come later.
    pub fn append_epoch(&mut self, epoch: u64) {
        self.epochs.push(Epoch {
            first: self.next,
            epoch,
            open: 0,
        });
    }

    /// The present epoch, and before it those of which leases are open.
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
            // A stream without an epoch is nobody's but a test's.
            self.open_epoch(0);
        }
        let number = self.next;
        self.next += 1;
        self.insert(number, slot, owner, granted, deadline);
        self.id(number)
    }

    /// A lease out of a saved pool; its number is below `next` and above all that are there, and has an epoch.
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
            let list = &mut self.owners.owners[owner as usize].list;
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
            owner: (entry.owner != NONE)
                .then(|| self.owners.owners[entry.owner as usize].name.as_bytes()),
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
            let list = &mut self.owners.owners[owner as usize].list;
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
            // Nothing is left to be found, so what was kept for the highest flood can go.
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
        Some(self.owners.owners[owner as usize].list.first)
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

    /// All leases, the oldest first. O(n log n), for who writes them all.
    pub fn by_age(&self) -> Vec<Lease<'_>> {
        let mut all: Vec<Lease> = self.by_deadline.iter().map(|at| self.lease(*at)).collect();
        all.sort_unstable_by_key(|lease| lease.id.number);
        all
    }

    /// The slots have other numbers now: what was slot `n` is `slots[n]`. O(leases).
    pub fn renumber(&mut self, slots: &[Slot], len: usize) {
        for at in &self.by_deadline {
            let entry = &mut self.entries[*at as usize];
            entry.slot = slots[entry.slot as usize] as u32;
        }
        let mut by_slot = vec![List::default(); len];
        for (from, list) in self.by_slot.iter().enumerate() {
            if list.len > 0 {
                by_slot[slots[from]] = *list;
            }
        }
        self.by_slot = by_slot;
    }

    /// Lets the mover at what is on the heap in one piece each.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.entries);
        by.vec(&mut self.by_number.cells);
        by.vec(&mut self.by_deadline);
        by.vec(&mut self.by_slot);
        by.vec(&mut self.epochs);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        allocated(self.entries.capacity() * size_of::<Entry>())
            + allocated(self.by_number.cells.capacity() * size_of::<At>())
            + allocated(self.by_deadline.capacity() * size_of::<At>())
            + allocated(self.by_slot.capacity() * size_of::<List>())
            + allocated(self.epochs.capacity() * size_of::<Epoch>())
            + self.owners.heap_bytes()
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
        assert_eq!(self.by_number.used, self.len());
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
        let lists: u32 = self.owners.owners.iter().map(|o| o.list.len).sum();
        assert_eq!(lists, owned);
    }
}

/// As [`Leases::vacant`]: no entry is.
const VACANT_NONE: At = 0;
/// Room for so many leases stays when the last one has ended.
const KEPT: usize = 64;

/// Grows by a sixteenth, where a vector would double: with a million leases the room that waits is worth more than
/// the time to move them.
fn grow<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact((vec.len() / 16).max(4));
    }
}

/// A process's own, as that of the hash of names.
static KEY: LazyLock<u64> = LazyLock::new(|| hash(b"the numbers of leases"));

/// From a lease's number to its place: a hash table with linear probing, of any size.
///
/// A crate's table doubles, so that just behind that it takes 11 bytes a lease and more, where this takes 7; with a
/// million leases that is what keeps one within 64 bytes.
#[derive(Clone, Debug, Default)]
struct Numbers {
    cells: Vec<At>,
    used: usize,
}

impl Numbers {
    /// Where the search for a number begins. A payload can hold any numbers, and a client can choose which ones stay: the key
    /// is there so that nobody can make them collide. Without the last multiplication it is a bad one in every hundred.
    fn home(&self, number: u64) -> usize {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(number ^ *KEY) * u128::from(GOLDEN);
        let scattered = (product as u64 ^ (product >> 64) as u64).wrapping_mul(GOLDEN);
        ((u128::from(scattered) * self.cells.len() as u128) >> 64) as usize
    }

    fn next(&self, cell: usize) -> usize {
        if cell + 1 < self.cells.len() {
            cell + 1
        } else {
            0
        }
    }

    /// The cell of that number, or a free one where it is not there. There is a free one.
    fn cell(&self, number: u64, entries: &[Entry]) -> usize {
        let mut cell = self.home(number);
        while self.cells[cell] != NONE && entries[self.cells[cell] as usize].number != number {
            cell = self.next(cell);
        }
        cell
    }

    fn find(&self, number: u64, entries: &[Entry]) -> Option<At> {
        if self.cells.is_empty() {
            return None;
        }
        Some(self.cells[self.cell(number, entries)]).filter(|at| *at != NONE)
    }

    fn insert(&mut self, at: At, entries: &[Entry]) {
        // At most two thirds are in use.
        if (self.used + 1) * 3 > self.cells.len() * 2 {
            let cells = vec![NONE; self.cells.len() / 5 * 6 + 10];
            let old = std::mem::replace(&mut self.cells, cells);
            for at in old.into_iter().filter(|at| *at != NONE) {
                self.put(at, entries);
            }
        }
        self.put(at, entries);
        self.used += 1;
    }

    fn put(&mut self, at: At, entries: &[Entry]) {
        // It is new, so nothing needs to be compared.
        let mut cell = self.home(entries[at as usize].number);
        while self.cells[cell] != NONE {
            cell = self.next(cell);
        }
        self.cells[cell] = at;
    }

    fn remove(&mut self, number: u64, entries: &[Entry]) {
        let mut hole = self.cell(number, entries);
        self.used -= 1;
        // What stands behind moves up into the hole, unless that lies before its home.
        let mut cell = hole;
        loop {
            self.cells[hole] = NONE;
            loop {
                cell = self.next(cell);
                let at = self.cells[cell];
                if at == NONE {
                    return;
                }
                let home = self.home(entries[at as usize].number);
                let from_home = |to: usize| (to + self.cells.len() - home) % self.cells.len();
                if from_home(hole) < from_home(cell) {
                    self.cells[hole] = at;
                    hole = cell;
                    break;
                }
            }
        }
    }
}

/// Those who hold leases, each name once.
#[derive(Clone, Debug, Default)]
struct Owners {
    owners: Vec<Owner>,
    vacant: Vec<u32>,
    by_name: HashTable<u32>,
    name_bytes: usize,
}

#[derive(Clone, Debug)]
struct Owner {
    name: Name,
    list: List,
}

impl Owners {
    fn find(&self, name: &[u8]) -> Option<u32> {
        let same = |owner: &u32| self.owners[*owner as usize].name.as_bytes() == name;
        self.by_name.find(hash(name), same).copied()
    }

    fn find_or_add(&mut self, name: &[u8]) -> u32 {
        if let Some(owner) = self.find(name) {
            return owner;
        }
        let new = Owner {
            name: Name::new(name),
            list: List::default(),
        };
        self.name_bytes += new.name.heap_bytes();
        let owner = match self.vacant.pop() {
            Some(vacant) => {
                self.owners[vacant as usize] = new;
                vacant
            }
            None => {
                self.owners.push(new);
                self.owners.len() as u32 - 1
            }
        };
        let rehash = |o: &u32| hash(self.owners[*o as usize].name.as_bytes());
        self.by_name.insert_unique(hash(name), owner, rehash);
        owner
    }

    fn remove(&mut self, owner: u32) {
        let hash = hash(self.owners[owner as usize].name.as_bytes());
        if let Ok(found) = self.by_name.find_entry(hash, |o| *o == owner) {
            found.remove();
        }
        self.name_bytes -= self.owners[owner as usize].name.heap_bytes();
        self.owners[owner as usize].name = Name::new(b"");
        self.vacant.push(owner);
        if self.by_name.is_empty() {
            *self = Owners::default();
        }
    }

    fn heap_bytes(&self) -> usize {
        allocated(self.owners.capacity() * size_of::<Owner>())
            + allocated(self.vacant.capacity() * size_of::<u32>())
            + allocated(self.by_name.allocation_size())
            + self.name_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = LeaseId {
            epoch: u64::MAX,
            number: 7,
        };
        assert_eq!(LeaseId::parse(id.to_string().as_bytes()), Some(id));
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "+1-2",
            "1--2",
            "a-1",
            "01-1",
            "1-01",
            "00-1",
            "1-99999999999999999999",
        ] {
            assert_eq!(LeaseId::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(LeaseId::parse(&[0xff, b'-', b'1']), None);
    }

    /// Of numbers that a payload brings, or that a client lets stay. The multiples of the multiplier's inverse are those that
    /// would lie side by side without the key.
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
            leases.added(1);
            leases.open_epoch(0);
            numbers.sort_unstable();
            for number in &numbers {
                leases.insert(*number, 0, None, 0, 1);
            }
            let table = &leases.by_number;
            let distance = |n: &u64| {
                let (home, cells) = (table.home(*n), table.cells.len());
                (table.cell(*n, &leases.entries) + cells - home) % cells
            };
            let sum: usize = numbers.iter().map(distance).sum();
            assert!(sum < 10 * numbers.len(), "{sum} for {}", numbers.len());
        }
    }

    #[test]
    fn epochs_that_are_over_cost_nothing_each() {
        let mut leases = Leases::default();
        leases.added(1);
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
        leases.added(1);
        for i in 0..1_000_000 {
            leases.grant(0, Some(b"gateway"), i, i + 60_000);
        }
        let bytes = leases.heap_bytes();
        assert!(bytes <= 64_000_000, "{bytes}");
    }
}
