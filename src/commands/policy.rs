//! LB.POLICY: the algorithm for picks that name none.

use super::arguments::policy;
use crate::lb::Algorithm;
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.POLICY
pub struct Policy;

impl Command for Policy {
    const SPEC: Spec = Spec {
        name: "LB.POLICY",
        summary: "Returns or sets the algorithm for an LB.PICK that names none. Setting it creates the pool if there is none.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: -2,
        flags: "write deny-oom fast",
        key: "RW access update",
        args: &[Arg::KEY, Arg::POLICY.optional()],
    };

    type Order<'a> = Option<Algorithm>;

    fn read(call: &Call) -> Result<Option<Algorithm>, Error> {
        match call.argc() {
            2 => Ok(None),
            3 => Ok(Some(policy(call.arg(2))?)),
            _ => Err(Error::fixed("ERR LB.POLICY takes one algorithm")),
        }
    }

    fn access(policy: &Option<Algorithm>) -> Access {
        match policy {
            None => Access::Look,
            Some(_) => Access::Timeless,
        }
    }

    fn run(policy: Option<Algorithm>, key: &mut Key, call: &Call) -> Effect {
        let Some(policy) = policy else {
            match key.pool() {
                Some(pool) => call.reply().simple(pool.policy().name()),
                None => call.reply().nil(),
            }
            return Effect::None;
        };
        let is_default = key.pool().is_none() && policy == Algorithm::WRR;
        let changed = !is_default && key.pool_or_new().set_policy(policy);
        call.reply().ok();
        Effect::events([(c"lb.policy", usize::from(changed))])
    }
}
