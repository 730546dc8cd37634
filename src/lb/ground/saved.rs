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
        let number = match self.0 {
            // Most numbers are small ones, of one byte.
            [byte @ ..0x80, rest @ ..] => {
                self.0 = rest;
                T::from(*byte)
            }
            _ => self.get()?,
        };
        let is_in_range = number <= most;
        checked(field, number, is_in_range)
    }

    /// Reads bytes. Their number is in this range.
    pub fn bytes(
        &mut self,
        field: &'static str,
        lengths: std::ops::RangeInclusive<usize>,
    ) -> Result<&'a [u8], Malformed> {
        let Bytes(bytes) = self.get()?;
        checked(field, bytes, lengths.contains(&bytes.len()))
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
