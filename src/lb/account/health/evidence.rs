//! What reports say of a backend, as far as it was not judged yet.

use serde::{Deserialize, Serialize};

use super::settings::HealthSettings;
use crate::lb::account::report::Outcome;
use crate::lb::ground::clock::Millis;

/// The failures in a row, and the reports of the present window and of the one before.
///
/// Windows lie on a grid of the pool's clock, so nothing happens when one ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Failures in a row.
    pub row: u32,
    /// The number of the window of the last report.
    window: Millis,
    now: Counts,
    before: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    reports: u32,
    failures: u32,
}

impl Counts {
    fn plus(self, other: Counts) -> Counts {
        Counts {
            reports: self.reports.saturating_add(other.reports),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

impl Evidence {
    /// Counts a report. Answers whether what was counted is enough to eject, which only a failure can bring about.
    pub fn count(&mut self, outcome: Outcome, settings: &HealthSettings, clock: Millis) -> bool {
        let failures = match outcome {
            Outcome::Ok => {
                self.row = 0;
                0
            }
            Outcome::Fail => {
                self.row = self.row.saturating_add(1);
                1
            }
        };
        if settings.failrate > 0 {
            self.turn_to(clock / settings.window);
            self.now = self.now.plus(Counts {
                reports: 1,
                failures,
            });
        }
        outcome == Outcome::Fail && self.is_enough(settings)
    }

    /// Forgets the windows, because they are of another length from now on.
    pub fn forget_windows(&mut self) {
        *self = Evidence {
            row: self.row,
            ..Evidence::default()
        };
    }

    /// Whether it can be like that at this clock.
    pub fn is_sound(&self, settings: &HealthSettings, clock: Millis) -> bool {
        let is_of_a_past_window = self.window <= clock / settings.window;
        let counts = [self.now, self.before];
        is_of_a_past_window && counts.iter().all(|c| c.failures <= c.reports)
    }

    fn turn_to(&mut self, window: Millis) {
        self.before = match window - self.window {
            0 => self.before,
            1 => std::mem::take(&mut self.now),
            _ => {
                self.now = Counts::default();
                Counts::default()
            }
        };
        self.window = window;
    }

    fn is_enough(&self, settings: &HealthSettings) -> bool {
        let Counts { reports, failures } = self.now.plus(self.before);
        let share = u64::from(failures) * 100;
        let limit = u64::from(reports) * u64::from(settings.failrate);
        settings.fails > 0 && self.row >= settings.fails
            || settings.failrate > 0 && reports >= settings.min && share >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_and_the_one_before_are_judged_together() {
        let settings = HealthSettings {
            failrate: 50,
            min: 4,
            window: 100,
            ..HealthSettings::default()
        };
        let mut evidence = Evidence::default();
        assert!(!evidence.count(Outcome::Fail, &settings, 1050));
        assert!(!evidence.count(Outcome::Fail, &settings, 1099));
        let before = evidence;
        assert!(!evidence.count(Outcome::Ok, &settings, 1100));
        assert!(evidence.count(Outcome::Fail, &settings, 1199));
        // A window later the first two are forgotten.
        evidence = before;
        assert!(!evidence.count(Outcome::Ok, &settings, 1150));
        assert!(!evidence.count(Outcome::Fail, &settings, 1200));
        assert!(!evidence.count(Outcome::Fail, &settings, 1400));
        assert!(!evidence.count(Outcome::Fail, &settings, 1400));
        assert!(!evidence.count(Outcome::Ok, &settings, 1400));
        assert!(evidence.count(Outcome::Fail, &settings, 1400));
    }

    #[test]
    fn one_success_ends_a_row() {
        let settings = HealthSettings {
            fails: 2,
            ..HealthSettings::default()
        };
        let mut evidence = Evidence::default();
        let outcomes = [Outcome::Fail, Outcome::Ok, Outcome::Fail, Outcome::Fail];
        let enough = outcomes.map(|outcome| evidence.count(outcome, &settings, 7));
        assert_eq!(enough, [false, false, false, true]);
    }
}
