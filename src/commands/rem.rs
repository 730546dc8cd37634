//! LB.REM: removes backends.

use super::arguments::names;
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

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

    type Order<'a> = Vec<&'a [u8]>;

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        names(call.args(2))
    }

    fn run(backends: Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let removed = key.pool_mut().map_or(0, |pool| {
            backends.into_iter().filter(|b| pool.remove(b)).count()
        });
        call.reply().integer(removed);
        Effect::events([(c"lb.rem", removed)])
    }
}
