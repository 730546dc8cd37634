//! LB.REM: members go.

use super::arguments::names;
use super::{Arg, Command, Error, Spec};
use crate::server::Call;

/// LB.REM
pub struct Rem;

impl Command for Rem {
    const SPEC: Spec = Spec {
        name: "LB.REM",
        summary: "Removes backends from a pool. Deletes the pool with the last one, unless a policy is set.",
        complexity: "O(log N) for each backend, amortised, with N the number of backends in the pool",
        since: "0.1.0",
        arity: -3,
        flags: "write fast",
        key: "RW delete",
        args: &[Arg::KEY, Arg::BACKEND.multiple()],
    };

    fn run(call: &Call) -> Result<(), Error> {
        let backends = names(call.args(2))?;
        let mut key = call.key()?;
        key.tick();
        let removed = match key.pool_mut() {
            Some(pool) => backends.into_iter().filter(|b| pool.remove(b)).count(),
            None => 0,
        };
        call.reply().integer(removed);
        call.changed(&[(c"lb.rem", removed)]);
        key.delete_if_void();
        Ok(())
    }
}
