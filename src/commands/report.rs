//! LB.REPORT: tells how a backend does, without a lease.

use super::arguments::name;
use super::report_words::report_words;
use crate::lb::{Effects, Report as Told};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.REPORT
pub struct Report;

impl Command for Report {
    const SPEC: Spec = Spec {
        name: "LB.REPORT",
        summary: "Reports on a backend without a lease: the outcome and the latency of a request, its utilisation, or a time for which it wants no requests.",
        complexity: "O(log N), with N the number of backends in the pool",
        since: "0.3.0",
        arity: -3,
        flags: "write fast",
        key: "RW access update",
        args: &[Arg::KEY, Arg::BACKEND, OUTCOME, LATENCY, LOAD, COOL],
    };

    type Order<'a> = (&'a [u8], Told);

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        Ok((name(call.arg(2))?, report_words(call.args(3))?))
    }

    fn access((_, told): &Self::Order<'_>) -> Access {
        match told.cool {
            Some(_) => Access::FromNow,
            None => Access::Now,
        }
    }

    fn run((backend, told): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let pool = key.pool_mut();
        let effects = pool.and_then(|pool| pool.report(backend, &told));
        call.reply().integer(usize::from(effects.is_some()));
        match effects {
            Some(_) if told == Told::default() => Effect::None,
            Some(effects) => effect_of(&effects),
            None => Effect::None,
        }
    }
}

pub(super) const OUTCOME: Arg = Arg::new(
    "outcome",
    Kind::OneOf(&[Arg::token_alone("OK"), Arg::token_alone("FAIL")]),
)
.optional();
pub(super) const LATENCY: Arg = Arg::new("microseconds", Kind::Integer)
    .token("LATENCY")
    .optional();
pub(super) const LOAD: Arg = Arg::new("utilisation", Kind::Double)
    .token("LOAD")
    .optional();
pub(super) const COOL: Arg = Arg::MILLISECONDS.token("COOL").optional();

/// The effect of a report that was heeded.
pub(super) fn effect_of(effects: &Effects) -> Effect {
    let Effects {
        ejected,
        back,
        cools,
        ..
    } = *effects;
    match ejected || back || cools {
        true => Effect::events([
            (c"lb.eject", usize::from(ejected)),
            (c"lb.back", usize::from(back)),
            (c"lb.cool", usize::from(cools)),
        ]),
        false => Effect::Unannounced,
    }
}
