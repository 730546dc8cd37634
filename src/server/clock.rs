//! The server's time, and the marks of this process that have to do with it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redis_module::raw;

use crate::lb::Millis;

/// Whether only LB.TICK moves clocks, to any time: the load argument `clock manual`, for tests.
static IS_MANUAL: AtomicBool = AtomicBool::new(false);

/// How often this process has become a primary: a mark by which a pool knows whether its epoch is of now.
static TERM: AtomicU64 = AtomicU64::new(1);

/// From now on only LB.TICK moves clocks.
pub fn be_manual() {
    IS_MANUAL.store(true, Ordering::Relaxed);
}

/// Whether only LB.TICK moves clocks.
pub fn is_manual() -> bool {
    IS_MANUAL.load(Ordering::Relaxed)
}

/// The mark of the present time as a primary.
pub fn term() -> u64 {
    TERM.load(Ordering::Relaxed)
}

/// This process has become a primary.
pub fn begin_term() {
    TERM.fetch_add(1, Ordering::Relaxed);
}

/// The server's time. Where the server has one that stands still while a transaction or a script runs, that one.
pub fn now() -> Millis {
    // SAFETY: as every call of the API.
    let now = match unsafe { raw::RedisModule_CachedMicroseconds } {
        Some(cached) => unsafe { cached() / 1000 },
        None => api!(RedisModule_Milliseconds()),
    };
    now as Millis
}
