//! LB.STATE: an operator takes a backend out of service, or puts it back.

use super::arguments::name;
use crate::lb;
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.STATE
pub struct State;

impl Command for State {
    const SPEC: Spec = Spec {
        name: "LB.STATE",
        summary: "Returns the state of a backend, or sets it: up puts it in service, drain takes it out of service, down also ends its leases.",
        complexity: "O(log N), with N the number of backends in the pool",
        since: "0.1.0",
        arity: -3,
        flags: "write fast",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::BACKEND,
            Arg::new(
                "state",
                Kind::OneOf(&[
                    Arg::token_alone("up"),
                    Arg::token_alone("drain"),
                    Arg::token_alone("down"),
                ]),
            )
            .optional(),
        ],
    };

    type Order<'a> = (&'a [u8], Option<lb::State>);

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        let backend = name(call.arg(2))?;
        let state = match call.argc() {
            3 => None,
            4 => Some(state(call.arg(3))?),
            _ => {
                return Err(Error::fixed("ERR LB.STATE takes one backend and one state"));
            }
        };
        Ok((backend, state))
    }

    fn access((_, state): &Self::Order<'_>) -> Access {
        match state {
            None => Access::Look,
            Some(_) => Access::Now,
        }
    }

    fn check((backend, state): &mut Self::Order<'_>, key: &mut Key) -> Result<(), Error> {
        let is_there = key.pool().is_some_and(|pool| pool.slot(backend).is_some());
        match state {
            Some(_) if !is_there => Err(Error::no_backend(backend)),
            _ => Ok(()),
        }
    }

    fn run((backend, state): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        let Some(state) = state else {
            match key.pool().and_then(|pool| pool.backend(backend)) {
                Some(backend) => call.reply().simple(backend.state().name()),
                None => call.reply().nil(),
            }
            return Effect::None;
        };
        let pool = key.pool_mut();
        let changed = pool.and_then(|pool| pool.set_state(backend, state));
        call.reply().ok();
        Effect::events([(c"lb.state", usize::from(changed == Some(true)))])
    }
}

fn state(word: &[u8]) -> Result<lb::State, Error> {
    lb::State::by_name(word).ok_or_else(|| Error::not_one_of("state", word, "up, drain or down"))
}
