//! LB.PEEK: what the next picks would be.

use super::arguments::{Wanted, wanted};
use crate::lb::Picked;
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.PEEK
pub struct Peek;

impl Command for Peek {
    const SPEC: Spec = Spec {
        name: "LB.PEEK",
        summary: "Answers what the next LB.PICK would, and changes nothing.",
        complexity: "O(log N) for each pick and each excluded backend, with N the number of backends in the pool",
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
        ],
    };

    type Order<'a> = Wanted<'a>;

    #[inline(always)]
    fn read(call: &Call) -> Result<Wanted<'_>, Error> {
        let wanted = wanted(call.args(2))?;
        if wanted.request.terms.is_some() || wanted.block.is_some() {
            return Err(Error::peek_takes_nothing());
        }
        match wanted.request.algorithm.is_some_and(|a| a.is_by_chance()) {
            true => Err(Error::by_chance()),
            false => Ok(wanted),
        }
    }

    #[inline(always)]
    fn check(wanted: &Wanted, key: &mut Key) -> Result<(), Error> {
        let policy = key.pool().map(|pool| pool.policy());
        match wanted
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
    fn run(wanted: Wanted, key: &mut Key, call: &Call) -> Effect {
        // The core looks ahead by picking and taking back, for which it needs the pool itself.
        let picked = key.pool_mut().map(|pool| Picked {
            slots: pool.peek(&wanted.request).unwrap_or_default(),
            lease: None,
        });
        let picked = picked.unwrap_or_default();
        call.reply().picked(key.pool(), &picked, wanted.is_array);
        Effect::None
    }
}
