//! A backend's name: any bytes, stored without an allocation where they are few.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use twox_hash::XxHash3_64;

use super::memory::{Mover, allocated};

/// How many bytes fit beside the length and the tag in 24 bytes. The longest `IPv4:port` has 21.
const INLINE: usize = 22;

/// The name of a backend: 1 to 512 bytes, of any kind. Empty only in a vacant slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Repr);

#[derive(Clone, PartialEq, Eq)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Name {
    /// That of a vacant slot.
    pub const EMPTY: Name = Name(Repr::Inline {
        len: 0,
        bytes: [0; INLINE],
    });

    /// Copies the bytes.
    pub fn new(name: &[u8]) -> Name {
        if name.len() > INLINE {
            return Name(Repr::Heap(name.into()));
        }
        let mut bytes = [0; INLINE];
        bytes[..name.len()].copy_from_slice(name);
        Name(Repr::Inline {
            len: name.len() as u8,
            bytes,
        })
    }

    /// The bytes of the name.
    #[inline(always)]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }

    /// Lets the mover at the heap's part of the name, where it has one.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        match &mut self.0 {
            Repr::Inline { .. } => {}
            Repr::Heap(bytes) => by.bytes(bytes),
        }
    }

    /// How many bytes the name takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Inline { .. } => 0,
            Repr::Heap(bytes) => allocated(bytes.len()),
        }
    }
}

/// The keys of the hash: a process's own, so that no list of names can be made that collides in it. They decide
/// where an entry lies in a table, which no result shows.
static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash of a name, in this process.
pub fn hash(name: &[u8]) -> u64 {
    HASH.hash_one(name)
}

/// The hash of a name or an item, the same everywhere: XXH3-64.
pub fn public_hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_any_bytes_of_any_length_in_24_bytes() {
        assert_eq!(size_of::<Name>(), 24);
        for len in 0..=600 {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let name = Name::new(&bytes);
            assert_eq!(name.as_bytes(), bytes);
            assert_eq!(
                name.heap_bytes(),
                if len > INLINE { allocated(len) } else { 0 }
            );
        }
    }
}
