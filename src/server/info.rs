//! The module's section of INFO.

use std::ffi::CString;
use std::os::raw::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use redis_module::raw;

use super::guard::guarded;

/// A count since the module was loaded.
pub struct Counter(AtomicU64);

/// The picks.
pub static PICKS: Counter = Counter(AtomicU64::new(0));
/// The commands that got an error reply.
pub static REFUSED: Counter = Counter(AtomicU64::new(0));
/// The pools that were poisoned by a panic.
pub static POISONED: Counter = Counter(AtomicU64::new(0));

impl Counter {
    /// Adds one.
    pub fn count(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: usize) {
        // Only the main thread counts. So a load and a store are enough, and an atomic addition would lock the bus.
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n as u64);
        self.0.store(sum, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The server calls this for `INFO`.
pub unsafe extern "C" fn info(ctx: *mut raw::RedisModuleInfoCtx, _for_crash_report: c_int) {
    guarded("INFO", || {
        let wanted = api!(RedisModule_InfoAddSection(ctx, std::ptr::null()));
        if wanted != raw::REDISMODULE_OK as c_int {
            return;
        }
        let version = CString::new(env!("CARGO_PKG_VERSION")).unwrap_or_default();
        api!(RedisModule_InfoAddFieldCString(
            ctx,
            c"version".as_ptr(),
            version.as_ptr()
        ));
        for (field, counter) in [
            (c"picks", &PICKS),
            (c"refused_commands", &REFUSED),
            (c"poisoned_pools", &POISONED),
        ] {
            api!(RedisModule_InfoAddFieldULongLong(
                ctx,
                field.as_ptr(),
                counter.value()
            ));
        }
    });
}
