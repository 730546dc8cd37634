//! LB.LOAD: a whole pool at once; what an AOF rewrite writes.

use super::{Arg, Command, Error, Kind, Spec};
use crate::server::Call;

/// LB.LOAD
pub struct Load;

impl Command for Load {
    const SPEC: Spec = Spec {
        name: "LB.LOAD",
        summary: "Puts a saved pool at a key, as RESTORE does. It is what an AOF rewrite writes.",
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

    fn run(call: &Call) -> Result<(), Error> {
        let replace = match call.argc() {
            3 => false,
            4 if call.arg(3).eq_ignore_ascii_case(b"REPLACE") => true,
            4 => return Err(Error::not_one_of("keyword", call.arg(3), "REPLACE")),
            _ => return Err(Error::new("ERR LB.LOAD takes one payload".into())),
        };
        call.load(call.arg(2), replace)?;
        call.reply().ok();
        call.changed(&[(c"lb.load", 1)]);
        Ok(())
    }
}
