//! The server's time, whether clocks are moved by hand, and this process's terms as a primary.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redis_module::raw;

use crate::lb::Millis;

/// Whether only LB.TICK moves clocks, to any time. The load argument `clock manual` sets it, for tests.
static IS_MANUAL: AtomicBool = AtomicBool::new(false);

/// The number of this process's present term as a primary. It tells whether a pool's epoch was opened in this term.
static TERM: AtomicU64 = AtomicU64::new(1);

/// From now on only LB.TICK moves clocks.
pub fn be_manual() {
    IS_MANUAL.store(true, Ordering::Relaxed);
}

/// Whether only LB.TICK moves clocks.
pub fn is_manual() -> bool {
    IS_MANUAL.load(Ordering::Relaxed)
}

/// The number of the present term as a primary.
pub fn term() -> u64 {
    TERM.load(Ordering::Relaxed)
}

/// Begins a new term: this process has become a primary.
pub fn begin_term() {
    TERM.fetch_add(1, Ordering::Relaxed);
}

/// The server's time. Newer servers have a time that stands still while a transaction or a script runs; it is used where
/// it exists.
pub fn now() -> Millis {
    // SAFETY: as for every call of the API.
    match unsafe { raw::RedisModule_CachedMicroseconds } {
        Some(cached) => unsafe { cached() as Millis / 1000 },
        None => api!(RedisModule_Milliseconds()) as Millis,
    }
}
