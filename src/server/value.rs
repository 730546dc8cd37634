//! What the server keeps at a key: a pool, and what this process notes beside it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use redis_module::raw;

use crate::lb::{Millis, Pool, codec};

/// The type, once it is registered.
pub static POOL_TYPE: AtomicPtr<raw::RedisModuleType> = AtomicPtr::new(ptr::null_mut());

/// The type of pools.
pub fn pool_type() -> *mut raw::RedisModuleType {
    POOL_TYPE.load(Ordering::Relaxed)
}

/// What is stored at a key.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are pools; a box costs a cache miss a pick"
)]
pub enum Value {
    /// A pool, and what this process keeps of it beside: that is no part of the state, and goes nowhere.
    Pool(Pool, Option<Box<ProcessNotes>>),
    /// A panic came half-way through a change. Nothing of such a pool is used any more.
    Poisoned,
}

/// What this process keeps of a pool in which time matters.
#[derive(Clone, Debug, Default)]
pub struct ProcessNotes {
    /// How much the pool's clock was ahead of the server's, as behind a failover from a host whose clock was: the pool's
    /// time runs on from there.
    pub ahead: Millis,
    /// The term as a primary in which this process opened the pool's epoch; 0 = it did not open the present one.
    pub term: u64,
    /// For when, by the server's clock, the list of what is due has a hint for it. Other hints are of no use any more.
    pub hint: Option<Millis>,
}

impl ProcessNotes {
    /// Whether a hint for that time is the one, or there is no other.
    pub fn is_hinted(&self, time: Millis) -> bool {
        self.hint.is_none_or(|hint| hint == time)
    }
}

impl Value {
    /// A pool that nothing is noted of yet.
    pub fn pool(pool: Pool) -> Value {
        Value::Pool(pool, None)
    }

    /// The value that the bytes hold.
    pub fn decode(bytes: &[u8]) -> Result<Value, codec::Malformed> {
        codec::decode(bytes).map(|stored| match stored {
            codec::Stored::Pool(pool) => Value::pool(pool),
            codec::Stored::Poisoned => Value::Poisoned,
        })
    }
}
