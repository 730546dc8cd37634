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
            Arg::LEASE,
            Arg::MILLISECONDS.token("BLOCK").optional(),
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
    key.tick();
    key.seed_if_needed(algorithm, &[]);
    match key.pool_mut().and_then(|pool| pool.pick(algorithm)) {
        Some(backend) => {
            call.reply().bulk(backend.name());
            PICKS.add(1);
            call.picked();
        }
        None => call.reply().nil(),
    }
    Ok(())
}

fn pick_wanted(call: &Call, wanted: &Wanted) -> Result<(), Error> {
    let Wanted {
        request,
        is_array,
        block,
    } = wanted;
    let is_alone = !is_array && request.exclude.is_empty() && request.terms.is_none();
    if is_alone && block.is_none() {
        return pick_one(call, request.algorithm);
    }
    if request.terms.is_some() && call.is_out_of_memory() {
        return Err(Error::out_of_memory());
    }
    let mut key = call.key()?;
    match request.terms {
        // A lease begins to run now.
        Some(_) => key.tick_for_time(),
        None => key.tick(),
    }
    key.prepare(request);
    let picked = key.pool_mut().map(|pool| pool.picks(request));
    let picked = picked.unwrap_or_default();
    if picked.slots.is_empty()
        && let Some(millis) = *block
        && call.can_wait()
    {
        call.wait(wanted, millis);
        return Ok(());
    }
    let empty = Pool::new();
    let pool = key.pool().unwrap_or(&empty);
    call.reply().picked(pool, &picked, *is_array);
    PICKS.add(picked.slots.len());
    if !picked.slots.is_empty() {
        call.picked();
    }
    Ok(())
}
