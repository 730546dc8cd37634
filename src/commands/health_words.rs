//! Parser of the settings that LB.HEALTH is given.

use super::arguments::{Options, Words};
use crate::lb::{FAILS_MAX, HealthSettings, SPAN_MAX};
use crate::server::Error;

/// The settings that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthWords {
    fails: Option<u64>,
    failrate: Option<u64>,
    min: Option<u64>,
    window: Option<u64>,
    eject: Option<u64>,
    maxeject: Option<u64>,
    slowstart: Option<u64>,
    adapt: Option<u64>,
}

impl HealthWords {
    /// Whether it turns anything on, or might.
    pub fn sets_any(&self) -> bool {
        let all = [
            self.fails,
            self.failrate,
            self.min,
            self.window,
            self.eject,
            self.maxeject,
            self.slowstart,
            self.adapt,
        ];
        all.into_iter().flatten().any(|number| number > 0)
    }

    /// These settings with those that are given. Each was parsed within its range.
    pub fn over(&self, before: &HealthSettings) -> HealthSettings {
        let or = |given: Option<u64>, before: u64| given.unwrap_or(before);
        HealthSettings {
            fails: or(self.fails, before.fails.into()) as u32,
            failrate: or(self.failrate, before.failrate.into()) as u8,
            min: or(self.min, before.min.into()) as u32,
            window: or(self.window, before.window),
            eject: or(self.eject, before.eject),
            max_eject: or(self.maxeject, before.max_eject.into()) as u8,
            slow_start: or(self.slowstart, before.slow_start),
            adapt: or(self.adapt, before.adapt),
        }
    }
}

/// Parses them.
pub fn health_words<'a>(args: impl Words<'a>) -> Result<HealthWords, Error> {
    let mut words = HealthWords::default();
    let mut options = Options::of(args);
    let (counts, spans) = (u64::from(FAILS_MAX), SPAN_MAX);
    while let Some(word) = options.keyword() {
        let settings = [
            ("FAILS", &mut words.fails, 0..=counts),
            ("FAILRATE", &mut words.failrate, 0..=100),
            ("MIN", &mut words.min, 1..=counts),
            ("WINDOW", &mut words.window, 1..=spans),
            ("EJECT", &mut words.eject, 1..=spans),
            ("MAXEJECT", &mut words.maxeject, 0..=100),
            ("SLOWSTART", &mut words.slowstart, 0..=spans),
            ("ADAPT", &mut words.adapt, 0..=spans),
        ];
        let mut settings = settings.into_iter();
        let named = settings.find(|(name, ..)| word.eq_ignore_ascii_case(name.as_bytes()));
        let Some((name, setting, range)) = named else {
            let words = "FAILS n, FAILRATE percent, MIN n, WINDOW ms, EJECT ms, MAXEJECT percent, SLOWSTART ms or ADAPT ms";
            return Err(Error::not_one_of("keyword", word, words));
        };
        if setting.replace(options.number(name, range)?).is_some() {
            return Err(Error::repeated(word));
        }
    }
    if words.failrate.is_none() && (words.min.is_some() || words.window.is_some()) {
        return Err(Error::fixed(
            "ERR MIN and WINDOW need FAILRATE: they say which reports it judges",
        ));
    }
    Ok(words)
}
