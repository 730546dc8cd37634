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

static IS_DEAF: AtomicBool = AtomicBool::new(false);
static TELLS_DATABASES: AtomicBool = AtomicBool::new(true);

/// This will hear of the events, once there is a reason to listen.
pub fn hear_with(heard: Heard) {
    HEARD.set(Some(heard));
}

/// Hears from now on of what brings pools to other keys.
pub fn listen(ctx: *mut raw::RedisModuleCtx) {
    if IS_LISTENING.swap(true, Ordering::Relaxed) {
        return;
    }
    let valkey = valkey_version(ctx).unwrap_or_default();
    TELLS_DATABASES.store(valkey < vec![9, 1, 2], Ordering::Relaxed);
    // Its issue 4024.
    if (vec![8, 1]..vec![9, 1, 2]).contains(&valkey) {
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

/// Whether nothing is heard of pools that come to other keys: then each command that writes to one notes what is due there, and
/// the timer looks at every key at which somebody waits.
///
/// So it is on Valkey 8.1 to 9.1.1: where any module listens, these leave a client behind MOVE and COPY in the database that
/// the command wrote to.
pub fn is_deaf() -> bool {
    IS_DEAF.load(Ordering::Relaxed)
}

/// Whether an event of MOVE or COPY tells to which database the key has come. Valkey 9.1.2 names that of the client.
pub fn tells_databases() -> bool {
    TELLS_DATABASES.load(Ordering::Relaxed)
}

/// The version, where the server is a Valkey.
fn valkey_version(ctx: *mut raw::RedisModuleCtx) -> Option<Vec<u32>> {
    let info = api!(RedisModule_GetServerInfo(ctx, c"server".as_ptr()));
    let version = api!(RedisModule_ServerInfoGetFieldC(
        info,
        c"valkey_version".as_ptr()
    ));
    let numbers = (!version.is_null()).then(|| {
        // SAFETY: the server hands a text, which lives as long as the information.
        let version = unsafe { std::ffi::CStr::from_ptr(version) }.to_string_lossy();
        version.split('.').map_while(|n| n.parse().ok()).collect()
    });
    api!(RedisModule_FreeServerInfo(ctx, info));
    numbers
}
