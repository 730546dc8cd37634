//! LB.FAULT: a panic on purpose, for the tests of the guards. It exists only in builds with the feature `faults`.

use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec, arm_fault};

/// LB.FAULT
pub struct Fault;

impl Command for Fault {
    const SPEC: Spec = Spec {
        name: "LB.FAULT",
        summary: "Panics in the middle of a change of the pool, or makes the next run of the command or callback `what` panic.",
        complexity: "O(1)",
        since: "0.1.0",
        arity: -2,
        flags: "write",
        key: "RW update",
        args: &[Arg::KEY, Arg::new("what", Kind::Text).optional()],
    };

    type Order<'a> = Option<&'a [u8]>;

    fn read(call: &Call) -> Result<Option<&[u8]>, Error> {
        Ok((call.argc() > 2).then(|| call.arg(2)))
    }

    fn access(_: &Option<&[u8]>) -> Access {
        Access::Timeless
    }

    fn run(what: Option<&[u8]>, key: &mut Key, call: &Call) -> Effect {
        if let Some(what) = what {
            arm_fault(String::from_utf8_lossy(what).into_owned());
            call.reply().ok();
            return Effect::None;
        }
        key.pool_or_new().add(b"half", None);
        panic!("on purpose, with %s%n in it");
    }
}
