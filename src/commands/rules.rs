//! LB.RULES: a primary replicates this command, so that all nodes run a pool by the same rules.

use super::arguments::integer;
use crate::lb::Pool;
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.RULES
pub struct Rules;

impl Command for Rules {
    const SPEC: Spec = Spec {
        name: "LB.RULES",
        summary: "Gives a pool the rules of a newer version. A primary writes it into the stream before the first lease of a pool.",
        complexity: "O(1)",
        since: "0.3.0",
        arity: 3,
        flags: "write fast",
        key: "RW update",
        args: &[Arg::KEY, Arg::new("version", Kind::Integer)],
    };

    type Order<'a> = u8;

    fn read(call: &Call) -> Result<u8, Error> {
        let known = integer(call.arg(2)).filter(|version| (1..=Pool::RULES).contains(version));
        known.ok_or_else(|| {
            Error::new(format!(
                "ERR a version of the rules is an integer from 1 to {}",
                Pool::RULES
            ))
        })
    }

    fn access(_: &u8) -> Access {
        Access::Timeless
    }

    fn run(version: u8, key: &mut Key, call: &Call) -> Effect {
        let raised = (key.pool_mut()).is_some_and(|pool| pool.raise_rules(version));
        call.reply().ok();
        Effect::unannounced(raised)
    }
}
