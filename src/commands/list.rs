//! LB.LIST: who is in the pool.

use super::{Arg, Command, Error, Spec};
use crate::server::Call;

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

    fn run(call: &Call) -> Result<(), Error> {
        let key = call.key_to_read()?;
        let reply = call.reply();
        reply.array(key.pool().map_or(0, |pool| pool.len()));
        for backend in key.pool().into_iter().flat_map(|pool| pool.backends()) {
            reply.bulk(backend.name());
        }
        Ok(())
    }
}
