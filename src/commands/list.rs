//! LB.LIST: the names of the backends.

use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.LIST
pub struct List;

impl Command for List {
    const SPEC: Spec = Spec {
        name: "LB.LIST",
        summary: "Lists the backends of a pool, in order of addition.",
        complexity: "O(N), with N the number of backends in the pool",
        since: "0.1.0",
        arity: 2,
        flags: "readonly",
        key: "RO access",
        args: &[Arg::KEY],
    };

    type Order<'a> = ();

    fn read(_: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn run((): (), key: &mut Key, call: &Call) -> Effect {
        let reply = call.reply();
        reply.array(key.pool().map_or(0, |pool| pool.len()));
        for backend in key.pool().into_iter().flat_map(|pool| pool.backends()) {
            reply.bulk(backend.name());
        }
        Effect::None
    }
}
