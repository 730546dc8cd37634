//! LB.PICK: the main job.

use super::arguments::request;
use super::{Arg, Command, Error, Spec};
use crate::lb::{Algorithm, Pool, Request};
use crate::server::{Call, PICKS};

/// LB.PICK
pub struct Pick;

impl Command for Pick {
    const SPEC: Spec = Spec {
        name: "LB.PICK",
        summary: "Picks the next backend of a pool, or the next ones.",
        complexity: "O(log N) for each pick and each excluded backend, with N the number of backends in the pool; O(1) for rr",
        since: "0.1.0",
        arity: -2,
        // Not deny-oom: a pick takes no memory, and a full server must not stop the traffic.
        flags: "write fast",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::ALGORITHM.optional(),
            Arg::COUNT,
            Arg::DISTINCT,
            Arg::EXCLUDE,
        ],
    };

    fn run(call: &Call) -> Result<(), Error> {
        match call.argc() {
            2 => pick_one(call, None),
            _ => match request(call.args(2))? {
                (request, false) if request.exclude.is_empty() => pick_one(call, request.algorithm),
                (request, is_array) => pick_all(call, &request, is_array),
            },
        }
    }
}

fn pick_one(call: &Call, algorithm: Option<Algorithm>) -> Result<(), Error> {
    let mut key = call.key()?;
    let Some(pool) = key.pool_mut() else {
        call.reply().nil();
        return Ok(());
    };
    seed_if_needed(call, pool, algorithm);
    match pool.pick(algorithm) {
        Some(slot) => {
            call.reply().bulk(pool.name(slot));
            PICKS.add(1);
            call.picked();
        }
        None => call.reply().nil(),
    }
    Ok(())
}

fn pick_all(call: &Call, request: &Request, is_array: bool) -> Result<(), Error> {
    let mut key = call.key()?;
    let Some(pool) = key.pool_mut() else {
        call.reply().names(&Pool::new(), &[], is_array);
        return Ok(());
    };
    seed_if_needed(call, pool, request.algorithm);
    let picked = pool.picks(request);
    call.reply().names(pool, &picked, is_array);
    PICKS.add(picked.len());
    if !picked.is_empty() {
        call.picked();
    }
    Ok(())
}

/// The primary seeds a pool's generator once in its life, and says so in the stream.
fn seed_if_needed(call: &Call, pool: &mut Pool, algorithm: Option<Algorithm>) {
    if pool.needs_seed(algorithm) && !call.must_obey() {
        let seed = call.entropy();
        pool.seed(seed);
        call.replicate(c"LB.SEED", &seed.to_string());
    }
}
