//! The callbacks that the server calls without a command: the timer, its cron loop, and events of keys, roles and databases.

use std::cell::RefCell;
use std::os::raw::{c_char, c_int, c_void};
use std::time::{Duration, Instant};

use redis_module::raw;

use super::clock::{self, is_manual, now};
use super::guard::guarded;
use super::hints::ANY;
use super::key::Key;
use super::key_ref::{KeyRef, databases, has_flag};
use super::listening::tells_databases;
use super::queue::At;
use super::refusal::is_refusing;
use super::{listening, sources, timer, waiting, waits};
use crate::lb::Millis;

/// The longest time that one run of the timer works. A run does at least one tick, even if that takes longer: a tick that clears
/// 1,000 leases takes one to two milliseconds.
const BUDGET: Duration = Duration::from_millis(1);
/// The largest number of leases that one tick ends, unless more have the same deadline.
const LEASES_A_TICK: usize = 1000;
/// The time after which a tick is tried again if the server refuses it, for example because another node has the slot.
const RETRY: Millis = 1000;

thread_local! {
    // Only the main thread gets events.
    /// The key that the last `rename_from` or `move_from` event named: its value is about to go to another key.
    static LEAVING: RefCell<Option<At>> = const { RefCell::new(None) };
}

/// Starts the timer and subscribes to the events that concern all pools.
pub fn start(ctx: *mut raw::RedisModuleCtx) {
    timer::start(ctx, run);
    listening::hear_with(key_event);
    for (id, heard) in [
        (
            raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
            role_changed as EventCallback,
        ),
        (raw::REDISMODULE_EVENT_SWAPDB, databases_swapped),
        (raw::REDISMODULE_EVENT_CRON_LOOP, cron),
        (raw::REDISMODULE_EVENT_LOADING, loaded),
    ] {
        let event = raw::RedisModuleEvent { id, dataver: 1 };
        api!(RedisModule_SubscribeToServerEvent(ctx, event, Some(heard)));
    }
}

type EventCallback =
    unsafe extern "C" fn(*mut raw::RedisModuleCtx, raw::RedisModuleEvent, u64, *mut c_void);

/// One run of the timer. Returns whether it did all the work that there was.
fn run(ctx: *mut raw::RedisModuleCtx) -> bool {
    let is_all = guarded("the timer", || {
        let (now, until) = (now(), Instant::now() + BUDGET);
        let is_due = !is_manual() && timer::is_due(now);
        if waits::is_idle() && !is_due {
            return true;
        }
        let is_primary = has_flag(ctx, raw::REDISMODULE_CTX_FLAGS_MASTER);
        if is_primary && is_refusing(ctx) {
            waiting::send_away_whose_key_moved(ctx);
            return true;
        }
        let is_served = !is_primary || waiting::look(ctx, until);
        (!is_due || look(ctx, is_primary, now, until)) && is_served
    });
    is_all.unwrap_or(true)
}

/// Looks at the keys whose hints are due. Returns whether it looked at all of them.
fn look(ctx: *mut raw::RedisModuleCtx, is_primary: bool, now: Millis, until: Instant) -> bool {
    while let Some((hint, db, name)) = timer::next_hint(now) {
        if db == ANY {
            databases(ctx, db).for_each(|db| timer::remember(hint, db, &name));
            continue;
        }
        KeyRef::with(ctx, db, &name, |key_ref| {
            look_at(key_ref, is_primary, hint, now)
        });
        if Instant::now() >= until {
            return false;
        }
    }
    true
}

/// Ticks the pool at the key to which a hint led, if something is due in it.
fn look_at(key_ref: KeyRef, is_primary: bool, hint: Millis, now: Millis) {
    let key = Key::open_unasked(key_ref).ok();
    let time = key.and_then(|mut key| key.look(hint, is_primary, LEASES_A_TICK));
    // The server refuses it if another node has the slot.
    if let Some(time) = time
        && !key_ref.command(c"LB.TICK", &time.to_string())
    {
        timer::remember(now + RETRY, key_ref.db(), key_ref.bytes());
    }
}

unsafe extern "C" fn cron(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    _: *mut c_void,
) {
    guarded("the clock on the wall", || {
        if timer::keep_going(ctx) {
            timer::look_at_all();
        }
    });
}

/// Clients may wait for a pool that was loaded, and the pool may come from a host with another clock.
unsafe extern "C" fn loaded(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    stage: u64,
    _: *mut c_void,
) {
    if stage == raw::REDISMODULE_SUBEVENT_LOADING_ENDED {
        guarded("the end of loading", || {
            timer::look_at_all();
            waits::look_at_all();
        });
    }
}

unsafe extern "C" fn key_event(
    ctx: *mut raw::RedisModuleCtx,
    _: c_int,
    event: *const c_char,
    name: *mut raw::RedisModuleString,
) -> c_int {
    guarded("an event", || {
        // SAFETY: the server passes a C string.
        let event = unsafe { std::ffi::CStr::from_ptr(event) }.to_bytes();
        let key_ref = KeyRef { ctx, name };
        let at = |db| (db, key_ref.bytes().into());
        let is_one_of = |events: &[&[u8]]| events.contains(&event);
        if is_one_of(&[b"rename_from", b"move_from"]) {
            return LEAVING.set(Some(at(key_ref.db())));
        }
        if !is_one_of(&[b"rename_to", b"move_to", b"copy_to", b"restore"]) {
            return;
        }
        let is_database_known = tells_databases() || is_one_of(&[b"rename_to", b"restore"]);
        let db = if is_database_known { key_ref.db() } else { ANY };
        for db in databases(ctx, db) {
            KeyRef::with(ctx, db, key_ref.bytes(), |key_ref| {
                if let Ok(mut key) = Key::open_unasked(key_ref) {
                    key.arrived();
                }
            });
        }
        waits::look_later(at(db));
        if let Some(from) = LEAVING.take()
            && is_one_of(&[b"rename_to", b"move_to"])
        {
            waits::moved(from, at(db));
        }
    });
    raw::REDISMODULE_OK as c_int
}

unsafe extern "C" fn role_changed(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    role: u64,
    _: *mut c_void,
) {
    sources::forget();
    match role {
        raw::REDISMODULE_EVENT_REPLROLECHANGED_NOW_MASTER => {
            clock::begin_term();
            guarded("a promotion", timer::look_at_all);
        }
        _ => _ = guarded("a demotion", || waiting::send_all_away(ctx)),
    }
}

unsafe extern "C" fn databases_swapped(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    data: *mut c_void,
) {
    guarded("SWAPDB", || {
        // SAFETY: the data of this event has that type.
        let swapped = unsafe { &*data.cast::<raw::RedisModuleSwapDbInfo>() };
        let (a, b) = (swapped.dbnum_first, swapped.dbnum_second);
        timer::swap(a, b);
        waits::swapped(a, b);
    });
}
