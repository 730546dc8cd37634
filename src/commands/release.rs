//! LB.RELEASE: all that somebody had in flight is over.

use super::arguments;
use super::{Arg, Command, Error, Spec};
use crate::server::Call;

/// LB.RELEASE
pub struct Release;

impl Command for Release {
    const SPEC: Spec = Spec {
        name: "LB.RELEASE",
        summary: "Ends all leases of an owner.",
        complexity: "O(log N + log L) for each of them, with N the number of backends in the pool and L the number of open leases",
        since: "0.2.0",
        arity: 4,
        flags: "write",
        key: "RW access update",
        args: &[Arg::KEY, Arg::OWNER],
    };

    fn run(call: &Call) -> Result<(), Error> {
        if !call.arg(2).eq_ignore_ascii_case(b"OWNER") {
            return Err(Error::not_one_of("keyword", call.arg(2), "OWNER name"));
        }
        let owner = arguments::owner(call.arg(3))?;
        let mut key = call.key()?;
        key.tick();
        let ended = key.pool_mut().map_or(0, |pool| pool.release(owner));
        call.reply().integer(ended);
        if ended > 0 {
            call.picked();
        }
        Ok(())
    }
}
