//! The leases of a pool as bytes: the head, and later the epochs, the owners in the order of their oldest leases, and the open
//! leases by number.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::lease::{Lease, Leases};
use crate::lb::ground::bounds::{COUNTER_MAX, NAME_MAX};
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
    /// How many backends stand before its own.
    member: u32,
    /// The place of its owner among the owners.
    owner: Option<u32>,
    granted: u64,
    deadline: u64,
}

/// Leases that are about to be written.
pub struct LeasesSaved<'a> {
    of: &'a Leases,
    leases: Vec<Lease<'a>>,
    owners: Vec<&'a [u8]>,
}

impl<'a> LeasesSaved<'a> {
    /// These leases.
    pub fn of(of: &'a Leases) -> LeasesSaved<'a> {
        let leases = of.by_age();
        let mut owners = Vec::new();
        let mut seen = HashSet::new();
        for owner in leases.iter().filter_map(|lease| lease.owner) {
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
            epochs: self.of.epochs().count() as u32,
            owners: self.owners.len() as u32,
            leases: self.leases.len() as u32,
        });
    }

    /// Writes the rest. The gaps say which backend a slot is.
    pub fn save(&self, gaps: &Gaps, to: &mut Writer) {
        for epoch in self.of.epochs() {
            let (first, epoch) = (epoch.first, epoch.epoch);
            to.put(&SavedEpoch { first, epoch });
        }
        let mut places = HashMap::new();
        for (place, owner) in self.owners.iter().enumerate() {
            places.insert(*owner, place as u32);
            to.put(&Bytes(owner));
        }
        for lease in &self.leases {
            to.put(&SavedLease {
                number: lease.id.number,
                member: gaps.before_slot(lease.slot) as u32,
                owner: lease.owner.map(|owner| places[owner]),
                granted: lease.granted,
                deadline: lease.deadline,
            });
        }
    }
}

impl LeasesHead {
    /// Reads the head.
    pub fn load(from: &mut Reader) -> Result<LeasesHead, Malformed> {
        let head: LeasesHead = from.get()?;
        let is_in_range = head.next <= COUNTER_MAX;
        checked("lease number", head, is_in_range)
    }

    /// Reads the rest, at this clock.
    pub fn load_leases(
        &self,
        leases: &mut Leases,
        clock: Millis,
        from: &mut Reader,
    ) -> Result<(), Malformed> {
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
            let slot = lease.member as usize;
            let slot = checked("lease's backend", slot, slot < leases.slots())?;
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
            let is_open = clock < deadline && deadline <= clock::deadline(clock, SPAN_MAX);
            let deadline = checked("deadline", deadline, is_open)?;
            leases.insert(number, slot, owner, granted, deadline);
        }
        checked("owners", (), seen == owners.len())?;
        let are_open = leases.epochs().count() == self.epochs as usize;
        checked("epochs", (), are_open)?;
        leases.next = self.next;
        Ok(())
    }
}
