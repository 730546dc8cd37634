//! The subscription to keyspace events, which tell of pools that come to a key without a command of ours.
//!
//! The module subscribes only when something is due or a client waits, because each event of the server costs 40
//! instructions more when a module listens.

use std::cell::Cell;
use std::os::raw::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

use redis_module::raw;

use super::section::Section;

/// A callback for keyspace events.
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

/// Sets the callback that [`listen`] will subscribe.
pub fn hear_with(heard: Heard) {
    HEARD.set(Some(heard));
}

/// Subscribes to the events of commands that bring pools to other keys. Only the first call has an effect.
pub fn listen(ctx: *mut raw::RedisModuleCtx) {
    if IS_LISTENING.swap(true, Ordering::Relaxed) {
        return;
    }
    let valkey = valkey_version(ctx).unwrap_or_default();
    TELLS_DATABASES.store(valkey < vec![9, 1, 2], Ordering::Relaxed);
    // Valkey's issue 4024: see `is_deaf`.
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

/// Whether the module cannot listen, so that it does not hear of pools that come to other keys. Then each command that writes
/// to a pool adds a hint for it, and the timer looks at every key at which a client waits.
///
/// This is so on Valkey 8.1 to 9.1.1. When any module listens, these servers leave a client that sent MOVE or COPY in the
/// database to which the command wrote (Valkey's issue 4024).
pub fn is_deaf() -> bool {
    IS_DEAF.load(Ordering::Relaxed)
}

/// Whether an event of MOVE or COPY names the database to which the key has come. Valkey 9.1.2 names the client's instead.
pub fn tells_databases() -> bool {
    TELLS_DATABASES.load(Ordering::Relaxed)
}

/// The version, if the server is a Valkey.
fn valkey_version(ctx: *mut raw::RedisModuleCtx) -> Option<Vec<u32>> {
    let version = Section::of(ctx, c"server").field("valkey_version")?;
    Some(version.split('.').map_while(|n| n.parse().ok()).collect())
}
