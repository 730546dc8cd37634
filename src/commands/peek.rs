//! LB.PEEK: foresees the next picks.

use super::arguments::{PickWords, StickyForm, pick_words};
use crate::lb::Picked;
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

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

    #[inline(always)]
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
    fn check(words: &PickWords, key: &mut Key) -> Result<(), Error> {
        let policy = key.pool().map(|pool| pool.policy());
        match words
            .request
            .algorithm
            .or(policy)
            .is_some_and(|a| a.is_by_chance())
        {
            true => Err(Error::by_chance()),
            false => Ok(()),
        }
    }

    #[inline(always)]
    fn run(words: PickWords, key: &mut Key, call: &Call) -> Effect {
        // The core looks ahead by making picks and undoing them. So it needs the pool for writing.
        let pool = key.pool_mut();
        let foreseen = pool.and_then(|pool| pool.peek(&words.request));
        let picked = foreseen.map(|slots| Picked { slots, lease: None });
        let picked = picked.unwrap_or_default();
        call.reply().picked(key.pool(), &picked, words.is_array);
        Effect::None
    }
}
