//! The epochs of leases.

use super::lease_id::{EpochText, IdText, LeaseId};
use crate::lb::ground::memory::{Mover, buffer};

/// The present epoch, and before it those with open leases.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    /// Nearly all leases are of it, so it is asked first.
    present: Option<Present>,
    /// Some of them are over. They are swept out when they are more than half, so that each costs O(1).
    before: Vec<Epoch>,
    over: usize,
}

#[derive(Clone, Debug)]
pub struct Epoch {
    /// The number of its first lease.
    pub first: u64,
    pub epoch: u64,
    open: u32,
}

/// The present epoch, and its text.
#[derive(Clone, Debug)]
struct Present {
    epoch: Epoch,
    text: EpochText,
}

impl Epochs {
    /// Whether there never was one.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.present.is_none()
    }

    /// From the lease of number `first` on, leases are of that epoch.
    pub fn open(&mut self, first: u64, epoch: u64) {
        self.present.take_if(|present| present.epoch.open == 0);
        self.append(first, epoch);
    }

    /// The same in a saved pool, where the leases of the epochs before come later.
    pub fn append(&mut self, first: u64, epoch: u64) {
        let present = Present {
            epoch: Epoch {
                first,
                epoch,
                open: 0,
            },
            text: EpochText::of(epoch),
        };
        let before = self.present.replace(present);
        self.before.extend(before.map(|before| before.epoch));
    }

    /// Those with open leases, and the present one, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Epoch> {
        let before = self.before.iter().filter(|e| e.open > 0);
        before.chain(self.present.iter().map(|present| &present.epoch))
    }

    /// The id of the lease of that number.
    #[inline(always)]
    pub fn id(&self, number: u64) -> LeaseId {
        let epoch = match self.present_of(number) {
            Some(present) => present.epoch.epoch,
            None => self.before[self.place(number)].epoch,
        };
        LeaseId { epoch, number }
    }

    /// The text of an id.
    #[inline(always)]
    pub fn text(&self, id: LeaseId) -> IdText {
        match &self.present {
            Some(present) if present.epoch.epoch == id.epoch => present.text.id(id.number),
            _ => id.text(),
        }
    }

    /// Reads an id. Nearly all that come are of the present epoch, and then it is not read digit by digit.
    #[inline(always)]
    pub fn read(&self, text: &[u8]) -> Option<LeaseId> {
        if let Some(present) = &self.present
            && let Some(number) = present.text.number(text)
        {
            let epoch = present.epoch.epoch;
            return Some(LeaseId { epoch, number });
        }
        LeaseId::parse(text)
    }

    /// A lease of that number begins.
    #[inline(always)]
    pub fn begins(&mut self, number: u64) {
        self.of(number).open += 1;
    }

    /// A lease of that number ends.
    #[inline(always)]
    pub fn ends(&mut self, number: u64) {
        let epoch = self.of(number);
        epoch.open -= 1;
        if epoch.open == 0 && self.present_of(number).is_none() {
            self.over += 1;
            self.sweep();
        }
    }

    #[inline(always)]
    fn present_of(&self, number: u64) -> Option<&Present> {
        (self.present.as_ref()).filter(|present| present.epoch.first <= number)
    }

    #[inline(always)]
    fn of(&mut self, number: u64) -> &mut Epoch {
        match self.present_of(number).is_some() {
            true => &mut self.present.as_mut().expect("it was just there").epoch,
            false => {
                let place = self.place(number);
                &mut self.before[place]
            }
        }
    }

    #[cold]
    fn place(&self, number: u64) -> usize {
        self.before.partition_point(|e| e.first <= number) - 1
    }

    #[cold]
    fn sweep(&mut self) {
        if self.over * 2 > self.before.len() {
            self.before.retain(|e| e.open > 0);
            self.over = 0;
        }
    }

    /// Lets the mover move them.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.before);
    }

    /// How many bytes they take on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.before)
    }

    /// How many epochs are kept before the present one.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.before.len()
    }

    /// Panics where they disagree with the number of open leases. For the tests.
    pub fn check(&self, leases: usize) {
        let open: u32 = self.iter().map(|e| e.open).sum();
        assert_eq!(open as usize, leases);
        let before = self.before.iter().filter(|e| e.open > 0).count();
        assert_eq!(self.before.len(), before + self.over);
    }
}
