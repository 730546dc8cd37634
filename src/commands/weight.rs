//! LB.WEIGHT: returns the weight of a backend, or sets weights.

use super::arguments::{name, pairs};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.WEIGHT
pub struct Weight;

impl Command for Weight {
    const SPEC: Spec = Spec {
        name: "LB.WEIGHT",
        summary: "Returns the weight of a backend, or sets the weights of backends of a pool.",
        complexity: "O(log N) for each backend, with N the number of backends in the pool",
        since: "0.1.0",
        arity: -3,
        flags: "write fast",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::BACKEND,
            Arg::WEIGHT.optional(),
            Arg::new("more", Kind::Block(&[Arg::BACKEND, Arg::WEIGHT]))
                .optional()
                .multiple(),
        ],
    };

    type Order<'a> = Order<'a>;

    #[inline(always)]
    fn read(call: &Call) -> Result<Order<'_>, Error> {
        Ok(match call.argc() {
            3 => Order::Tell(name(call.arg(2))?),
            _ => Order::Set(pairs(call.args(2))?),
        })
    }

    #[inline(always)]
    fn access(order: &Order) -> Access {
        match order {
            Order::Tell(_) => Access::Look,
            Order::Set(_) => Access::Now,
        }
    }

    #[inline(always)]
    fn check(order: &mut Order, key: &mut Key) -> Result<(), Error> {
        let Order::Set(weights) = order else {
            return Ok(());
        };
        let is_missing = |name: &[u8]| key.pool().is_none_or(|pool| pool.slot(name).is_none());
        match weights.iter().find(|(name, _)| is_missing(name)) {
            Some((name, _)) => Err(Error::no_backend(name)),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn run(order: Order, key: &mut Key, call: &Call) -> Effect {
        match order {
            Order::Tell(backend) => {
                match key.pool().and_then(|pool| pool.backend(backend)) {
                    Some(backend) => call.reply().integer(usize::from(backend.weight())),
                    None => call.reply().nil(),
                }
                Effect::None
            }
            Order::Set(weights) => {
                let pool = key.pool_mut();
                let changed = pool.map_or(Ok(0), |pool| pool.set_weights(&weights));
                call.reply().ok();
                Effect::events([(c"lb.weight", changed.unwrap_or(0))])
            }
        }
    }
}

/// The two forms of the command.
pub enum Order<'a> {
    /// Return the weight of this backend.
    Tell(&'a [u8]),
    /// Give each of these its weight.
    Set(Vec<(&'a [u8], u16)>),
}
