//! LB.EPOCH: a primary replicates this command, so that no two leases ever have the same id.

use super::arguments::integer;
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.EPOCH
pub struct Epoch;

impl Command for Epoch {
    const SPEC: Spec = Spec {
        name: "LB.EPOCH",
        summary: "Opens a new epoch for the ids of leases. A primary writes it into the stream before its first lease.",
        complexity: "O(1)",
        since: "0.2.0",
        arity: 3,
        flags: "write fast",
        key: "RW update",
        args: &[Arg::KEY, Arg::new("epoch", Kind::Integer)],
    };

    type Order<'a> = u64;

    fn read(call: &Call) -> Result<u64, Error> {
        integer(call.arg(2))
            .ok_or_else(|| Error::new(format!("ERR an epoch is an integer from 0 to {}", u64::MAX)))
    }

    fn access(_: &u64) -> Access {
        Access::Timeless
    }

    fn run(epoch: u64, key: &mut Key, call: &Call) -> Effect {
        let found = key.open_epoch(epoch);
        call.reply().ok();
        Effect::unannounced(found)
    }
}
