//! LB.TICK: a primary replicates this command, so that all nodes have the same time in a pool.

use super::arguments::integer;
use crate::lb::{CLOCK_MAX, Millis};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.TICK
pub struct Tick;

impl Command for Tick {
    const SPEC: Spec = Spec {
        name: "LB.TICK",
        summary: "Moves the clock of a pool forward, to milliseconds since 1970. A primary writes it into the stream before a change that depends on time.",
        complexity: "O(log N + log L) for each lease or session that it clears, at most 1,000, with N the number of backends in the pool and L the number of open leases or sessions",
        since: "0.2.0",
        arity: 3,
        flags: "write",
        key: "RW update",
        args: &[Arg::KEY, Arg::MILLISECONDS],
    };

    type Order<'a> = Millis;

    fn read(call: &Call) -> Result<Millis, Error> {
        let clock = integer(call.arg(2)).filter(|clock| *clock <= CLOCK_MAX);
        clock.ok_or_else(|| {
            Error::new(format!(
                "ERR a clock is an integer from 0 to {CLOCK_MAX}, milliseconds since 1970"
            ))
        })
    }

    fn access(_: &Millis) -> Access {
        Access::Timeless
    }

    fn check(clock: &mut Millis, key: &mut Key) -> Result<(), Error> {
        match key.is_ahead_of_time(*clock) {
            true => Err(Error::fixed("ERR the server's own clock is not there yet")),
            false => Ok(()),
        }
    }

    fn run(clock: Millis, key: &mut Key, call: &Call) -> Effect {
        let moved = key.pool_mut().is_some_and(|pool| pool.tick(clock));
        call.reply().ok();
        Effect::unannounced(moved)
    }
}
