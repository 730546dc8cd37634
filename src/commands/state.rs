//! LB.STATE: an operator takes a backend out of service, or puts it back.

use super::arguments::name;
use super::{Arg, Command, Error, Kind, Spec};
use crate::lb;
use crate::server::Call;

/// LB.STATE
pub struct State;

impl Command for State {
    const SPEC: Spec = Spec {
        name: "LB.STATE",
        summary: "Answers the state of a backend, or puts it in service (up) or out of it (drain; down, which ends its leases too).",
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

    fn run(call: &Call) -> Result<(), Error> {
        let backend = name(call.arg(2))?;
        match call.argc() {
            3 => answer(call, backend),
            4 => set(call, backend, call.arg(3)),
            _ => Err(Error::new(
                "ERR LB.STATE takes one backend and one state".into(),
            )),
        }
    }
}

fn answer(call: &Call, backend: &[u8]) -> Result<(), Error> {
    let key = call.key_to_read()?;
    match key.pool().and_then(|pool| pool.backend(backend)) {
        Some(backend) => call.reply().simple(backend.state().name()),
        None => call.reply().nil(),
    }
    Ok(())
}

fn set(call: &Call, backend: &[u8], word: &[u8]) -> Result<(), Error> {
    let state = lb::State::by_name(word)
        .ok_or_else(|| Error::not_one_of("state", word, "up, drain or down"))?;
    let mut key = call.key()?;
    if key.pool().and_then(|pool| pool.slot(backend)).is_none() {
        return Err(Error::no_backend(backend));
    }
    key.tick();
    let changed = key
        .pool_mut()
        .and_then(|pool| pool.set_state(backend, state))
        .unwrap_or(false);
    call.reply().ok();
    call.changed(&[(c"lb.state", usize::from(changed))]);
    Ok(())
}
