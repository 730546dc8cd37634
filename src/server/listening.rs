//! What the server tells of keys that come by other ways than a command of ours.
//!
//! Nothing is asked for before anything is due or anybody waits: each event of the server costs 40 instructions more when a
//! module listens.

use std::cell::Cell;
use std::os::raw::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

use redis_module::raw;

/// What hears of the events.
pub type Heard = unsafe extern "C" fn(
    *mut raw::RedisModuleCtx,
    c_int,
    *const c_char,
    *mut raw::RedisModuleString,
) -> c_int;

thread_local! {
    // Only the main thread listens.
    static HEARD: Cell<Option<Heard>> = const { Cell::new(None) };
}

static IS_LISTENING: AtomicBool = AtomicBool::new(false);

/// Whether the server is one that must not be listened to.
static IS_DEAF: AtomicBool = AtomicBool::new(false);

/// This will hear of the events, once there is a reason to listen.
pub fn hear_with(heard: Heard) {
    HEARD.set(Some(heard));
}

/// Hears from now on of what brings pools to other keys.
pub fn listen(ctx: *mut raw::RedisModuleCtx) {
    if !IS_LISTENING.swap(true, Ordering::Relaxed) {
        if has_valkey_bug_4024(ctx) {
            IS_DEAF.store(true, Ordering::Relaxed);
            return;
        }
        let generic = raw::REDISMODULE_NOTIFY_GENERIC;
        api!(RedisModule_SubscribeToKeyspaceEvents(
            ctx,
            generic,
            HEARD.get()
        ));
    }
}

/// Whether nothing is heard of pools that come to other keys: then each command that writes to one notes what is due there, and
/// the timer looks at every key at which somebody waits.
pub fn is_deaf() -> bool {
    IS_DEAF.load(Ordering::Relaxed)
}

/// Whether the server is one that, where any module listens, leaves a client behind MOVE and COPY in the database that these
/// wrote to: Valkey 8.1 and 9.0 (its issue 4024; 9.1.2 does not).
fn has_valkey_bug_4024(ctx: *mut raw::RedisModuleCtx) -> bool {
    let info = api!(RedisModule_GetServerInfo(ctx, c"server".as_ptr()));
    let version = api!(RedisModule_ServerInfoGetFieldC(
        info,
        c"valkey_version".as_ptr()
    ));
    let is_there = !version.is_null() && {
        // SAFETY: the server hands a text, which lives as long as the information.
        let version = unsafe { std::ffi::CStr::from_ptr(version) }.to_string_lossy();
        let numbers: Vec<u32> = (version.split('.')).map_while(|n| n.parse().ok()).collect();
        (vec![8, 1]..vec![9, 1, 2]).contains(&numbers)
    };
    api!(RedisModule_FreeServerInfo(ctx, info));
    is_there
}
