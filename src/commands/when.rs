//! LB.WHEN: tells whether a backend can be picked, and if not, why and for how long.

use super::arguments::{Options, is_keyword};
use crate::lb::{Availability, Cost};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.WHEN
pub struct When;

impl Command for When {
    const SPEC: Spec = Spec {
        name: "LB.WHEN",
        summary: "Tells whether a backend can be picked now, one that holds these amounts of COSTS. If not, tells the reason and the milliseconds until a pick finds one, if no other client takes it first.",
        complexity: "O(1) if a backend can be picked, without COSTS; otherwise O(N), with N the number of backends in the pool, and a look at 1,000 leases at most",
        since: "0.2.0",
        arity: -2,
        flags: "readonly",
        key: "RO access",
        args: &[Arg::KEY, Arg::COSTS.optional()],
    };

    type Order<'a> = Vec<Cost<'a>>;

    fn read(call: &Call) -> Result<Vec<Cost<'_>>, Error> {
        let mut costs = None;
        let mut options = Options::of(call.args(2));
        while let Some(word) = options.keyword() {
            if !is_keyword(word, b"COSTS") {
                let words = "COSTS numcosts name amount ...";
                return Err(Error::not_one_of("keyword", word, words));
            }
            if costs.replace(options.costs()?).is_some() {
                return Err(Error::repeated(word));
            }
        }
        Ok(costs.unwrap_or_default())
    }

    fn run(costs: Vec<Cost>, key: &mut Key, call: &Call) -> Effect {
        let availability = key
            .pool()
            .map_or(Availability::Empty, |pool| pool.availability_for(&costs));
        let (reason, millis) = match availability {
            Availability::Available => ("available", Some(0)),
            Availability::Limited(millis) => ("limited", Some(millis)),
            Availability::Cooling(millis) => ("cooling", Some(millis)),
            Availability::Ejected(millis) => ("ejected", Some(millis)),
            Availability::Drained => ("drained", None),
            Availability::Down => ("down", None),
            Availability::Quiesced => ("quiesced", None),
            Availability::Empty => ("empty", None),
        };
        let reply = call.reply();
        reply.array(2);
        reply.bulk(reason.as_bytes());
        match millis {
            Some(0) => reply.integer(0),
            // Nothing has happened since the clock was moved: when something is due, the timer moves it.
            Some(millis) => reply.integer(millis.saturating_sub(key.lag()).max(1) as usize),
            None => reply.never(),
        }
        Effect::None
    }
}
