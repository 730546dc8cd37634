//! LB.STATS: the backends one by one.

use super::arguments::name;
use super::{Arg, Command, Error, Spec};
use crate::lb::Backend;
use crate::server::{Call, Reply};

/// LB.STATS
pub struct Stats;

impl Command for Stats {
    const SPEC: Spec = Spec {
        name: "LB.STATS",
        summary: "Describes each backend of a pool, or one: weight, state, picks.",
        complexity: "O(N), with N the number of backends in the pool; O(1) for one backend",
        since: "0.1.0",
        arity: -2,
        flags: "readonly",
        key: "RO access",
        args: &[Arg::KEY, Arg::BACKEND.optional()],
    };

    fn run(call: &Call) -> Result<(), Error> {
        match call.argc() {
            2 => all(call),
            3 => one(call),
            _ => Err(Error::new(
                "ERR LB.STATS takes one backend, or none for all".into(),
            )),
        }
    }
}

fn all(call: &Call) -> Result<(), Error> {
    let key = call.key_to_read()?;
    let reply = call.reply();
    reply.map(key.pool().map_or(0, |pool| pool.len()));
    for backend in key.pool().into_iter().flat_map(|pool| pool.backends()) {
        reply.bulk(backend.name());
        describe(reply, backend);
    }
    Ok(())
}

fn one(call: &Call) -> Result<(), Error> {
    let backend = name(call.arg(2))?;
    let key = call.key_to_read()?;
    match key.pool().and_then(|pool| pool.backend(backend)) {
        Some(backend) => describe(call.reply(), backend),
        None => call.reply().nil(),
    }
    Ok(())
}

fn describe(reply: Reply, backend: &Backend) {
    reply.map(3);
    reply.bulk(b"weight");
    reply.integer(usize::from(backend.weight()));
    reply.bulk(b"state");
    reply.bulk(backend.state().name().as_bytes());
    reply.bulk(b"picks");
    reply.integer(backend.picks() as usize);
}
