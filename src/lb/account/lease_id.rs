//! The names of leases.

use std::fmt;

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
    /// Reads an id as `Display` writes it.
    pub fn parse(bytes: &[u8]) -> Option<LeaseId> {
        let (epoch, number) = std::str::from_utf8(bytes).ok()?.split_once('-')?;
        let plain = |digits: &str| {
            // As they are written, without zeros before them: one lease has one id.
            let is_plain = digits.bytes().all(|b| b.is_ascii_digit())
                && (digits == "0" || !digits.starts_with('0'));
            is_plain.then(|| digits.parse().ok()).flatten()
        };
        Some(LeaseId {
            epoch: plain(epoch)?,
            number: plain(number)?,
        })
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
