//! LB.PEEK: foresees the next picks.

use super::arguments::{PickWords, StickyForm, algorithm_alone, pick_words};
use crate::lb::{Algorithm, Picked, Request};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec, carry_out};

/// LB.PEEK
pub struct Peek;

impl Command for Peek {
    const SPEC: Spec = Spec {
        name: "LB.PEEK",
        summary: "Returns the reply that the next LB.PICK would give, and changes nothing.",
        complexity: "O(log N) for each pick and each excluded backend, with N the number of backends in the pool; O(N) for each pick by hash",
        since: "0.1.0",
        arity: -2,
        flags: "readonly fast",
        key: "RO access",
        args: &[
            Arg::KEY,
            Arg::FORESEEABLE.optional(),
            Arg::COUNT,
            Arg::DISTINCT,
            Arg::EXCLUDE,
            Arg::SESSION.token("STICKY").optional(),
        ],
    };

    type Order<'a> = PickWords<'a>;

    fn read(call: &Call) -> Result<PickWords<'_>, Error> {
        let words = pick_words(call.args(2), StickyForm::Looking)?;
        let request = &words.request;
        let is_strict = request.sticky.is_some_and(|sticky| sticky.is_strict);
        let takes = request.terms.is_some() || !request.costs.is_empty();
        if takes || words.block.is_some() || is_strict {
            return Err(Error::peek_takes_nothing());
        }
        match words.request.algorithm.is_some_and(|a| a.is_by_chance()) {
            true => Err(Error::by_chance()),
            false => Ok(words),
        }
    }

    #[inline(always)]
    fn steps(call: &Call) -> Result<(), Error> {
        match algorithm_alone(call.args(2)) {
            Some(algorithm) if !algorithm.is_some_and(Algorithm::is_by_chance) => {
                carry_out::<Plain>(algorithm, call)
            }
            _ => carry_out::<Peek>(Peek::read(call)?, call),
        }
    }

    fn check(words: &mut PickWords, key: &mut Key) -> Result<(), Error> {
        check(words.request.algorithm, key)
    }

    fn run(words: PickWords, key: &mut Key, call: &Call) -> Effect {
        reply(&words.request, words.is_array, key, call)
    }
}

/// A form of LB.PEEK: one backend, by this algorithm or by the policy.
struct Plain;

impl Command for Plain {
    const SPEC: Spec = Peek::SPEC;

    type Order<'a> = Option<Algorithm>;

    #[inline(always)]
    fn check(algorithm: &mut Option<Algorithm>, key: &mut Key) -> Result<(), Error> {
        check(*algorithm, key)
    }

    #[inline(always)]
    fn run(algorithm: Option<Algorithm>, key: &mut Key, call: &Call) -> Effect {
        let request = Request {
            algorithm,
            count: 1,
            ..Request::default()
        };
        reply(&request, false, key, call)
    }
}

#[inline(always)]
fn check(algorithm: Option<Algorithm>, key: &Key) -> Result<(), Error> {
    let policy = key.pool().map(|pool| pool.policy());
    match algorithm.or(policy).is_some_and(Algorithm::is_by_chance) {
        true => Err(Error::by_chance()),
        false => Ok(()),
    }
}

fn reply(request: &Request, is_array: bool, key: &mut Key, call: &Call) -> Effect {
    // The core looks ahead by making picks and undoing them. So it needs the pool for writing.
    let foreseen = key.pool_mut().and_then(|pool| pool.peek(request));
    let picked = foreseen.map(|slots| Picked { slots, lease: None });
    let picked = picked.unwrap_or_default();
    call.reply().picked(key.pool(), &picked, is_array);
    Effect::None
}
