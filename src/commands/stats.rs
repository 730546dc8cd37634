//! LB.STATS: describes the backends one by one.

use super::arguments::name;
use super::limit::standing;
use crate::lb::{Backend, Pool, Slot, Tally};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Reply, Spec};

/// LB.STATS
pub struct Stats;

impl Command for Stats {
    const SPEC: Spec = Spec {
        name: "LB.STATS",
        summary: "Describes each backend of a pool, or one: weight, state, picks, open leases, numbers of ended leases by outcome, limits (0 = no limit), remaining tokens, tier and mean latency.",
        complexity: "O(N), with N the number of backends in the pool; O(1) for one backend",
        since: "0.1.0",
        arity: -2,
        flags: "readonly",
        key: "RO access",
        args: &[Arg::KEY, Arg::BACKEND.optional()],
    };

    /// One backend, or all.
    type Order<'a> = Option<&'a [u8]>;

    fn read(call: &Call) -> Result<Option<&[u8]>, Error> {
        match call.argc() {
            2 => Ok(None),
            3 => Ok(Some(name(call.arg(2))?)),
            _ => Err(Error::fixed(
                "ERR LB.STATS takes one backend, or none for all",
            )),
        }
    }

    fn run(backend: Option<&[u8]>, key: &mut Key, call: &Call) -> Effect {
        let reply = call.reply();
        match (key.pool(), backend) {
            (Some(pool), Some(name)) => one(reply, pool, name),
            (Some(pool), None) => all(reply, pool),
            (None, Some(_)) => reply.nil(),
            (None, None) => reply.map(0),
        }
        Effect::None
    }
}

fn all(reply: Reply, pool: &Pool) {
    reply.map(pool.len());
    for (slot, backend) in pool.slots() {
        reply.bulk(backend.name());
        describe(reply, pool, slot, backend);
    }
}

fn one(reply: Reply, pool: &Pool, name: &[u8]) {
    match pool.slot(name).zip(pool.backend(name)) {
        Some((slot, backend)) => describe(reply, pool, slot, backend),
        None => reply.nil(),
    }
}

fn describe(reply: Reply, pool: &Pool, slot: Slot, backend: Backend) {
    let none = Tally::default();
    let tally = pool.tally(slot).unwrap_or(&none);
    let before = [
        ("picks", backend.picks()),
        ("leases", u64::from(pool.leases_on(slot))),
        ("done", tally.done),
        ("failures", tally.failed),
        ("expired", tally.expired),
    ];
    let after = [
        ("tier", u64::from(backend.tier())),
        ("latency-us", tally.mean_latency()),
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
