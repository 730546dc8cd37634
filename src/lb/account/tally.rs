//! How the leases of each backend ended.

use super::report::Report;
use crate::lb::ground::bounds::{COUNTER_MAX, Slot, counted};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::saved::{Malformed, Reader, Writer};
use crate::lb::ground::sparse::Sparse;

/// How the leases of a backend ended, and what else was reported of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Leases that LB.DONE ended.
    pub done: u64,
    /// Failures that LB.DONE or LB.REPORT told.
    pub failed: u64,
    /// Leases that ended by their deadline.
    pub expired: u64,
    /// The latencies that were reported, all together, in microseconds.
    pub latency: u64,
    /// How many were reported.
    pub latencies: u64,
}

impl Tally {
    /// The mean of the latencies that were reported, in microseconds; 0 where none was.
    pub fn mean_latency(&self) -> u64 {
        self.latency.checked_div(self.latencies).unwrap_or(0)
    }

    #[inline(always)]
    fn reported(&mut self, report: &Report) {
        if report.failed() {
            self.failed = counted(self.failed);
        }
        if let Some(latency) = report.latency {
            self.latency = self.latency.saturating_add(latency).min(COUNTER_MAX);
            self.latencies = counted(self.latencies);
        }
    }

    fn is_default(&self) -> bool {
        self.done == 0 && self.failed == 0 && self.expired == 0 && self.latencies == 0
    }
}

/// The tallies of all backends.
#[derive(Clone, Debug, Default)]
pub struct Tallies(Sparse<Tally>);

/// The tally of a backend that had no lease yet.
static NO_TALLY: Tally = Tally {
    done: 0,
    failed: 0,
    expired: 0,
    latency: 0,
    latencies: 0,
};

impl Tallies {
    /// The tally of a backend.
    pub fn of(&self, slot: Slot) -> &Tally {
        self.0.get(slot).unwrap_or(&NO_TALLY)
    }

    /// A lease ended by LB.DONE.
    #[inline(always)]
    pub fn done(&mut self, slot: Slot, report: &Report) {
        let tally = self.0.at(slot);
        tally.done = counted(tally.done);
        tally.reported(report);
    }

    /// LB.REPORT told this.
    pub fn reported(&mut self, slot: Slot, report: &Report) {
        if report.failed() || report.latency.is_some() {
            self.0.at(slot).reported(report);
        }
    }

    /// A lease ended by its deadline.
    pub fn expired(&mut self, slot: Slot) {
        let tally = self.0.at(slot);
        tally.expired = counted(tally.expired);
    }

    /// Whether nothing was counted.
    pub fn is_default(&self) -> bool {
        self.0.iter().all(|(_, tally)| tally.is_default())
    }

    /// Writes the tally of a backend.
    pub fn save(&self, slot: Slot, to: &mut Writer) {
        let tally = self.of(slot);
        for number in [
            tally.done,
            tally.failed,
            tally.expired,
            tally.latency,
            tally.latencies,
        ] {
            to.put(&number);
        }
    }

    /// Reads the tally of a backend.
    pub fn load(&mut self, slot: Slot, from: &mut Reader) -> Result<(), Malformed> {
        let done = from.number("leases", COUNTER_MAX)?;
        let tally = Tally {
            done,
            failed: from.number("failures", COUNTER_MAX)?,
            expired: from.number("leases", COUNTER_MAX)?,
            latency: from.number("latency", COUNTER_MAX)?,
            latencies: from.number("latency", COUNTER_MAX)?,
        };
        if !tally.is_default() {
            *self.0.at(slot) = tally;
        }
        Ok(())
    }
}

impl Kept for Tallies {
    fn forget(&mut self, slot: Slot) {
        self.0.take(slot);
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.0.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.0.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}
