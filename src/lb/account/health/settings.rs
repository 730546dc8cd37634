//! The settings of LB.HEALTH.

use serde::{Deserialize, Serialize};

use crate::lb::ground::clock::{Millis, SPAN_MAX};

/// How a pool follows the performance of its backends. 0 turns one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSettings {
    /// This number of failures in a row ejects.
    pub fails: u32,
    /// This share of failures ejects, in percent.
    pub failrate: u8,
    /// A share is judged from this number of reports on.
    pub min: u32,
    /// The reports of this time and of the one before are judged.
    pub window: Millis,
    /// How long an ejection lasts the first time.
    pub eject: Millis,
    /// This share of the backends is ejected at most, in percent.
    pub max_eject: u8,
    /// How long it takes a backend that came back until it has its whole weight.
    pub slow_start: Millis,
    /// The time between two steps in which a running weight follows the backend's load.
    pub adapt: Millis,
}

/// The largest number in FAILS and MIN.
pub const FAILS_MAX: u32 = 1 << 20;

impl Default for HealthSettings {
    fn default() -> HealthSettings {
        HealthSettings {
            fails: 0,
            failrate: 0,
            min: 20,
            window: 5000,
            eject: 5000,
            max_eject: 50,
            slow_start: 0,
            adapt: 0,
        }
    }
}

impl HealthSettings {
    /// Whether failures eject.
    pub fn ejects(&self) -> bool {
        self.fails > 0 || self.failrate > 0
    }

    /// Whether running weights have fractions.
    pub fn has_fractions(&self) -> bool {
        self.slow_start > 0 || self.adapt > 0
    }

    /// Whether every number is in its range.
    pub fn is_sound(&self) -> bool {
        let spans = [self.window, self.eject];
        let may_be_off = [self.slow_start, self.adapt];
        self.fails <= FAILS_MAX
            && (1..=FAILS_MAX).contains(&self.min)
            && self.failrate <= 100
            && self.max_eject <= 100
            && spans.iter().all(|span| (1..=SPAN_MAX).contains(span))
            && may_be_off.iter().all(|span| *span <= SPAN_MAX)
    }
}
