//! Loads the module into the server.

use std::os::raw::{c_int, c_longlong};

use redis_module::raw;

use super::guard::{guarded, log};
use super::register::Entry;
use super::{clock, datatype, events, info, key_ref, register};

/// The name of an API function that only Valkey exports to modules.
const VALKEY: &std::ffi::CStr = c"ValkeyModule_Alloc";
/// An option of Valkey 9 and newer: a key of our type may be written to while its slot is moved to another node.
const HANDLE_ATOMIC_SLOT_MIGRATION: c_int = 1 << 5;

/// The entry point of the module. It registers these commands.
///
/// # Safety
/// Only the server may call it, once, with a context and the `argc` arguments of the `loadmodule` line.
pub unsafe fn on_load(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
    commands: &[Entry],
) -> c_int {
    // This must come first: it binds the API, and with it the allocator.
    let version = version_number(env!("CARGO_PKG_VERSION"));
    let api = raw::REDISMODULE_APIVER_1 as c_int;
    // SAFETY: the context is the server's own.
    let bound = unsafe { raw::Export_RedisModule_Init(ctx, c"lb".as_ptr(), version, api) };
    if bound != raw::REDISMODULE_OK as c_int {
        return raw::REDISMODULE_ERR as c_int;
    }
    // SAFETY: the server passes argc strings.
    let arguments = (0..argc as usize).map(|at| unsafe { key_ref::bytes(*argv.add(at)) });
    let arguments: Vec<&[u8]> = arguments.collect();
    match guarded("loading", || load(ctx, &arguments, commands)) {
        Some(Ok(())) => raw::REDISMODULE_OK as c_int,
        Some(Err(reason)) => {
            log(&format!("not loaded: {reason}"));
            raw::REDISMODULE_ERR as c_int
        }
        None => raw::REDISMODULE_ERR as c_int,
    }
}

/// The arguments of the `loadmodule` line.
fn read_arguments(arguments: &[&[u8]]) -> Result<(), String> {
    match arguments {
        [] => Ok(()),
        [name, value]
            if name.eq_ignore_ascii_case(b"clock") && value.eq_ignore_ascii_case(b"manual") =>
        {
            clock::be_manual();
            Ok(())
        }
        _ => Err("the module takes no arguments except `clock manual`, which is for tests".into()),
    }
}

fn load(
    ctx: *mut raw::RedisModuleCtx,
    arguments: &[&[u8]],
    commands: &[Entry],
) -> Result<(), String> {
    // 6.2 was the first release with this function. `api!` relies on this check.
    if unsafe { raw::RedisModule_DefragAlloc }.is_none() {
        return Err("the server is older than Redis 6.2".into());
    }
    read_arguments(arguments)?;
    if !datatype::register(ctx) {
        return Err("the server refuses its data type".into());
    }
    for entry in commands {
        register::command(ctx, entry)?;
    }
    api!(RedisModule_RegisterInfoFunc(ctx, Some(info::info)));
    events::start(ctx);
    api!(RedisModule_SetModuleOptions(ctx, options()));
    Ok(())
}

/// How the server may treat the module.
fn options() -> c_int {
    // A payload that cannot be read fails by itself. `KeyRef::touched` signals that a key was modified, only when it was. Loading
    // changes nothing but the value that it makes.
    let options = raw::REDISMODULE_OPTIONS_HANDLE_IO_ERRORS
        | raw::REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED
        | raw::REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD;
    let mut function: *mut std::ffi::c_void = std::ptr::null_mut();
    let found = api!(RedisModule_GetApi(
        VALKEY.as_ptr(),
        (&raw mut function).cast()
    ));
    match found == raw::REDISMODULE_OK as c_int {
        // In Redis this bit may get another meaning one day.
        true => options as c_int | HANDLE_ATOMIC_SLOT_MIGRATION,
        false => options as c_int,
    }
}

/// Version 1.2.3 as 10203, which MODULE LIST shows.
fn version_number(version: &str) -> c_int {
    let numbers = version.split('.').map(|n| n.parse().unwrap_or(0));
    numbers.fold(0, |sum: c_longlong, n: c_longlong| 100 * sum + n) as c_int
}
