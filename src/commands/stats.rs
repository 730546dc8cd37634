//! LB.STATS: describes the backends one by one.

use super::arguments::name;
use super::limit::{StandingCosts, standing};
use crate::lb::{Backend, LOAD_ONE, Pool, Slot, Tally};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Reply, Spec};

/// LB.STATS
pub struct Stats;

impl Command for Stats {
    const SPEC: Spec = Spec {
        name: "LB.STATS",
        summary: "Describes each backend of a pool, or one: weight, state, health, picks, open leases, numbers of ended leases by outcome, limits (0 = no limit), remaining tokens, tier, latency, sessions, load and costs.",
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
    let health = pool.health_of(slot);
    let before = [
        ("picks", backend.picks()),
        ("leases", u64::from(pool.leases_on(slot))),
        ("done", tally.done),
        ("failures", tally.failed),
        ("failures-in-a-row", u64::from(health.row)),
        ("ejections", health.ejections),
        ("expired", tally.expired),
    ];
    let latency = pool.latency(slot).unwrap_or(tally.mean_latency());
    let after = [
        ("tier", u64::from(backend.tier())),
        ("latency-us", latency),
        ("latency-sum-us", tally.latency),
        ("latencies", tally.latencies),
        ("sessions", u64::from(pool.sessions_on(slot))),
    ];
    let limits = standing(pool, Some(slot));
    let costs = StandingCosts::of(pool, Some(slot));
    reply.map(6 + costs.fields() + before.len() + limits.len() + after.len());
    reply.field("weight", usize::from(backend.weight()));
    let (running, unit) = pool.running_weight(slot);
    text(reply, "running-weight", &decimal(running, unit));
    text(reply, "state", backend.state().name());
    text(reply, "health", health.word.name());
    match health.back {
        Some(millis) => reply.field("back-in-ms", millis as usize),
        None => {
            reply.bulk(b"back-in-ms");
            reply.never();
        }
    }
    for (field, number) in before.into_iter().chain(limits).chain(after) {
        reply.field(field, number as usize);
    }
    text(reply, "load", &decimal(health.load.unwrap_or(0), LOAD_ONE));
    costs.reply(reply);
}

fn text(reply: Reply, field: &str, text: &str) {
    reply.bulk(field.as_bytes());
    reply.bulk(text.as_bytes());
}

/// A number of parts of a whole, as a decimal number with three decimals at most.
fn decimal(parts: u32, whole: u32) -> String {
    let thousandths = u64::from(parts) * 1000 / u64::from(whole);
    let (number, decimals) = (thousandths / 1000, thousandths % 1000);
    match decimals {
        0 => number.to_string(),
        decimals => {
            let digits = format!("{decimals:03}");
            format!("{number}.{}", digits.trim_end_matches('0'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_whole_is_shown_with_three_decimals_at_most() {
        assert_eq!(decimal(7, 1), "7");
        assert_eq!(decimal(24, 240), "0.1");
        assert_eq!(decimal(250, 240), "1.041");
        assert_eq!(decimal(0, 240), "0");
        assert_eq!(decimal(1_062_500, LOAD_ONE), "1.062");
    }
}
