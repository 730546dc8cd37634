//! LB.INFO: describes the pool as a whole.

use super::limit::{StandingCosts, standing};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.INFO
pub struct Info;

impl Command for Info {
    const SPEC: Spec = Spec {
        name: "LB.INFO",
        summary: "Describes a pool: number of backends, number of available backends, weights, policy, picks, leases, limits of the pool as a whole (0 = no limit), remaining tokens, waiting clients, refused picks, sessions, clock, bytes and costs.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: 2,
        flags: "readonly fast",
        key: "RO access",
        args: &[Arg::KEY],
    };

    type Order<'a> = ();

    fn read(_: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn run((): (), key: &mut Key, call: &Call) -> Effect {
        let reply = call.reply();
        let Some(pool) = key.pool() else {
            reply.nil();
            return Effect::None;
        };
        let before = [
            ("backends", pool.len()),
            ("available", pool.available()),
            ("total-weight", pool.total_weight() as usize),
            ("picks", pool.total_picks() as usize),
            ("leases", pool.leases()),
        ];
        let (waiting, oldest) = key.waits();
        let of_process = [
            ("waiting", waiting),
            ("oldest-wait-ms", oldest.as_millis() as usize),
            ("refused", key.refused() as usize),
        ];
        let (ejected, cooling, held) = pool.outages();
        let after = [
            ("ejected", ejected),
            ("cooling", cooling),
            ("held", held as usize),
            ("balance", usize::from(pool.balance())),
            ("sessions", pool.sessions()),
            ("clock", pool.clock() as usize),
            ("rules-version", usize::from(pool.rules())),
            ("bytes", pool.bytes(0)),
        ];
        let limits = standing(pool, None).map(|(field, number)| (field, number as usize));
        let costs = StandingCosts::of(pool, None);
        reply
            .map(1 + costs.fields() + before.len() + limits.len() + of_process.len() + after.len());
        reply.bulk(b"policy");
        reply.bulk(pool.policy().name().as_bytes());
        let fields = before.into_iter().chain(limits).chain(of_process);
        for (field, number) in fields.chain(after) {
            reply.field(field, number);
        }
        costs.reply(reply);
        Effect::None
    }
}
