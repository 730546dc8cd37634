//! LB.CARD: the number of backends.

use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.CARD
pub struct Card;

impl Command for Card {
    const SPEC: Spec = Spec {
        name: "LB.CARD",
        summary: "Returns the number of backends in a pool.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: 2,
        flags: "readonly fast",
        key: "RO",
        args: &[Arg::KEY],
    };

    type Order<'a> = ();

    fn read(_: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn run((): (), key: &mut Key, call: &Call) -> Effect {
        call.reply()
            .integer(key.pool().map_or(0, |pool| pool.len()));
        Effect::None
    }
}
