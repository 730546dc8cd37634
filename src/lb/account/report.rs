//! What LB.DONE and LB.REPORT tell.

use crate::lb::ground::clock::Millis;

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// It failed.
    Fail,
}

/// What is told of a backend. Each may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How its request went.
    pub outcome: Option<Outcome>,
    /// How long that took, in microseconds.
    pub latency: Option<u64>,
    /// The utilisation of the backend, in millionths.
    pub load: Option<u32>,
    /// It wants no requests for this time.
    pub cool: Option<Millis>,
}

impl Report {
    /// Nothing is told.
    pub const NONE: Report = Report {
        outcome: None,
        latency: None,
        load: None,
        cool: None,
    };

    /// Whether the request failed.
    pub fn failed(&self) -> bool {
        self.outcome == Some(Outcome::Fail)
    }
}

/// The source of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The lease of this number, which it ends.
    Lease(u64),
    /// A caller without a lease, or in the middle of one.
    Caller,
}
