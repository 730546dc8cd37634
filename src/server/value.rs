//! The value at a key: a pool, with this process's notes about it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use redis_module::raw;

use crate::lb::{Millis, Pool, codec};

/// The type of pools, after it is registered.
pub static POOL_TYPE: AtomicPtr<raw::RedisModuleType> = AtomicPtr::new(ptr::null_mut());

/// The type of pools.
pub fn pool_type() -> *mut raw::RedisModuleType {
    POOL_TYPE.load(Ordering::Relaxed)
}

/// The value at a key of our type.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are pools; a box costs a cache miss a pick"
)]
pub enum Value {
    /// A pool, and this process's notes about it. The notes are no part of the pool's state: they are neither saved nor replicated.
    Pool(Pool, Option<Box<ProcessNotes>>),
    /// A panic has interrupted a change of the pool. Nothing of such a pool is used any more.
    Poisoned,
}

/// This process's notes about a pool in which time matters.
#[derive(Clone, Debug, Default)]
pub struct ProcessNotes {
    /// The lead of the pool's clock over the server's clock. It is above 0 after a failover from a host whose clock was ahead:
    /// the pool's time runs on from there.
    pub ahead: Millis,
    /// The term as a primary in which this process opened the pool's epoch; 0 if it did not open the present epoch.
    pub term: u64,
    /// The time of the pool's valid hint, by the server's clock. Its other hints are out of date.
    pub hint: Option<Millis>,
    /// The picks that found no backend, in this process.
    pub refused: u64,
}

impl ProcessNotes {
    /// Whether a hint for that time is valid: it is the noted hint, or no hint is noted.
    pub fn is_hinted(&self, time: Millis) -> bool {
        self.hint.is_none_or(|hint| hint == time)
    }
}

impl Value {
    /// A pool without notes.
    pub fn pool(pool: Pool) -> Value {
        Value::Pool(pool, None)
    }

    /// Decodes a value from bytes.
    pub fn decode(bytes: &[u8]) -> Result<Box<Value>, codec::Malformed> {
        // At its place at once: to make it elsewhere and move it costs as much as to read a backend.
        let mut value = Box::write(Box::new_uninit(), Value::pool(Pool::new()));
        if let Value::Pool(pool, _) = &mut *value
            && codec::decode_to(pool, bytes)? == codec::Kind::Poisoned
        {
            *value = Value::Poisoned;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notes_cost_a_pool_one_pointer() {
        assert_eq!(size_of::<Value>(), size_of::<Pool>() + 8);
    }
}
