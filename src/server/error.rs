//! The error reply of a command: a code that clients can match, then the fault and the remedy.

use std::borrow::Cow;

/// The error reply of a command. It is behind a pointer, so that the result of a command fits into a register.
#[derive(Debug)]
pub struct Error(Box<Cow<'static, str>>);

impl Error {
    /// The key holds a value of another type.
    #[cold]
    pub fn wrong_type() -> Error {
        Error::fixed("WRONGTYPE Operation against a key holding the wrong kind of value")
    }

    /// A panic has interrupted a change of this pool.
    #[cold]
    pub fn poisoned() -> Error {
        Error::fixed(
            "ERR a fault in redis-lb left this pool half-changed: DEL it and add its backends again",
        )
    }

    /// This command has panicked.
    #[cold]
    pub fn bug() -> Error {
        Error::fixed("ERR a fault in redis-lb: see the log of the server")
    }

    /// LB.LOAD without REPLACE at a key that exists.
    #[cold]
    pub fn busy_key() -> Error {
        Error::fixed("BUSYKEY Target key name already exists.")
    }

    /// A pick that would wait, or waits, where no more clients can wait.
    #[cold]
    pub fn queue_full(max: u32) -> Error {
        Error::new(format!(
            "QUEUEFULL no more than {max} clients can wait here (LB.QUEUE MAX): try again later, or elsewhere"
        ))
    }

    /// An error with a constant text.
    pub fn fixed(message: &'static str) -> Error {
        Error(Box::new(Cow::Borrowed(message)))
    }

    /// An error with a text that names an argument.
    pub fn new(message: String) -> Error {
        Error(Box::new(Cow::Owned(message)))
    }

    /// The whole line that the client gets.
    pub fn message(&self) -> &str {
        &self.0
    }
}
