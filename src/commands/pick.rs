//! LB.PICK: picks backends, the module's main job.

use super::arguments::{PickWords, StickyForm, algorithm_alone, lease_alone, pick_words};
use crate::lb::{Algorithm, LeaseTerms};
use crate::server::{
    Access, Arg, Call, Command, Effect, Error, Key, Kind, Needed, Spec, carry_out,
};

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

    type Order<'a> = PickWords<'a>;

    #[inline(always)]
    fn read(call: &Call) -> Result<PickWords<'_>, Error> {
        let words = pick_words(call.args(2), StickyForm::Pinning)?;
        match words.takes_memory() && call.is_out_of_memory() {
            true => Err(Error::out_of_memory()),
            false => Ok(words),
        }
    }

    #[inline(always)]
    fn steps(call: &Call) -> Result<(), Error> {
        match algorithm_alone(call.args(2)) {
            Some(algorithm) => carry_out::<Plain>(algorithm, call),
            None => steps_of_words(call),
        }
    }

    fn access(words: &PickWords) -> Access {
        match words.takes_memory() {
            true => Access::FromNow,
            false => Access::Now,
        }
    }

    fn check(words: &mut PickWords, key: &mut Key) -> Result<(), Error> {
        match words.request.terms {
            Some(_) => Ok(()),
            // The policy does not become its algorithm: a client that waits is served by the policy of then.
            None => unleased(words.request.algorithm, key).map(|_| ()),
        }
    }

    fn behind(words: &PickWords) -> u8 {
        words.block.map_or(AT_ONCE, |block| block.prio)
    }

    fn needed<'o>(words: &'o PickWords<'_>) -> Option<Needed<'o>> {
        Some(Needed::by(&words.request))
    }

    #[inline(always)]
    fn run(words: PickWords, key: &mut Key, call: &Call) -> Effect {
        let request = &words.request;
        let prio = Pick::behind(&words);
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
}

/// A pick that would not wait comes behind all waiters of the number 0.
const AT_ONCE: u8 = 0;

/// A form of LB.PICK: one backend, by this algorithm or by the policy.
struct Plain;

impl Command for Plain {
    const SPEC: Spec = Pick::SPEC;

    type Order<'a> = Option<Algorithm>;

    #[inline(always)]
    fn check(algorithm: &mut Option<Algorithm>, key: &mut Key) -> Result<(), Error> {
        *algorithm = unleased(*algorithm, key)?;
        Ok(())
    }

    #[inline(always)]
    fn behind(_: &Option<Algorithm>) -> u8 {
        AT_ONCE
    }

    #[inline(always)]
    fn needed<'o>(algorithm: &'o Option<Algorithm>) -> Option<Needed<'o>> {
        Some(Needed::of_one(*algorithm, false))
    }

    #[inline(always)]
    fn run(algorithm: Option<Algorithm>, key: &mut Key, call: &Call) -> Effect {
        if let Some(pool) = key.pool_mut()
            && let Some(backend) = pool.pick(algorithm)
        {
            call.reply().bulk(backend.name());
            return Effect::Picked(1);
        }
        none(key, call)
    }
}

/// A form of LB.PICK: one backend with a lease.
struct Leasing;

impl Command for Leasing {
    const SPEC: Spec = Pick::SPEC;

    type Order<'a> = (Option<Algorithm>, LeaseTerms<'a>);

    /// A lease begins to run now.
    #[inline(always)]
    fn access(_: &Self::Order<'_>) -> Access {
        Access::FromNow
    }

    #[inline(always)]
    fn behind(_: &Self::Order<'_>) -> u8 {
        AT_ONCE
    }

    #[inline(always)]
    fn needed<'o>((algorithm, _): &'o Self::Order<'_>) -> Option<Needed<'o>> {
        Some(Needed::of_one(*algorithm, true))
    }

    #[inline(always)]
    fn run((algorithm, terms): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let granted = (key.pool_mut()).and_then(|pool| pool.grant(algorithm, &terms));
        match granted {
            Some(granted) => {
                call.reply().granted(granted.backend.name(), &granted.id());
                Effect::Picked(1)
            }
            None => none(key, call),
        }
    }
}

/// A form of LB.PICK: the backend of an item, with a lease if these are its terms.
struct ForItem;

impl Command for ForItem {
    const SPEC: Spec = Pick::SPEC;

    type Order<'a> = (&'a [u8], Option<LeaseTerms<'a>>);

    fn access((_, terms): &Self::Order<'_>) -> Access {
        match terms {
            Some(_) => Access::FromNow,
            None => Access::Now,
        }
    }

    fn behind(_: &Self::Order<'_>) -> u8 {
        AT_ONCE
    }

    fn needed<'o>((_, terms): &'o Self::Order<'_>) -> Option<Needed<'o>> {
        Some(Needed::of_one(Some(Algorithm::HASH), terms.is_some()))
    }

    fn run((item, terms): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
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
}

#[inline(never)]
fn steps_of_words(call: &Call) -> Result<(), Error> {
    if let Some(lease) = lease_alone(call.args(2)) {
        return match (call.is_out_of_memory(), lease.item) {
            (true, _) => Err(Error::out_of_memory()),
            (false, None) => carry_out::<Leasing>((lease.algorithm, lease.terms), call),
            (false, Some(item)) => carry_out::<ForItem>((item, Some(lease.terms)), call),
        };
    }
    let words = Pick::read(call)?;
    match words.item_alone() {
        Some(item) => carry_out::<ForItem>((item, None), call),
        None => carry_out::<Pick>(words, call),
    }
}

/// The algorithm of a pick without a lease, where it can pick so: the policy, where none is named.
#[inline(always)]
fn unleased(algorithm: Option<Algorithm>, key: &Key) -> Result<Option<Algorithm>, Error> {
    let algorithm = algorithm.or_else(|| key.pool().map(|pool| pool.policy()));
    match algorithm.is_some_and(Algorithm::goes_by_latency) {
        // One that waited when the policy became one by latency was served without LEASE.
        true if !key.must_obey() => Err(Error::latency_without_lease()),
        _ => Ok(algorithm),
    }
}

#[cold]
fn none(key: &mut Key, call: &Call) -> Effect {
    key.count_refused();
    call.reply().nil();
    Effect::None
}
