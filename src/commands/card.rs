//! LB.CARD: how many are in the pool.

use super::{Arg, Command, Error, Spec};
use crate::server::Call;

/// LB.CARD
pub struct Card;

impl Command for Card {
    const SPEC: Spec = Spec {
        name: "LB.CARD",
        summary: "Answers the number of backends in a pool.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: 2,
        flags: "readonly fast",
        key: "RO",
        args: &[Arg::KEY],
    };

    fn run(call: &Call) -> Result<(), Error> {
        let key = call.key_to_read()?;
        call.reply()
            .integer(key.pool().map_or(0, |pool| pool.len()));
        Ok(())
    }
}
