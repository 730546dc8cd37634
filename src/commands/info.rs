//! LB.INFO: the pool as a whole.

use super::{Arg, Command, Error, Spec};
use crate::server::Call;

/// LB.INFO
pub struct Info;

impl Command for Info {
    const SPEC: Spec = Spec {
        name: "LB.INFO",
        summary: "Describes a pool: how many backends, how many of them available, weights, policy, picks, leases, clock, bytes.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: 2,
        flags: "readonly fast",
        key: "RO access",
        args: &[Arg::KEY],
    };

    fn run(call: &Call) -> Result<(), Error> {
        let key = call.key_to_read()?;
        let reply = call.reply();
        let Some(pool) = key.pool() else {
            reply.nil();
            return Ok(());
        };
        let numbers = [
            ("backends", pool.len()),
            ("available", pool.available()),
            ("total-weight", pool.total_weight() as usize),
            ("picks", pool.total_picks() as usize),
            ("leases", pool.leases()),
            ("clock", pool.clock() as usize),
            ("rules-version", usize::from(pool.rules())),
            ("bytes", pool.bytes(0)),
        ];
        reply.map(numbers.len() + 1);
        reply.bulk(b"policy");
        reply.bulk(pool.policy().name().as_bytes());
        for (field, number) in numbers {
            reply.field(field, number);
        }
        Ok(())
    }
}
