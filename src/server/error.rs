//! The answer of a command that was refused: a code that clients can match, then what is wrong and what would be right.

use std::borrow::Cow;

/// The answer of a command that was refused. Behind a pointer, so that the result of a command fits into a register.
#[derive(Debug)]
pub struct Error(Box<Cow<'static, str>>);

impl Error {
    /// The key holds something else.
    #[cold]
    pub fn wrong_type() -> Error {
        Error::fixed("WRONGTYPE Operation against a key holding the wrong kind of value")
    }

    /// A panic came half-way through a change of this pool.
    #[cold]
    pub fn poisoned() -> Error {
        Error::fixed(
            "ERR a fault in redis-lb left this pool half-changed: DEL it and add its backends again",
        )
    }

    /// A panic came while this command ran.
    #[cold]
    pub fn bug() -> Error {
        Error::fixed("ERR a fault in redis-lb: see the log of the server")
    }

    /// LB.LOAD where something is.
    #[cold]
    pub fn busy_key() -> Error {
        Error::fixed("BUSYKEY Target key name already exists.")
    }

    /// An error that is always the same.
    pub fn fixed(message: &'static str) -> Error {
        Error(Box::new(Cow::Borrowed(message)))
    }

    /// An error about this very argument.
    pub fn new(message: String) -> Error {
        Error(Box::new(Cow::Owned(message)))
    }

    /// The whole line that is answered.
    pub fn message(&self) -> &str {
        &self.0
    }
}
