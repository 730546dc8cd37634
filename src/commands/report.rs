//! LB.REPORT: tells how a backend does, without a lease.

use super::arguments::name;
use super::report_words::{Teller, Told, report_words};
use crate::lb::{self, Effects};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.REPORT
pub struct Report;

impl Command for Report {
    const SPEC: Spec = Spec {
        name: "LB.REPORT",
        summary: "Reports on a backend without a lease: the outcome and the latency of a request, its utilisation, a time for which it wants no requests, or how much of a cost is left.",
        complexity: "O(log N), with N the number of backends in the pool",
        since: "0.3.0",
        arity: -3,
        flags: "write fast",
        key: "RW access update",
        args: &[Arg::KEY, Arg::BACKEND, OUTCOME, LATENCY, LOAD, COOL, LEFT],
    };

    type Order<'a> = (&'a [u8], Told<'a>);

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        Ok((
            name(call.arg(2))?,
            report_words(Teller::Report, call.args(3))?,
        ))
    }

    fn access((_, told): &Self::Order<'_>) -> Access {
        match told.report.cool {
            Some(_) => Access::FromNow,
            None => Access::Now,
        }
    }

    fn run((backend, told): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let mut lowered = false;
        let effects = (key.pool_mut()).and_then(|pool| {
            lowered = told.left.is_some_and(|left| pool.lower(backend, left));
            pool.report(backend, &told.report)
        });
        call.reply().integer(usize::from(effects.is_some()));
        match effects {
            Some(effects) if told.report != lb::Report::default() => effect_of(&effects),
            _ => Effect::unannounced(lowered),
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

const LEFT: Arg = Arg::new(
    "left",
    Kind::Block(&[
        Arg::new("name", Kind::Text).token("LEFT"),
        Arg::new("amount", Kind::Integer),
    ]),
)
.optional();

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
