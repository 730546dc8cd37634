//! LB.RENEW: moves the deadline of a lease.

use super::arguments::millis;
use crate::lb::Millis;
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.RENEW
pub struct Renew;

impl Command for Renew {
    const SPEC: Spec = Spec {
        name: "LB.RENEW",
        summary: "Sets the end of a lease to the given number of milliseconds from now, later or sooner than before.",
        complexity: "O(log L), with L the number of open leases",
        since: "0.2.0",
        arity: 4,
        flags: "write fast",
        key: "RW access update",
        args: &[Arg::KEY, Arg::LEASE_ID, Arg::MILLISECONDS],
    };

    type Order<'a> = (&'a [u8], Millis);

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        let span = millis("the time of a lease", call.arg(3))?;
        Ok((call.arg(2), span))
    }

    fn run((id, span): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let renewed = (key.pool_mut()).is_some_and(|pool| {
            let id = pool.read_id(id);
            id.is_some_and(|id| pool.renew(id, span))
        });
        call.reply().integer(usize::from(renewed));
        Effect::unannounced(renewed)
    }
}
