//! How parts of a pool are written as bytes, and read.
//!
//! All is written by postcard: varints, zigzag for signed numbers. Nothing that is read is believed: each field is checked, and
//! no number that is read decides how much memory is reserved.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why bytes hold no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// They end too early or go on too long, or a number in them is none.
    Syntax,
    /// They were written by a release that knows more.
    Version,
    /// This field has a value that no pool has.
    Field(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Syntax => f.write_str("it is cut off or damaged"),
            Malformed::Version => f.write_str("it was written by a newer redis-lb"),
            Malformed::Field(field) => write!(f, "its {field} is out of range"),
        }
    }
}

/// Bytes that are written.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Writes a value.
    pub fn put(&mut self, value: &impl Serialize) {
        let bytes = std::mem::take(&mut self.0);
        self.0 = postcard::to_extend(value, bytes).expect("a vector takes all bytes");
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Bytes that are read.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

/// A number of which one below 128 is saved as one byte, namely itself. A signed one is not: its sign lies in the lowest bit.
pub trait Unsigned: From<u8> {}

impl Unsigned for u8 {}
impl Unsigned for u16 {}
impl Unsigned for u32 {}
impl Unsigned for u64 {}

impl<'a> Reader<'a> {
    /// Begins with the first of these bytes.
    pub fn of(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// Reads a value.
    pub fn get<T: Deserialize<'a>>(&mut self) -> Result<T, Malformed> {
        let (value, rest) = postcard::take_from_bytes(self.0).map_err(|_| Malformed::Syntax)?;
        self.0 = rest;
        Ok(value)
    }

    /// Reads a number that is at most this.
    #[inline(always)]
    pub fn number<T: Deserialize<'a> + PartialOrd + Unsigned>(
        &mut self,
        field: &'static str,
        most: T,
    ) -> Result<T, Malformed> {
        let number = match self.byte() {
            Some(byte) => T::from(byte),
            None => self.get()?,
        };
        let is_in_range = number <= most;
        checked(field, number, is_in_range)
    }

    /// Reads a signed number.
    #[inline(always)]
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        match self.byte() {
            Some(byte) => Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1)),
            None => self.get(),
        }
    }

    /// Reads bytes. Their number is in this range.
    #[inline(always)]
    pub fn bytes(
        &mut self,
        field: &'static str,
        lengths: std::ops::RangeInclusive<usize>,
    ) -> Result<&'a [u8], Malformed> {
        let bytes = match self.byte() {
            Some(len) => {
                let parts = self.0.split_at_checked(usize::from(len));
                let (bytes, rest) = parts.ok_or(Malformed::Syntax)?;
                self.0 = rest;
                bytes
            }
            None => self.get::<Bytes>()?.0,
        };
        checked(field, bytes, lengths.contains(&bytes.len()))
    }

    /// Reads this byte, if it is the next one.
    #[inline(always)]
    pub fn skip(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Reads a number of one byte, as most are, if the next one is.
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        (*byte < 0x80).then(|| {
            self.0 = rest;
            *byte
        })
    }

    /// Whether nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bytes behind their number.
#[derive(Serialize, Deserialize)]
pub struct Bytes<'a>(#[serde(with = "serde_bytes")] pub &'a [u8]);

/// The value, if it is in the range of this field.
pub fn checked<T>(field: &'static str, value: T, is_in_range: bool) -> Result<T, Malformed> {
    match is_in_range {
        true => Ok(value),
        false => Err(Malformed::Field(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_read_as_postcard_reads_them() {
        for number in (-300..300).chain([i64::MIN, i64::MAX]) {
            let mut all = Writer::default();
            all.put(&number);
            all.put(&number.unsigned_abs());
            let bytes = all.into_bytes();
            let mut from = Reader::of(&bytes);
            assert_eq!(from.signed(), Ok(number));
            let absolute = number.unsigned_abs();
            assert_eq!(from.number("number", u64::MAX), Ok(absolute));
            assert!(from.is_at_end());
        }
    }

    #[test]
    fn bytes_are_read_as_postcard_reads_them_and_none_behind_the_end() {
        for len in [0, 1, 126, 127, 128, 300] {
            let mut all = Writer::default();
            all.put(&Bytes(&vec![7; len]));
            let bytes = all.into_bytes();
            let mut from = Reader::of(&bytes);
            assert_eq!(from.bytes("bytes", 0..=300), Ok(&[7; 300][..len]));
            assert!(from.is_at_end());
            for cut in 0..bytes.len() {
                let mut from = Reader::of(&bytes[..cut]);
                assert_eq!(from.bytes("bytes", 0..=300), Err(Malformed::Syntax));
            }
        }
    }
}
