//! LB.PICK: picks backends, the module's main job.

use super::arguments::{PickWords, StickyForm, lease_alone, pick_words};
use crate::lb::{Algorithm, LeaseTerms};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Needed, Spec};

/// LB.PICK
pub struct Pick;

/// A session, how long it sticks after this pick, and whether no other backend will do.
const STICKY: Arg = Arg::new(
    "sticky",
    Kind::Block(&[
        Arg::SESSION.token("STICKY"),
        Arg::MILLISECONDS,
        Arg::token_alone("STRICT").optional(),
    ]),
)
.optional();

impl Command for Pick {
    const SPEC: Spec = Spec {
        name: "LB.PICK",
        summary: "Picks the next backend of a pool, or several.",
        complexity: "O(log N) for each pick, each excluded backend and each backend that lacks an amount of COSTS (1,000 of these at most), with N the number of backends in the pool; O(1) for rr; O(N) for each pick by hash",
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
            STICKY,
            Arg::LEASE,
            Arg::COSTS.optional(),
            Arg::BLOCK,
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
            // It has a place of its own on the stack, so that the orders above are not made in memory.
            _ => {
                let order = read_words(call)?;
                Ok(order)
            }
        }
    }

    #[inline(always)]
    fn access(order: &Order) -> Access {
        match order {
            // A lease begins to run now, and so does the time of a session.
            Order::Lease(..) | Order::Item(_, Some(_)) => Access::FromNow,
            Order::Many(words) if words.takes_memory() => Access::FromNow,
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

    /// A pick that would not wait comes behind all waiters of the number 0.
    #[inline(always)]
    fn behind(order: &Order) -> u8 {
        match order {
            Order::Many(words) => words.block.map_or(0, |block| block.prio),
            Order::One(_) | Order::Lease(..) | Order::Item(..) => 0,
        }
    }

    #[inline(always)]
    fn needed<'o>(order: &'o Order<'_>) -> Option<Needed<'o>> {
        Some(match order {
            Order::One(algorithm) => Needed {
                algorithm: *algorithm,
                is_leasing: false,
                request: None,
            },
            Order::Lease(algorithm, _) => Needed {
                algorithm: *algorithm,
                is_leasing: true,
                request: None,
            },
            Order::Item(_, terms) => Needed {
                algorithm: Some(Algorithm::HASH),
                is_leasing: terms.is_some(),
                request: None,
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
                    Some(granted) => {
                        call.reply().granted(granted.backend.name(), &granted.id());
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
    /// Any other pick. Boxed: an order is moved, and most are small.
    Many(Box<PickWords<'a>>),
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
    let words = pick_words(call.args(2), StickyForm::Pinning)?;
    let request = &words.request;
    if words.takes_memory() && call.is_out_of_memory() {
        return Err(Error::out_of_memory());
    }
    let is_of_one = words.block.is_none() && !words.is_array && request.exclude.is_empty();
    let is_plain = is_of_one && !words.takes_memory() && request.costs.is_empty();
    match (is_plain, request.item) {
        (true, None) => Ok(Order::One(request.algorithm)),
        (true, Some(item)) => Ok(Order::Item(item, None)),
        (false, _) => Ok(Order::Many(Box::new(words))),
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
            .map(|granted| call.reply().granted(granted.backend.name(), &granted.id()))
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
    let request = &words.request;
    let prio = words.block.map_or(0, |block| block.prio);
    let picked = match !request.costs.is_empty() && call.is_behind(key, request, prio) {
        true => None,
        false => key.pool_mut().map(|pool| pool.picks(request)),
    };
    let picked = picked.unwrap_or_default();
    if picked.slots.is_empty()
        && let Some(block) = &words.block
        && call.can_wait()
    {
        let is_array = words.is_array;
        let words = words.to_words();
        if let Err(error) = call.wait(key, request, block, words, is_array) {
            call.reply().refused(&error);
        }
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
