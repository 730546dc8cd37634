//! LB.ADD: members come, or get another weight.

use super::arguments::{name, pairs};
use super::{Arg, Command, Error, Kind, Spec};
use crate::lb::{Added, BACKENDS_MAX};
use crate::server::Call;

/// LB.ADD
pub struct Add;

impl Command for Add {
    const SPEC: Spec = Spec {
        name: "LB.ADD",
        summary: "Adds backends to a pool, or gives those that are there the weight. Creates the pool if there is none.",
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

    fn run(call: &Call) -> Result<(), Error> {
        let args = call.args(2);
        // One backend alone keeps the weight that it has.
        let members: Vec<(&[u8], Option<u16>)> = match args.len() {
            1 => args
                .map(|backend| Ok((name(backend)?, None)))
                .collect::<Result<_, Error>>()?,
            n if n % 2 == 1 => return Err(Error::odd_pairs()),
            _ => pairs(args)?
                .into_iter()
                .map(|(b, w)| (b, Some(w)))
                .collect(),
        };
        let mut key = call.key()?;
        if let Some(pool) = key.pool()
            && pool.len() + members.len() > BACKENDS_MAX
            && members
                .iter()
                .filter(|(b, _)| pool.backend(b).is_none())
                .count()
                > BACKENDS_MAX - pool.len()
        {
            return Err(Error::pool_full());
        }
        key.tick();
        let pool = key.pool_or_new();
        let (mut new, mut reweighted) = (0, 0);
        for (backend, weight) in members {
            match pool.add(backend, weight) {
                Added::New => new += 1,
                Added::Reweighted => reweighted += 1,
                Added::Unchanged => {}
            }
        }
        call.reply().integer(new);
        call.changed(&[(c"lb.add", new), (c"lb.weight", reweighted)]);
        Ok(())
    }
}
