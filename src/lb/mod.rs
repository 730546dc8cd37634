//! The core: a pool of backends as a deterministic state machine.
//!
//! Same state and same command give the same result, on every machine and in every release that knows the
//! pool's rules. Nothing of Redis is imported here; no clock, no entropy. What only speeds things up (trees,
//! tables, vacant slots) is layout: it is not saved, and never shows in a result.

#![forbid(unsafe_code)]

mod backend;
mod capacity;
mod chance;
mod clock;
pub mod codec;
mod index;
mod lane;
mod lease;
mod limit;
mod name;
mod order;
mod pick;
mod pool;

pub use backend::{Backend, State};
pub use capacity::{Record, Report, Terms, When};
pub use clock::{CLOCK_MAX, Millis, SPAN_MAX, STEP};
pub use lease::{Lease, LeaseId};
pub use limit::{LEASES_MAX, Limits, RATE_MAX, Rate};
pub use name::Name;
pub use pick::{ALGORITHMS, Algorithm};
pub use pool::{Added, Picked, Pool, Replaced, Request};

/// Moves what is on the heap to another place there, one buffer at a time.
pub trait Mover {
    /// Moves the buffer of this vector.
    fn vec<T>(&mut self, buffer: &mut Vec<T>);
    /// Moves these bytes.
    fn bytes(&mut self, buffer: &mut Box<[u8]>);
}

/// Where a backend stands in its pool: slots are in order of addition.
pub type Slot = usize;

/// The largest weight.
pub const WEIGHT_MAX: u16 = u16::MAX;
/// The longest name of a backend, in bytes.
pub const NAME_MAX: usize = 512;
/// The most backends that one pool holds. It keeps the sum of all weights below 2^40.
pub const BACKENDS_MAX: usize = 1 << 24;
/// The most different tiers that the backends of a pool are of. Each takes some bytes for every backend of the pool.
pub const TIERS_MAX: usize = 16;
/// The most picks that one command makes.
pub const COUNT_MAX: usize = 10_000;
/// The most backends that one command excludes.
pub const EXCLUDE_MAX: usize = 1_000;

/// What an allocator gives where so much is asked for: jemalloc's size classes, four to each doubling.
fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}
