//! LB.HEALTH: lets a pool follow the performance of its backends.

use super::health_words::{HealthWords, health_words};
use crate::lb::HealthSettings;
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

    type Order<'a> = HealthWords;

    fn read(call: &Call) -> Result<HealthWords, Error> {
        let words = health_words(call.args(2))?;
        match words.sets_any() && call.is_out_of_memory() {
            true => Err(Error::out_of_memory()),
            false => Ok(words),
        }
    }

    fn access(words: &HealthWords) -> Access {
        match words {
            _ if *words == HealthWords::default() => Access::Look,
            _ if words.sets_any() => Access::FromNow,
            _ => Access::Now,
        }
    }

    fn run(words: HealthWords, key: &mut Key, call: &Call) -> Effect {
        let before = key.pool().map(|pool| pool.health_settings());
        let before = before.unwrap_or_default();
        if words == HealthWords::default() {
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
