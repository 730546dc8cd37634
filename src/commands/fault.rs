//! LB.FAULT: a panic on purpose, for the tests of the guards. Only in builds with the feature `faults`.

use super::{Arg, Command, Error, Kind, Spec};
use crate::server::{Call, arm_fault};

/// LB.FAULT
pub struct Fault;

impl Command for Fault {
    const SPEC: Spec = Spec {
        name: "LB.FAULT",
        summary: "Panics half-way through a change of the pool, or the next time that the server asks for `what`.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: -2,
        flags: "write",
        key: "RW update",
        args: &[Arg::KEY, Arg::new("what", Kind::Text).optional()],
    };

    fn run(call: &Call) -> Result<(), Error> {
        if call.argc() > 2 {
            arm_fault(String::from_utf8_lossy(call.arg(2)).into_owned());
            call.reply().ok();
            return Ok(());
        }
        let mut key = call.key()?;
        key.pool_or_new().add(b"half", None);
        panic!("on purpose, with %s%n in it");
    }
}
