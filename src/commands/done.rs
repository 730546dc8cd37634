//! LB.DONE: ends a lease, because its request has ended.

use super::report::{COOL, LATENCY, LOAD, OUTCOME, effect_of};
use super::report_words::{Teller, Told, report_words};
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

    type Order<'a> = (&'a [u8], Told<'a>);

    #[inline(always)]
    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        Ok((call.arg(2), report_words(Teller::Done, call.args(3))?))
    }

    #[inline(always)]
    fn run((id, told): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let done = (key.pool_mut()).and_then(|pool| {
            let id = pool.read_id(id)?;
            if !told.costs.is_empty() {
                pool.settle(id, &told.costs);
            }
            pool.done(id, &told.report)
        });
        call.reply().integer(usize::from(done.is_some()));
        done.map_or(Effect::None, |effects| effect_of(&effects))
    }
}
