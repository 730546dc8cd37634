//! How a client waits.

use crate::lb::Millis;

/// How a client waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The longest wait; 0 = no limit.
    pub millis: Millis,
    /// The number: lower ones are served first.
    pub prio: u8,
    /// The name for which it waits.
    pub tenant: Option<&'a [u8]>,
}
