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
        EpochText::of(self.epoch).id(self.number)
    }
}

/// The beginning of all ids of an epoch: `<epoch>-`. It is kept, because to write its twenty digits and to read them again would be a
/// tenth of what a lease costs.
#[derive(Clone, Debug)]
pub struct EpochText {
    bytes: [u8; EPOCH_MAX],
    len: u8,
}

const EPOCH_MAX: usize = DIGITS_MAX + 1;
/// The longest id.
const ID_MAX: usize = EPOCH_MAX + DIGITS_MAX;

impl EpochText {
    /// The text of that epoch.
    pub fn of(epoch: u64) -> EpochText {
        let mut bytes = [b'-'; EPOCH_MAX];
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(epoch).as_bytes();
        bytes[..digits.len()].copy_from_slice(digits);
        let len = digits.len() as u8 + 1;
        EpochText { bytes, len }
    }

    /// The id of that number.
    #[inline(always)]
    pub fn id(&self, number: u64) -> IdText {
        let mut bytes = [0; ID_MAX];
        *bytes.first_chunk_mut().expect("it is shorter") = self.bytes;
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        let from = usize::from(self.len);
        let len = from + digits.len();
        bytes[from..len].copy_from_slice(digits);
        IdText { bytes, len }
    }

    /// The number in an id, if it is one of this epoch.
    #[inline(always)]
    pub fn number(&self, id: &[u8]) -> Option<u64> {
        let number = id.strip_prefix(&self.bytes[..usize::from(self.len)])?;
        let (number, rest) = digits::leading(number)?;
        rest.is_empty().then_some(number)
    }
}

/// The text of an id. It is not a string: every lease that is granted writes one, and an allocation would cost as much as the grant.
pub struct IdText {
    bytes: [u8; ID_MAX],
    len: usize,
}

impl IdText {
    /// The bytes of the text.
    #[inline(always)]
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
        for epoch in [0, 7, u64::MAX] {
            let text = EpochText::of(epoch);
            for number in [0, 7, u64::MAX] {
                let id = LeaseId { epoch, number }.to_string();
                assert_eq!(text.number(id.as_bytes()), Some(number));
                assert_eq!(text.number(format!("1{id}").as_bytes()), None);
                assert_eq!(text.number(format!("{id}-").as_bytes()), None);
            }
        }
    }
}
