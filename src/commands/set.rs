//! LB.SET: the members become exactly this list.

use super::arguments::pairs;
use super::{Arg, Command, Error, Spec};
use crate::lb::BACKENDS_MAX;
use crate::server::Call;

/// LB.SET
pub struct Set;

impl Command for Set {
    const SPEC: Spec = Spec {
        name: "LB.SET",
        summary: "Makes the backends of a pool exactly this list, in one step. Who stays keeps its place, credit and counters.",
        complexity: "O(N+M), with N the number of backends before and M after",
        since: "0.1.0",
        arity: -4,
        flags: "write deny-oom",
        key: "RW update",
        args: &[Arg::KEY, Arg::PAIR.multiple()],
    };

    fn run(call: &Call) -> Result<(), Error> {
        let members = pairs(call.args(2))?;
        if members.len() > BACKENDS_MAX {
            return Err(Error::pool_full());
        }
        let mut key = call.key()?;
        key.tick();
        let replaced = key.pool_or_new().set(&members);
        call.reply().integer(replaced.added + replaced.removed);
        call.changed(&[
            (c"lb.rem", replaced.removed),
            (c"lb.add", replaced.added),
            (c"lb.weight", replaced.reweighted),
        ]);
        Ok(())
    }
}
