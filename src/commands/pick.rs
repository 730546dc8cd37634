//! LB.PICK: the main job.

use super::arguments::{Wanted, wanted};
use super::{Arg, Command, Error, Spec};
use crate::lb::{Algorithm, Pool};
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

    #[inline(always)]
    fn run(call: &Call) -> Result<(), Error> {
        match call.argc() {
            2 => pick_one(call, None),
            // Nearly all that name something name an algorithm alone.
            3 if let Some(algorithm) = Algorithm::by_name(call.arg(2)) => {
                pick_one(call, Some(algorithm))
            }
            _ => pick_wanted(call, &wanted(call.args(2))?),
        }
    }
}

#[inline(always)]
fn pick_one(call: &Call, algorithm: Option<Algorithm>) -> Result<(), Error> {
    let mut key = call.key()?;
    let Some(pool) = key.pool_mut() else {
        call.reply().nil();
        return Ok(());
    };
    seed_if_needed(call, pool, algorithm, &[]);
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

fn pick_wanted(call: &Call, wanted: &Wanted) -> Result<(), Error> {
    let Wanted { request, is_array } = wanted;
    if !is_array && request.exclude.is_empty() {
        return pick_one(call, request.algorithm);
    }
    let mut key = call.key()?;
    let Some(pool) = key.pool_mut() else {
        call.reply().names(&Pool::new(), &[], *is_array);
        return Ok(());
    };
    seed_if_needed(call, pool, request.algorithm, &request.exclude);
    let picked = pool.picks(request);
    call.reply().names(pool, &picked, *is_array);
    PICKS.add(picked.len());
    if !picked.is_empty() {
        call.picked();
    }
    Ok(())
}

/// The primary seeds a pool's generator once in its life, and says so in the stream.
#[inline(always)]
fn seed_if_needed(call: &Call, pool: &mut Pool, algorithm: Option<Algorithm>, exclude: &[&[u8]]) {
    if pool.needs_seed(algorithm, exclude) && !call.must_obey() {
        let seed = call.entropy();
        pool.seed(seed);
        call.replicate(c"LB.SEED", &seed.to_string());
    }
}
