//! Memory: how much an allocation takes, and how it moves.

/// Moves buffers to another place on the heap, one at a time.
pub trait Mover {
    /// Moves the buffer of this vector.
    fn vec<T>(&mut self, buffer: &mut Vec<T>);
    /// Moves these bytes.
    fn bytes(&mut self, buffer: &mut Box<[u8]>);
}

/// The bytes that an allocator takes for a request of this size: jemalloc's size classes, four to each doubling.
pub fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// The bytes that the buffer of a vector takes.
pub fn buffer<T>(vec: &Vec<T>) -> usize {
    allocated(vec.capacity() * size_of::<T>())
}
