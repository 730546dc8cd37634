//! LB.WEIGHT: the weight of one backend, or new weights for some.

use super::arguments::{name, pairs};
use super::{Arg, Command, Error, Kind, Spec};
use crate::server::Call;

/// LB.WEIGHT
pub struct Weight;

impl Command for Weight {
    const SPEC: Spec = Spec {
        name: "LB.WEIGHT",
        summary: "Answers the weight of a backend, or gives backends of a pool new weights.",
        complexity: "O(log N) for each backend, with N the number of backends in the pool",
        since: "0.1.0",
        arity: -3,
        flags: "write fast",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::BACKEND,
            Arg::WEIGHT.optional(),
            Arg::new("more", Kind::Block(&[Arg::BACKEND, Arg::WEIGHT]))
                .optional()
                .multiple(),
        ],
    };

    fn run(call: &Call) -> Result<(), Error> {
        match call.argc() {
            3 => answer(call),
            _ => set(call),
        }
    }
}

fn answer(call: &Call) -> Result<(), Error> {
    let backend = name(call.arg(2))?;
    let key = call.key_to_read()?;
    match key.pool().and_then(|pool| pool.backend(backend)) {
        Some(backend) => call.reply().integer(usize::from(backend.weight())),
        None => call.reply().nil(),
    }
    Ok(())
}

fn set(call: &Call) -> Result<(), Error> {
    let weights = pairs(call.args(2))?;
    let mut key = call.key()?;
    if key
        .pool()
        .is_some_and(|pool| weights.iter().all(|(b, _)| pool.slot(b).is_some()))
    {
        key.tick();
    }
    let outcome = match key.pool_mut() {
        Some(pool) => pool.set_weights(&weights),
        None => Err(0),
    };
    let changed = outcome.map_err(|at| Error::no_backend(weights[at].0))?;
    call.reply().ok();
    call.changed(&[(c"lb.weight", changed)]);
    Ok(())
}
