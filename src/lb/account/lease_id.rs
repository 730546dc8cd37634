//! The names of leases.

use std::fmt;

use crate::lb::ground::digits::{self, DIGITS_MAX};

/// The name of a lease for clients: `<epoch>-<number>`.
///
/// The number is unique in the life of one pool. A pool can live twice: as a copy, as a restored dump, on a replica that takes
/// over and has missed the last commands. Each of these draws an epoch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    /// The primary draws it before the first lease after anything that may have doubled the pool.
    pub epoch: u64,
    /// Counts the leases of a pool.
    pub number: u64,
}

impl LeaseId {
    /// Reads an id as it is written. No number has zeros before it: one lease has one id.
    pub fn parse(bytes: &[u8]) -> Option<LeaseId> {
        let (epoch, rest) = digits::leading(bytes)?;
        let (number, rest) = digits::leading(rest.strip_prefix(b"-")?)?;
        rest.is_empty().then_some(LeaseId { epoch, number })
    }

    /// The id as text.
    pub fn text(self) -> IdText {
        let mut text = IdText {
            bytes: [0; ID_MAX],
            len: 0,
        };
        let mut digits = itoa::Buffer::new();
        text.append(digits.format(self.epoch));
        text.append("-");
        text.append(digits.format(self.number));
        text
    }
}

/// The longest id.
const ID_MAX: usize = 2 * DIGITS_MAX + 1;

/// The text of an id. It is not a string: every lease that is granted writes one, and an allocation would cost as much as the grant.
pub struct IdText {
    bytes: [u8; ID_MAX],
    len: usize,
}

impl IdText {
    fn append(&mut self, part: &str) {
        let end = self.len + part.len();
        self.bytes[self.len..end].copy_from_slice(part.as_bytes());
        self.len = end;
    }

    /// The bytes of the text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = LeaseId {
            epoch: u64::MAX,
            number: 7,
        };
        assert_eq!(LeaseId::parse(id.to_string().as_bytes()), Some(id));
        assert_eq!(id.text().as_bytes(), id.to_string().as_bytes());
        let longest = LeaseId {
            epoch: u64::MAX,
            number: u64::MAX,
        };
        let text = "18446744073709551615-18446744073709551615";
        assert_eq!(longest.text().as_bytes(), text.as_bytes());
        assert_eq!(LeaseId::parse(text.as_bytes()), Some(longest));
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-2-3",
            "+1-2",
            "1--2",
            "a-1",
            "01-1",
            "1-01",
            "00-1",
            "1-99999999999999999999",
        ] {
            assert_eq!(LeaseId::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(LeaseId::parse(&[0xff, b'-', b'1']), None);
    }
}
