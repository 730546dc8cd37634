//! LB.FORGET: ends a session, so that its next pick goes by the algorithm.

use super::arguments::session;
use crate::lb::session_hash;
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.FORGET
pub struct Forget;

impl Command for Forget {
    const SPEC: Spec = Spec {
        name: "LB.FORGET",
        summary: "Ends a session: it sticks to no backend any more.",
        complexity: "O(1), if most sessions last equally long; otherwise O(log S), with S the number of sessions in the pool",
        since: "0.4.0",
        arity: 3,
        flags: "write fast",
        key: "RW access update",
        args: &[Arg::KEY, Arg::SESSION],
    };

    type Order<'a> = &'a [u8];

    fn read(call: &Call) -> Result<&[u8], Error> {
        session(call.arg(2))
    }

    fn run(name: &[u8], key: &mut Key, call: &Call) -> Effect {
        let is_ended = (key.pool_mut()).is_some_and(|pool| pool.forget_session(session_hash(name)));
        call.reply().integer(usize::from(is_ended));
        Effect::unannounced(is_ended)
    }
}
