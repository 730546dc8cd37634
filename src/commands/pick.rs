//! LB.PICK: the main job.

use super::arguments::{Wanted, wanted};
use crate::lb::Algorithm;
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Needed, Spec};

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

    type Order<'a> = Order<'a>;

    #[inline(always)]
    fn read(call: &Call) -> Result<Order<'_>, Error> {
        match call.argc() {
            2 => Ok(Order::One(None)),
            // Nearly all that name something name an algorithm alone.
            3 if let Some(algorithm) = Algorithm::by_name(call.arg(2)) => {
                Ok(Order::One(Some(algorithm)))
            }
            _ => read_wanted(call),
        }
    }

    #[inline(always)]
    fn access(order: &Order) -> Access {
        match order {
            // A lease begins to run now.
            Order::Many(wanted) if wanted.request.terms.is_some() => Access::FromNow,
            Order::One(_) | Order::Many(_) => Access::Now,
        }
    }

    #[inline(always)]
    fn needed<'o>(order: &'o Order<'_>) -> Option<Needed<'o>> {
        Some(match order {
            Order::One(algorithm) => Needed {
                algorithm: *algorithm,
                exclude: &[],
                is_leasing: false,
            },
            Order::Many(wanted) => Needed::by(&wanted.request),
        })
    }

    #[inline(always)]
    fn run(order: Order, key: &mut Key, call: &Call) -> Effect {
        match order {
            Order::One(algorithm) => match key.pool_mut().and_then(|pool| pool.pick(algorithm)) {
                Some(backend) => {
                    call.reply().bulk(backend.name());
                    Effect::Picked(1)
                }
                None => {
                    call.reply().nil();
                    Effect::None
                }
            },
            Order::Many(wanted) => pick_wanted(&wanted, key, call),
        }
    }
}

/// What to pick.
pub enum Order<'a> {
    /// One backend, by this algorithm or by the policy.
    One(Option<Algorithm>),
    /// All else.
    Many(Wanted<'a>),
}

#[inline(never)]
fn read_wanted(call: &Call) -> Result<Order<'_>, Error> {
    let wanted = wanted(call.args(2))?;
    let request = &wanted.request;
    if wanted.block.is_none()
        && !wanted.is_array
        && request.exclude.is_empty()
        && request.terms.is_none()
    {
        return Ok(Order::One(request.algorithm));
    }
    match request.terms.is_some() && call.is_out_of_memory() {
        true => Err(Error::out_of_memory()),
        false => Ok(Order::Many(wanted)),
    }
}

fn pick_wanted(wanted: &Wanted, key: &mut Key, call: &Call) -> Effect {
    let picked = key.pool_mut().map(|pool| pool.picks(&wanted.request));
    let picked = picked.unwrap_or_default();
    if picked.slots.is_empty()
        && let Some(millis) = wanted.block
        && call.can_wait()
    {
        call.wait(&wanted.request, wanted.words(), wanted.is_array, millis);
        return Effect::None;
    }
    call.reply().picked(key.pool(), &picked, wanted.is_array);
    match picked.slots.len() {
        0 => Effect::None,
        picks => Effect::Picked(picks),
    }
}
