//! LB.ADD: adds backends, or changes their weights.

use super::arguments::{name, pairs};
use crate::lb::{BACKENDS_MAX, Replaced};
use crate::server::{Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.ADD
pub struct Add;

impl Command for Add {
    const SPEC: Spec = Spec {
        name: "LB.ADD",
        summary: "Adds backends to a pool. A backend that is there already gets the given weight. Creates the pool if there is none.",
        complexity: "O(log N) for each backend, with N the number of backends in the pool",
        since: "0.1.0",
        arity: -3,
        flags: "write deny-oom fast",
        key: "RW update",
        args: &[
            Arg::KEY,
            Arg::BACKEND,
            Arg::WEIGHT.optional(),
            Arg::new("more", Kind::Block(&[Arg::BACKEND, Arg::WEIGHT]))
                .optional()
                .multiple(),
        ],
    };

    type Order<'a> = Vec<(&'a [u8], Option<u16>)>;

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        let args = call.args(2);
        // If one backend is given without a weight and is in the pool already, it keeps its weight.
        match args.len() {
            1 => args.map(|backend| Ok((name(backend)?, None))).collect(),
            n if n % 2 == 1 => Err(Error::odd_pairs()),
            _ => {
                let pairs = pairs(args)?.into_iter();
                Ok(pairs.map(|(b, w)| (b, Some(w))).collect())
            }
        }
    }

    fn check(members: &mut Self::Order<'_>, key: &mut Key) -> Result<(), Error> {
        let Some(pool) = key.pool() else {
            return Ok(());
        };
        let room = BACKENDS_MAX - pool.len();
        let is_new = |(backend, _): &&(&[u8], _)| pool.backend(backend).is_none();
        match members.len() > room && members.iter().filter(is_new).count() > room {
            true => Err(Error::pool_full()),
            false => Ok(()),
        }
    }

    fn run(members: Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let Replaced {
            added, reweighted, ..
        } = key.pool_or_new().add_all(&members);
        call.reply().integer(added);
        Effect::events([(c"lb.add", added), (c"lb.weight", reweighted)])
    }
}
