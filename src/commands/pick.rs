//! LB.PICK: picks backends, the module's main job.

use super::arguments::{PickWords, lease_alone, pick_words};
use crate::lb::{Algorithm, LeaseTerms};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Needed, Spec};

/// LB.PICK
pub struct Pick;

impl Command for Pick {
    const SPEC: Spec = Spec {
        name: "LB.PICK",
        summary: "Picks the next backend of a pool, or several.",
        complexity: "O(log N) for each pick and each excluded backend, with N the number of backends in the pool; O(1) for rr; O(N) for each pick by hash",
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
            // Most picks with arguments have only an algorithm.
            3 if let Some(algorithm) = Algorithm::by_name(call.arg(2))
                && !algorithm.goes_by_item() =>
            {
                Ok(Order::One(Some(algorithm)))
            }
            _ => read_words(call),
        }
    }

    #[inline(always)]
    fn access(order: &Order) -> Access {
        match order {
            // A lease begins to run now.
            Order::Lease(..) | Order::Item(_, Some(_)) => Access::FromNow,
            Order::Many(words) if words.request.terms.is_some() => Access::FromNow,
            Order::One(_) | Order::Item(..) | Order::Many(_) => Access::Now,
        }
    }

    #[inline(always)]
    fn check(order: &Order, key: &mut Key) -> Result<(), Error> {
        let algorithm = match order {
            Order::One(algorithm) => *algorithm,
            Order::Many(words) if words.request.terms.is_none() => words.request.algorithm,
            Order::Lease(..) | Order::Item(..) | Order::Many(_) => return Ok(()),
        };
        let algorithm = algorithm.or_else(|| key.pool().map(|pool| pool.policy()));
        match algorithm.is_some_and(Algorithm::goes_by_latency) {
            // One that waited when the policy became one by latency was served without LEASE.
            true if !key.must_obey() => Err(Error::latency_without_lease()),
            _ => Ok(()),
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
            Order::Lease(algorithm, _) => Needed {
                algorithm: *algorithm,
                exclude: &[],
                is_leasing: true,
            },
            Order::Item(_, terms) => Needed {
                algorithm: Some(Algorithm::HASH),
                exclude: &[],
                is_leasing: terms.is_some(),
            },
            Order::Many(words) => Needed::by(&words.request),
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
                None => none(key, call),
            },
            Order::Lease(algorithm, terms) => {
                let granted = (key.pool_mut()).and_then(|pool| pool.grant(algorithm, &terms));
                match granted {
                    Some((backend, lease)) => {
                        call.reply().granted(backend.name(), &lease);
                        Effect::Picked(1)
                    }
                    None => none(key, call),
                }
            }
            Order::Item(item, terms) => pick_for(item, terms, key, call),
            Order::Many(words) => pick_many(&words, key, call),
        }
    }
}

/// The pick to make.
pub enum Order<'a> {
    /// One backend, by this algorithm or by the policy.
    One(Option<Algorithm>),
    /// One backend with a lease.
    Lease(Option<Algorithm>, LeaseTerms<'a>),
    /// The backend of an item, with a lease if these are its terms.
    Item(&'a [u8], Option<LeaseTerms<'a>>),
    /// Any other pick.
    Many(PickWords<'a>),
}

#[inline(never)]
fn read_words(call: &Call) -> Result<Order<'_>, Error> {
    if let Some(lease) = lease_alone(call.args(2)) {
        return match (call.is_out_of_memory(), lease.item) {
            (true, _) => Err(Error::out_of_memory()),
            (false, None) => Ok(Order::Lease(lease.algorithm, lease.terms)),
            (false, Some(item)) => Ok(Order::Item(item, Some(lease.terms))),
        };
    }
    let words = pick_words(call.args(2))?;
    let request = &words.request;
    if request.terms.is_some() && call.is_out_of_memory() {
        return Err(Error::out_of_memory());
    }
    let is_of_one = words.block.is_none() && !words.is_array && request.exclude.is_empty();
    match (is_of_one && request.terms.is_none(), request.item) {
        (true, None) => Ok(Order::One(request.algorithm)),
        (true, Some(item)) => Ok(Order::Item(item, None)),
        (false, _) => Ok(Order::Many(words)),
    }
}

fn pick_for(item: &[u8], terms: Option<LeaseTerms>, key: &mut Key, call: &Call) -> Effect {
    let Some(pool) = key.pool_mut() else {
        return none(key, call);
    };
    let is_picked = match terms {
        None => (pool.pick_for(item))
            .map(|backend| call.reply().bulk(backend.name()))
            .is_some(),
        Some(terms) => (pool.grant_for(item, &terms))
            .map(|(backend, lease)| call.reply().granted(backend.name(), &lease))
            .is_some(),
    };
    match is_picked {
        true => Effect::Picked(1),
        false => none(key, call),
    }
}

#[cold]
fn none(key: &mut Key, call: &Call) -> Effect {
    key.count_refused();
    call.reply().nil();
    Effect::None
}

fn pick_many(words: &PickWords, key: &mut Key, call: &Call) -> Effect {
    let picked = key.pool_mut().map(|pool| pool.picks(&words.request));
    let picked = picked.unwrap_or_default();
    if picked.slots.is_empty()
        && let Some(millis) = words.block
        && call.can_wait()
    {
        call.wait(&words.request, words.to_words(), words.is_array, millis);
        return Effect::None;
    }
    call.reply().picked(key.pool(), &picked, words.is_array);
    match picked.slots.len() {
        0 => {
            key.count_refused();
            Effect::None
        }
        picks => Effect::Picked(picks),
    }
}
