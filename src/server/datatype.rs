//! The type `lbpool---`: how the server saves, loads, copies, weighs and frees a pool.

use std::os::raw::{c_int, c_void};
use std::ptr;
use std::sync::atomic::Ordering;

use redis_module::raw;

use super::clock::is_manual;
use super::guard::{guarded, log};
use super::hints::{ANY, AT_ONCE};
use super::key_ref::bytes as bytes_of;
use super::listening::listen;
use super::timer;
use super::value::{POOL_TYPE, Value};
use crate::lb::{Pool, codec};

/// The name of the type has nine characters, which RDB files carry as a number.
const NAME: &std::ffi::CStr = c"lbpool---";

/// The version of the frame around the codec's bytes in an RDB file: one string. The codec's bytes have their own version.
const ENCODING: c_int = 1;

/// Registers the type; false if the server refuses it.
pub fn register(ctx: *mut raw::RedisModuleCtx) -> bool {
    let mut methods = raw::RedisModuleTypeMethods {
        version: u64::from(raw::REDISMODULE_TYPE_METHOD_VERSION),
        rdb_load: Some(load),
        rdb_save: Some(save),
        aof_rewrite: Some(rewrite),
        mem_usage: Some(bytes),
        digest: Some(digest),
        free: Some(free),
        // Pools keep nothing beside the keyspace.
        aux_load: None,
        aux_save: None,
        aux_save2: None,
        aux_save_triggers: 0,
        free_effort: Some(free_effort),
        // Nothing refers to a pool but its key.
        unlink: None,
        unlink2: None,
        copy: Some(copy),
        defrag: Some(super::defrag::defrag),
        // The second forms only add the key's name and database, and a pool does not depend on these.
        mem_usage2: None,
        free_effort2: None,
        copy2: None,
    };
    let registered = api!(RedisModule_CreateDataType(
        ctx,
        NAME.as_ptr(),
        ENCODING,
        &mut methods
    ));
    POOL_TYPE.store(registered, Ordering::Relaxed);
    !registered.is_null()
}

/// The value as bytes. For a poisoned pool the bytes say only that it is poisoned.
fn encode(value: &Value) -> Vec<u8> {
    match value {
        Value::Pool(pool, _) => codec::encode(pool),
        Value::Poisoned => codec::encode_poisoned(),
    }
}

/// # Safety
/// `value` must be a value of this type that only one callback uses at a time. The server ensures both in its callbacks.
unsafe fn value<'a>(value: *const c_void) -> &'a Value {
    unsafe { &*value.cast() }
}

unsafe extern "C" fn load(io: *mut raw::RedisModuleIO, encoding: c_int) -> *mut c_void {
    if encoding > ENCODING {
        log("a pool cannot be loaded: a newer redis-lb wrote it");
        return ptr::null_mut();
    }
    let mut len = 0;
    let buffer = api!(RedisModule_LoadStringBuffer(io, &mut len));
    // Only this check detects a payload that is cut off here. Without it the server would exit.
    if api!(RedisModule_IsIOError(io)) != 0 || buffer.is_null() {
        return ptr::null_mut();
    }
    let decoded = guarded("loading a pool", || {
        // SAFETY: the server gave a buffer of that length.
        Value::decode(unsafe { std::slice::from_raw_parts(buffer.cast(), len) })
    });
    // The module must free the buffer.
    api!(RedisModule_Free(buffer.cast()));
    let value = match decoded {
        Some(Ok(value)) => {
            remember(io, &value);
            value
        }
        Some(Err(malformed)) => {
            log(&format!("a pool cannot be loaded: {malformed}"));
            return ptr::null_mut();
        }
        // If one value of a file cannot be loaded, the server exits or loses all its data. So the pool is loaded as poisoned.
        None if is_loading(io) => Box::new(Value::Poisoned),
        None => return ptr::null_mut(),
    };
    Box::into_raw(value).cast()
}

/// Adds a hint for the pool that is being loaded, if something will be due in it. The time is checked later, because
/// this process may be a replica.
fn remember(io: *mut raw::RedisModuleIO, value: &Value) {
    let is_due = matches!(value, Value::Pool(pool, _) if pool.due().is_some());
    if !is_due || is_manual() {
        return;
    }
    let name = api!(RedisModule_GetKeyNameFromIO(io));
    if name.is_null() {
        return;
    }
    listen(api!(RedisModule_GetContextFromIO(io)));
    // SAFETY: as for every call of the API. 6.2 has no function that tells the database.
    let db = unsafe { raw::RedisModule_GetDbIdFromIO }.map_or(ANY, |db| unsafe { db(io) });
    timer::remember(AT_ONCE, db, bytes_of(name));
}

/// Whether the server is loading a whole file, not one value by RESTORE.
fn is_loading(io: *mut raw::RedisModuleIO) -> bool {
    let ctx = api!(RedisModule_GetContextFromIO(io));
    let flags = api!(RedisModule_GetContextFlags(ctx)) as u32;
    let loading = raw::REDISMODULE_CTX_FLAGS_LOADING | raw::REDISMODULE_CTX_FLAGS_ASYNC_LOADING;
    flags & loading != 0
}

unsafe extern "C" fn save(io: *mut raw::RedisModuleIO, pool: *mut c_void) {
    let bytes = guarded("saving a pool", || encode(unsafe { value(pool) }));
    // A file that lacks this string could not be loaded at all.
    let bytes = bytes.unwrap_or_else(codec::encode_poisoned);
    api!(RedisModule_SaveStringBuffer(
        io,
        bytes.as_ptr().cast(),
        bytes.len()
    ));
}

unsafe extern "C" fn rewrite(
    io: *mut raw::RedisModuleIO,
    key: *mut raw::RedisModuleString,
    pool: *mut c_void,
) {
    let bytes = guarded("rewriting a pool", || encode(unsafe { value(pool) }));
    let bytes = bytes.unwrap_or_else(codec::encode_poisoned);
    api!(RedisModule_EmitAOF(
        io,
        c"LB.LOAD".as_ptr(),
        c"sb".as_ptr(),
        key,
        bytes.as_ptr(),
        bytes.len(),
    ));
}

/// The size of an object of the server and of the two pointers that it keeps for a value of a module's type. It reports neither.
const AROUND_VALUE: usize = 32;

unsafe extern "C" fn bytes(pool: *const c_void) -> usize {
    let bytes = guarded("measuring a pool", || match unsafe { value(pool) } {
        Value::Pool(pool, local) => {
            let local = local.as_deref().map_or(0, size_of_val);
            pool.bytes(size_of::<Value>() - size_of::<Pool>()) + local
        }
        Value::Poisoned => size_of::<Value>(),
    });
    AROUND_VALUE + bytes.unwrap_or(0)
}

unsafe extern "C" fn digest(digest: *mut raw::RedisModuleDigest, pool: *mut c_void) {
    if let Some(bytes) = guarded("digesting a pool", || encode(unsafe { value(pool) })) {
        api!(RedisModule_DigestAddStringBuffer(
            digest,
            bytes.as_ptr().cast(),
            bytes.len()
        ));
    }
    api!(RedisModule_DigestEndSequence(digest));
}

/// The server calls this on a background thread too. That is safe, because a value holds nothing of the server's.
unsafe extern "C" fn free(pool: *mut c_void) {
    // SAFETY: the value was made from a box, and the server frees it once.
    guarded("freeing a pool", || {
        drop(unsafe { Box::from_raw(pool.cast::<Value>()) })
    });
}

unsafe extern "C" fn free_effort(_key: *mut raw::RedisModuleString, pool: *const c_void) -> usize {
    let effort = guarded("weighing a pool", || match unsafe { value(pool) } {
        Value::Pool(pool, _) => pool.len() + pool.leases() + pool.sessions(),
        Value::Poisoned => 1,
    });
    effort.unwrap_or(1)
}

unsafe extern "C" fn copy(
    _from: *mut raw::RedisModuleString,
    _to: *mut raw::RedisModuleString,
    pool: *const c_void,
) -> *mut c_void {
    let copied = guarded("copying a pool", || match unsafe { value(pool) } {
        Value::Pool(pool, _) => Box::into_raw(Box::new(Value::pool(pool.clone()))).cast(),
        Value::Poisoned => ptr::null_mut(),
    });
    copied.unwrap_or(ptr::null_mut())
}
