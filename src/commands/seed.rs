//! LB.SEED: a primary replicates this command, so that replicas make the same picks by chance.

use super::arguments::integer;
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.SEED
pub struct Seed;

impl Command for Seed {
    const SPEC: Spec = Spec {
        name: "LB.SEED",
        summary: "Seeds the generator of a pool. A primary writes it into the stream before the first pick by chance.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: 3,
        flags: "write fast",
        key: "RW update",
        args: &[Arg::KEY, Arg::new("seed", Kind::Integer)],
    };

    type Order<'a> = u64;

    fn read(call: &Call) -> Result<u64, Error> {
        integer(call.arg(2))
            .ok_or_else(|| Error::new(format!("ERR a seed is an integer from 0 to {}", u64::MAX)))
    }

    fn access(_: &u64) -> Access {
        Access::Timeless
    }

    fn run(seed: u64, key: &mut Key, call: &Call) -> Effect {
        let found = key.pool_mut().map(|pool| pool.seed(seed)).is_some();
        call.reply().ok();
        Effect::unannounced(found)
    }
}
