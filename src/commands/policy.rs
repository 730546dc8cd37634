//! LB.POLICY: the algorithm of a pick that names none.

use super::arguments::algorithm;
use super::{Arg, Command, Error, Spec};
use crate::server::Call;

/// LB.POLICY
pub struct Policy;

impl Command for Policy {
    const SPEC: Spec = Spec {
        name: "LB.POLICY",
        summary: "Answers or sets the algorithm that LB.PICK uses where it names none. Creates the pool if there is none.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: -2,
        flags: "write deny-oom fast",
        key: "RW access update",
        args: &[Arg::KEY, Arg::ALGORITHM.optional()],
    };

    fn run(call: &Call) -> Result<(), Error> {
        match call.argc() {
            2 => answer(call),
            3 => set(call),
            _ => Err(Error::new("ERR LB.POLICY takes one algorithm".into())),
        }
    }
}

fn answer(call: &Call) -> Result<(), Error> {
    match call.key_to_read()?.pool() {
        Some(pool) => call.reply().simple(pool.policy().name()),
        None => call.reply().nil(),
    }
    Ok(())
}

fn set(call: &Call) -> Result<(), Error> {
    let policy = algorithm(call.arg(2))?;
    let mut key = call.key()?;
    let is_default = key.pool().is_none() && policy == crate::lb::Algorithm::WRR;
    let changed = !is_default && key.pool_or_new().set_policy(policy);
    call.reply().ok();
    call.changed(&[(c"lb.policy", usize::from(changed))]);
    key.delete_if_void();
    Ok(())
}
