//! LB.DONE: ends a lease, because its request has ended.

use super::arguments::{Options, lease};
use crate::lb::{LeaseId, Report};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.DONE
pub struct Done;

impl Command for Done {
    const SPEC: Spec = Spec {
        name: "LB.DONE",
        summary: "Ends a lease, and reports the outcome and the latency of its request.",
        complexity: "O(log N + log L), with N the number of backends in the pool and L the number of open leases",
        since: "0.2.0",
        arity: -3,
        flags: "write fast",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::LEASE_ID,
            Arg::new(
                "outcome",
                Kind::OneOf(&[Arg::token_alone("OK"), Arg::token_alone("FAIL")]),
            )
            .optional(),
            Arg::new("microseconds", Kind::Integer)
                .token("LATENCY")
                .optional(),
        ],
    };

    type Order<'a> = (Option<LeaseId>, Report);

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        Ok((lease(call.arg(2)), report(call)?))
    }

    fn run((id, report): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let pool = key.pool_mut().zip(id);
        let done = pool.is_some_and(|(pool, id)| pool.done(id, &report));
        call.reply().integer(usize::from(done));
        Effect::unannounced(done)
    }
}

fn report(call: &Call) -> Result<Report, Error> {
    let (mut failed, mut latency) = (None, None);
    let mut options = Options::of(call.args(3));
    while let Some(word) = options.keyword() {
        let is_repeated = if word.eq_ignore_ascii_case(b"OK") {
            failed.replace(false).is_some()
        } else if word.eq_ignore_ascii_case(b"FAIL") {
            failed.replace(true).is_some()
        } else if word.eq_ignore_ascii_case(b"LATENCY") {
            let micros = options.number("LATENCY", 0..=LATENCY_MAX)?;
            latency.replace(micros).is_some()
        } else {
            return Err(Error::not_one_of("keyword", word, "OK, FAIL or LATENCY us"));
        };
        if is_repeated {
            let is_latency = word.eq_ignore_ascii_case(b"LATENCY");
            return Err(Error::repeated(if is_latency {
                word
            } else {
                b"OK or FAIL"
            }));
        }
    }
    Ok(Report {
        failed: failed.unwrap_or(false),
        latency,
    })
}

/// The longest latency, in microseconds: more than 35 years.
const LATENCY_MAX: u64 = 1 << 50;
