//! LB.RELEASE: ends all leases of an owner.

use super::arguments::{self, is_keyword};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.RELEASE
pub struct Release;

impl Command for Release {
    const SPEC: Spec = Spec {
        name: "LB.RELEASE",
        summary: "Ends all leases of an owner.",
        complexity: "O(1). LB.TICK clears the leases later, 1,000 at a time",
        since: "0.2.0",
        arity: 4,
        flags: "write fast",
        key: "RW access update",
        args: &[Arg::KEY, Arg::OWNER],
    };

    type Order<'a> = &'a [u8];

    fn read(call: &Call) -> Result<&[u8], Error> {
        match is_keyword(call.arg(2), b"OWNER") {
            true => arguments::owner(call.arg(3)),
            false => Err(Error::not_one_of("keyword", call.arg(2), "OWNER name")),
        }
    }

    fn run(owner: &[u8], key: &mut Key, call: &Call) -> Effect {
        let ended = key.pool_mut().map_or(0, |pool| pool.release(owner));
        call.reply().integer(ended);
        Effect::unannounced(ended > 0)
    }
}
