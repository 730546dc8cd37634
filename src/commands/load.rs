//! LB.LOAD: loads a whole pool. An AOF rewrite writes this command.

use super::arguments::is_keyword;
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec, Value};

/// LB.LOAD
pub struct Load;

impl Command for Load {
    const SPEC: Spec = Spec {
        name: "LB.LOAD",
        summary: "Puts a saved pool at a key, as RESTORE does. An AOF rewrite writes this command.",
        complexity: "O(N log N), with N the number of backends in the payload",
        since: "0.1.0",
        arity: -3,
        flags: "write deny-oom",
        key: "OW update",
        args: &[
            Arg::KEY,
            Arg::new("payload", Kind::Text),
            Arg::token_alone("REPLACE").optional(),
        ],
    };

    type Order<'a> = (Box<Value>, Replace);

    fn read(call: &Call) -> Result<Self::Order<'_>, Error> {
        let replace = match call.argc() {
            3 => Replace::No,
            4 if is_keyword(call.arg(3), b"REPLACE") => Replace::Yes,
            4 => return Err(Error::not_one_of("keyword", call.arg(3), "REPLACE")),
            _ => return Err(Error::fixed("ERR LB.LOAD takes one payload")),
        };
        let value = Value::decode(call.arg(2))
            .map_err(|malformed| Error::new(format!("ERR the payload is no pool: {malformed}")))?;
        Ok((value, replace))
    }

    fn access(_: &Self::Order<'_>) -> Access {
        Access::Timeless
    }

    /// A value of any type can be replaced.
    fn open(call: &Call, _: Access) -> Result<Key<'_>, Error> {
        Ok(call.key_to_replace())
    }

    fn check((_, replace): &mut Self::Order<'_>, key: &mut Key) -> Result<(), Error> {
        match replace {
            Replace::No if !key.is_missing() => Err(Error::busy_key()),
            Replace::No | Replace::Yes => Ok(()),
        }
    }

    fn run((value, _): Self::Order<'_>, key: &mut Key, call: &Call) -> Effect {
        key.replace(value);
        call.reply().ok();
        Effect::events([(c"lb.load", 1)])
    }
}

/// Whether the pool may replace the value at the key.
pub enum Replace {
    /// It may not.
    No,
    /// It may.
    Yes,
}
