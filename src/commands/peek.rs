//! LB.PEEK: what the next picks would be.

use super::arguments::{Wanted, wanted};
use super::{Arg, Command, Error, Spec};
use crate::lb::{Picked, Pool};
use crate::server::Call;

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

    fn run(call: &Call) -> Result<(), Error> {
        let Wanted {
            request,
            is_array,
            block,
        } = wanted(call.args(2))?;
        if request.terms.is_some() || block.is_some() {
            return Err(Error::peek_takes_nothing());
        }
        if request.algorithm.is_some_and(|a| a.is_by_chance()) {
            return Err(Error::by_chance());
        }
        let mut key = call.key_to_read()?;
        // The core looks ahead by picking and taking back, for which it needs the pool itself.
        let Some(pool) = key.pool_mut() else {
            call.reply()
                .picked(&Pool::new(), &Picked::default(), is_array);
            return Ok(());
        };
        let picked = pool.peek(&request).ok_or_else(Error::by_chance)?;
        let picked = Picked {
            slots: picked,
            lease: None,
        };
        call.reply().picked(pool, &picked, is_array);
        Ok(())
    }
}
