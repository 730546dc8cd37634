//! LB.SET: replaces the list of backends.

use super::arguments::pairs;
use crate::lb::BACKENDS_MAX;
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.SET
pub struct Set;

impl Command for Set {
    const SPEC: Spec = Spec {
        name: "LB.SET",
        summary: "Makes the backends of a pool exactly this list, in one step. A backend that stays keeps its place, credit and counters.",
        complexity: "O(N+M), with N the number of backends before and M after",
        since: "0.1.0",
        arity: -4,
        flags: "write deny-oom",
        key: "RW update",
        args: &[Arg::KEY, Arg::PAIR.multiple()],
    };

    type Order<'a> = Vec<(&'a [u8], u16)>;

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        let members = pairs(call.args(2))?;
        match members.len() > BACKENDS_MAX {
            true => Err(Error::pool_full()),
            false => Ok(members),
        }
    }

    fn run(members: Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let replaced = key.pool_or_new().set(&members);
        call.reply().integer(replaced.added + replaced.removed);
        Effect::events([
            (c"lb.rem", replaced.removed),
            (c"lb.add", replaced.added),
            (c"lb.weight", replaced.reweighted),
        ])
    }
}
