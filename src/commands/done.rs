//! LB.DONE: ends a lease, because its request has ended.

use super::report::{COOL, LATENCY, LOAD, OUTCOME, effect_of};
use super::report_words::{Teller, Told, report_words};
use crate::lb::{Effects, LeaseId, Pool, Report};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.DONE
pub struct Done;

impl Command for Done {
    const SPEC: Spec = Spec {
        name: "LB.DONE",
        summary: "Ends a lease, and reports the outcome and the latency of its request, the backend's utilisation, a time for which it wants no requests, or what the request really cost.",
        complexity: "O(log N + log L), with N the number of backends in the pool and L the number of open leases",
        since: "0.2.0",
        arity: -3,
        flags: "write fast",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::LEASE_ID,
            OUTCOME,
            LATENCY,
            LOAD,
            COOL,
            Arg::COSTS.optional(),
        ],
    };

    /// The lease's id, and what is told of its request. Of most requests nothing is.
    type Order<'a> = (&'a [u8], Option<Told<'a>>);

    #[inline(always)]
    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        let told = match call.argc() {
            3 => None,
            _ => Some(report_words(Teller::Done, call.args(3))?),
        };
        Ok((call.arg(2), told))
    }

    #[inline(always)]
    fn run((id, told): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let done = (key.pool_mut()).and_then(|pool| {
            let id = pool.read_id(id)?;
            match &told {
                None => pool.done(id, &Report::NONE),
                Some(told) => done_with(pool, id, told),
            }
        });
        call.reply().integer(usize::from(done.is_some()));
        done.map_or(Effect::None, |effects| effect_of(&effects))
    }
}

#[inline(never)]
fn done_with(pool: &mut Pool, id: LeaseId, told: &Told) -> Option<Effects> {
    if !told.costs.is_empty() {
        pool.settle(id, &told.costs);
    }
    pool.done(id, &told.report)
}
