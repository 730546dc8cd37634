//! LB.WHEN: why nothing can be picked, and for how long.

use crate::lb;
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.WHEN
pub struct When;

impl Command for When {
    const SPEC: Spec = Spec {
        name: "LB.WHEN",
        summary: "Says whether a backend can be picked now; if not, why, and after how many milliseconds a pick finds one, if nobody else takes it first.",
        complexity: "O(1) where one can be picked; else O(N + L log L), with N the number of backends in the pool and L the number of leases that end before",
        since: "0.2.0",
        arity: 2,
        flags: "readonly",
        key: "RO access",
        args: &[Arg::KEY],
    };

    type Order<'a> = ();

    fn read(_: &Call) -> Result<(), Error> {
        Ok(())
    }

    fn run((): (), key: &mut Key, call: &Call) -> Effect {
        let when = key.pool().map_or(lb::When::Empty, |pool| pool.when());
        let (reason, millis) = match when {
            lb::When::Available => ("available", Some(0)),
            lb::When::Limited(millis) => ("limited", Some(millis)),
            lb::When::Drained => ("drained", None),
            lb::When::Down => ("down", None),
            lb::When::Quiesced => ("quiesced", None),
            lb::When::Empty => ("empty", None),
        };
        let reply = call.reply();
        reply.array(2);
        reply.bulk(reason.as_bytes());
        match millis {
            Some(millis) => reply.integer(millis as usize),
            None => reply.never(),
        }
        Effect::None
    }
}
