//! LB.STATS: the backends one by one.

use super::arguments::name;
use super::limit::standing;
use super::{Arg, Command, Error, Spec};
use crate::lb::{Backend, Pool, Record, Slot};
use crate::server::{Call, Reply};

/// LB.STATS
pub struct Stats;

impl Command for Stats {
    const SPEC: Spec = Spec {
        name: "LB.STATS",
        summary: "Describes each backend of a pool, or one: weight, state, picks, leases and how they ended, limits (0 = none) and tokens left.",
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
    let Some(pool) = key.pool() else {
        reply.map(0);
        return Ok(());
    };
    reply.map(pool.len());
    for (slot, backend) in pool.slots() {
        reply.bulk(backend.name());
        describe(reply, pool, slot, backend);
    }
    Ok(())
}

fn one(call: &Call) -> Result<(), Error> {
    let name = name(call.arg(2))?;
    let key = call.key_to_read()?;
    let found = key.pool().and_then(|pool| Some((pool, pool.slot(name)?)));
    match found.and_then(|(pool, slot)| Some((pool, slot, pool.backend(name)?))) {
        Some((pool, slot, backend)) => describe(call.reply(), pool, slot, backend),
        None => call.reply().nil(),
    }
    Ok(())
}

fn describe(reply: Reply, pool: &Pool, slot: Slot, backend: &Backend) {
    let none = Record::default();
    let record = pool.record(slot).unwrap_or(&none);
    let before = [
        ("picks", backend.picks()),
        ("leases", u64::from(pool.leases_on(slot))),
        ("done", record.done),
        ("failures", record.failed),
        ("expired", record.expired),
    ];
    let after = [
        ("tier", u64::from(backend.tier())),
        ("latency-us", record.mean_latency()),
    ];
    let limits = standing(pool, Some(slot));
    reply.map(2 + before.len() + limits.len() + after.len());
    reply.field("weight", usize::from(backend.weight()));
    reply.bulk(b"state");
    reply.bulk(backend.state().name().as_bytes());
    for (field, number) in before.into_iter().chain(limits).chain(after) {
        reply.field(field, number as usize);
    }
}
