//! The leases of a pool as bytes: the head, and later the epochs, the owners in the order of their oldest leases, and the
//! leases by number. The marks have a section of their own, for pools that have some.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::lease::{Lease, Leases, Marked};
use crate::lb::ground::bounds::{COUNTER_MAX, NAME_MAX, Slot};
use crate::lb::ground::clock::{self, Millis, SPAN_MAX};
use crate::lb::ground::kept::Gaps;
use crate::lb::ground::saved::{Bytes, Malformed, Reader, Writer, checked};

/// How much there is to be read.
#[derive(Serialize, Deserialize)]
pub struct LeasesHead {
    /// The number of the next lease.
    next: u64,
    epochs: u32,
    owners: u32,
    leases: u32,
}

/// An epoch, from its first lease on.
#[derive(Serialize, Deserialize)]
struct SavedEpoch {
    first: u64,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct SavedLease {
    number: u64,
    /// How many backends stand before its own. If that is gone: the number of all backends, and of the marks before that of its
    /// backend the number of those that are of gone backends too.
    member: u32,
    /// The place of its owner among the owners.
    owner: Option<u32>,
    granted: u64,
    deadline: u64,
}

/// Leases that are about to be written.
pub struct LeasesSaved<'a> {
    of: &'a Leases,
    leases: Vec<(u32, Lease<'a>)>,
    owners: Vec<&'a [u8]>,
}

/// The kind of a marked list, and which one it is: a backend by its place, a backend that is gone, an owner by its place.
const OF_BACKEND: u8 = 0;
const OF_GONE: u8 = 1;
const OF_OWNER: u8 = 2;

impl<'a> LeasesSaved<'a> {
    /// These leases.
    pub fn of(of: &'a Leases) -> LeasesSaved<'a> {
        let leases = of.by_age();
        let mut owners = Vec::new();
        let mut seen = HashSet::new();
        for owner in leases.iter().filter_map(|(_, lease)| lease.owner) {
            if seen.insert(owner) {
                owners.push(owner);
            }
        }
        LeasesSaved { of, leases, owners }
    }

    /// Writes the head.
    pub fn save_head(&self, to: &mut Writer) {
        to.put(&LeasesHead {
            next: self.of.next,
            epochs: self.of.epochs().iter().count() as u32,
            owners: self.owners.len() as u32,
            leases: self.leases.len() as u32,
        });
    }

    /// Writes the rest, of a pool with this number of backends. The gaps say which backend a slot is.
    pub fn save(&self, gaps: &Gaps, members: usize, to: &mut Writer) {
        for epoch in self.of.epochs().iter() {
            let (first, epoch) = (epoch.first, epoch.epoch);
            to.put(&SavedEpoch { first, epoch });
        }
        let mut places = HashMap::new();
        for (place, owner) in self.owners.iter().enumerate() {
            places.insert(*owner, place as u32);
            to.put(&Bytes(owner));
        }
        let mut gone = HashMap::new();
        for (marked, _) in self.of.marks() {
            if let Marked::Group(group) = marked
                && self.of.slot_of(group).is_none()
            {
                gone.insert(group, members + gone.len());
            }
        }
        for (group, lease) in &self.leases {
            let member = match lease.slot {
                Some(slot) => gaps.before_slot(slot),
                None => gone[group],
            };
            to.put(&SavedLease {
                number: lease.id.number,
                member: member as u32,
                owner: lease.owner.map(|owner| places[owner]),
                granted: lease.granted,
                deadline: lease.deadline,
            });
        }
    }
}

/// Writes the marks, where there are any.
pub fn save_marks(leases: &Leases, gaps: &Gaps, to: &mut Writer) {
    for (marked, over) in leases.marks() {
        match marked {
            Marked::Group(group) => match leases.slot_of(group) {
                Some(slot) => to.put(&(OF_BACKEND, gaps.before_slot(slot) as u32, over)),
                None => to.put(&(OF_GONE, over)),
            },
            Marked::Owner(owner) => to.put(&(OF_OWNER, Bytes(leases.owner_name(owner)), over)),
        }
    }
}

/// Reads the marks. The leases were read before, and these groups were made for leases of gone backends.
pub fn load_marks(leases: &mut Leases, gone: &[u32], from: &mut Reader) -> Result<(), Malformed> {
    let mut gone = gone.iter();
    while !from.is_at_end() {
        let marked = match from.get::<u8>()? {
            OF_BACKEND => (leases.present_group(from.get::<u32>()? as Slot)).map(Marked::Group),
            OF_GONE => gone.next().copied().map(Marked::Group),
            OF_OWNER => {
                let name = from.bytes("owner's name", 1..=NAME_MAX)?;
                leases.owner(name).map(Marked::Owner)
            }
            _ => None,
        };
        let over = from.get()?;
        let is_made = marked.is_some_and(|marked| leases.load_mark(marked, over));
        checked("marks", (), is_made)?;
    }
    checked("marks", (), gone.next().is_none())
}

impl LeasesHead {
    /// Reads the head.
    pub fn load(from: &mut Reader) -> Result<LeasesHead, Malformed> {
        let head: LeasesHead = from.get()?;
        let is_in_range = head.next <= COUNTER_MAX;
        checked("lease number", head, is_in_range)
    }

    /// Reads the rest, at this clock, of a pool with this number of backends. Answers the groups that it made for leases of
    /// backends that are gone: they must be marked.
    pub fn load_leases(
        &self,
        leases: &mut Leases,
        clock: Millis,
        members: usize,
        from: &mut Reader,
    ) -> Result<Vec<u32>, Malformed> {
        let mut gone = BTreeMap::new();
        let (mut first, mut last) = (None, None);
        for _ in 0..self.epochs {
            let epoch: SavedEpoch = from.get()?;
            let follows = last < Some(epoch.first) && epoch.first <= self.next;
            checked("epochs", (), follows)?;
            last = Some(epoch.first);
            first = first.or(last);
            leases.append_epoch(epoch.first, epoch.epoch);
        }
        let mut owners = Vec::new();
        for _ in 0..self.owners {
            owners.push(from.bytes("owner's name", 1..=NAME_MAX)?);
        }
        let mut seen = 0;
        let mut before = None;
        for _ in 0..self.leases {
            let lease: SavedLease = from.get()?;
            let follows = before < Some(lease.number) && lease.number < self.next;
            let has_epoch = first.is_some_and(|first| first <= lease.number);
            let number = checked("lease number", lease.number, follows && has_epoch)?;
            before = Some(number);
            let member = lease.member as usize;
            let group = match member < members {
                true => leases.group_of(member),
                false => *(gone.entry(member)).or_insert_with(|| leases.group_of_gone()),
            };
            let owner = match lease.owner.map(|owner| owner as usize) {
                Some(owner) => {
                    let is_known = owner <= seen && owner < owners.len();
                    seen += usize::from(checked("lease's owner", owner, is_known)? == seen);
                    Some(owners[owner])
                }
                None => None,
            };
            let granted = checked("lease", lease.granted, lease.granted <= clock)?;
            let deadline = lease.deadline;
            let is_in_range = granted < deadline && deadline <= clock::deadline(clock, SPAN_MAX);
            let deadline = checked("deadline", deadline, is_in_range)?;
            leases.insert(number, group, owner, granted, deadline);
        }
        checked("owners", (), seen == owners.len())?;
        let are_open = leases.epochs().iter().count() == self.epochs as usize;
        checked("epochs", (), are_open)?;
        leases.next = self.next;
        let are_following = gone.keys().copied().eq(members..members + gone.len());
        checked(
            "lease's backend",
            gone.into_values().collect(),
            are_following,
        )
    }
}
