//! LB.HEALTH: lets a pool follow the performance of its backends.

use super::arguments::Options;
use crate::lb::{FAILS_MAX, HealthSettings, SPAN_MAX};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.HEALTH
pub struct Health;

impl Command for Health {
    const SPEC: Spec = Spec {
        name: "LB.HEALTH",
        summary: "Lets a pool follow the performance of its backends: failures eject, returns start slowly, weights adapt to loads (0 = off). Without an option it returns the present settings.",
        complexity: "O(N log N), with N the number of backends in the pool; O(1) without an option",
        since: "0.3.0",
        arity: -2,
        // Not deny-oom: to read the settings, or to turn one off, takes no memory.
        flags: "write",
        key: "RW access update",
        args: &[
            Arg::KEY,
            number("fails", "FAILS"),
            Arg::new(
                "failrate",
                Kind::Block(&[
                    Arg::new("percent", Kind::Integer).token("FAILRATE"),
                    number("min", "MIN"),
                    number("window", "WINDOW"),
                ]),
            )
            .optional(),
            number("eject", "EJECT"),
            number("maxeject", "MAXEJECT"),
            number("slowstart", "SLOWSTART"),
            number("adapt", "ADAPT"),
        ],
    };

    type Order<'a> = Words;

    fn read(call: &Call) -> Result<Words, Error> {
        let words = health_words(call)?;
        match words.sets_any() && call.is_out_of_memory() {
            true => Err(Error::out_of_memory()),
            false => Ok(words),
        }
    }

    fn access(words: &Words) -> Access {
        match words {
            _ if *words == Words::default() => Access::Look,
            _ if words.sets_any() => Access::FromNow,
            _ => Access::Now,
        }
    }

    fn run(words: Words, key: &mut Key, call: &Call) -> Effect {
        let before = key.pool().map(|pool| pool.health_settings());
        let before = before.unwrap_or_default();
        if words == Words::default() {
            let fields = fields(&before);
            call.reply().map(fields.len());
            for (field, value) in fields {
                call.reply().field(field, value as usize);
            }
            return Effect::None;
        }
        let settings = words.over(&before);
        let changed = settings != before && key.pool_or_new().set_health(settings);
        call.reply().ok();
        Effect::events([(c"lb.health", usize::from(changed))])
    }
}

const fn number(name: &'static str, token: &'static str) -> Arg {
    Arg::new(name, Kind::Integer).token(token).optional()
}

/// The settings that are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    fails: Option<u64>,
    failrate: Option<u64>,
    min: Option<u64>,
    window: Option<u64>,
    eject: Option<u64>,
    maxeject: Option<u64>,
    slowstart: Option<u64>,
    adapt: Option<u64>,
}

impl Words {
    /// Whether it turns anything on, or might.
    fn sets_any(&self) -> bool {
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
    fn over(&self, before: &HealthSettings) -> HealthSettings {
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

fn health_words(call: &Call) -> Result<Words, Error> {
    let mut words = Words::default();
    let mut options = Options::of(call.args(2));
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

fn fields(settings: &HealthSettings) -> [(&'static str, u64); 8] {
    [
        ("fails", settings.fails.into()),
        ("failrate", settings.failrate.into()),
        ("min", settings.min.into()),
        ("window", settings.window),
        ("eject", settings.eject),
        ("maxeject", settings.max_eject.into()),
        ("slowstart", settings.slow_start),
        ("adapt", settings.adapt),
    ]
}
