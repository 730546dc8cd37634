//! LB.RENEW: a lease goes on.

use super::arguments::{lease, millis};
use super::{Arg, Command, Error, Spec};
use crate::server::Call;

/// LB.RENEW
pub struct Renew;

impl Command for Renew {
    const SPEC: Spec = Spec {
        name: "LB.RENEW",
        summary: "Lets a lease end so many milliseconds from now, later or sooner than it would have.",
        complexity: "O(log L), with L the number of open leases",
        since: "0.2.0",
        arity: 4,
        flags: "write fast",
        key: "RW access update",
        args: &[Arg::KEY, Arg::LEASE_ID, Arg::MILLISECONDS],
    };

    fn run(call: &Call) -> Result<(), Error> {
        let id = lease(call.arg(2));
        let span = millis("the time of a lease", call.arg(3))?;
        let mut key = call.key()?;
        key.tick();
        let renewed = match (key.pool_mut(), id) {
            (Some(pool), Some(id)) => pool.renew(id, span),
            _ => false,
        };
        call.reply().integer(usize::from(renewed));
        if renewed {
            call.picked();
        }
        Ok(())
    }
}
