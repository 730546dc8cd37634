//! The server's time, and the list of the pools in which something is due.
//!
//! A value does not know its key, so the list holds hints: look at that key at that time. A hint is checked when its time has come; it may be
//! wrong, but there is one for each pool in which something is due, on replicas too, for the day on which they are primaries.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::raw::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis_module::raw;

use super::guard::guarded;
use super::key::Key;
use super::place::{Place, has_flag};
use super::waiting;
use crate::lb::Millis;

/// Whether nobody ticks but LB.TICK, with any time: the load argument `clock manual`, for tests.
static IS_MANUAL: AtomicBool = AtomicBool::new(false);

static IS_LISTENING: AtomicBool = AtomicBool::new(false);

/// Whether the server is one that must not be listened to.
static IS_DEAF: AtomicBool = AtomicBool::new(false);

/// How often this process has become a primary: a mark by which a pool knows whether its epoch is of now.
static TERM: AtomicU64 = AtomicU64::new(1);

/// Between two looks at the list. With the step of the clocks what is due is done within 100 ms.
const PERIOD_MS: i64 = 50;
/// So long it works in one go, or for a single tick,
const GO: Duration = Duration::from_millis(2);
/// which ends so many leases at most, unless more have one deadline;
const LEASES_A_TICK: usize = 1000;
/// where there is more to do, it goes on after so long.
const REST_MS: i64 = 1;
/// No hint is for a time farther away, so those of pools that are gone do not pile up.
const HORIZON: Millis = 60_000;
/// Where the server refuses a tick, as where the slot is another node's, it is tried again after so long.
const RETRY: Millis = 1000;
/// The time of a hint that is of use in any case.
pub const AT_ONCE: Millis = 0;
/// Whichever databases there are.
const ANY: c_int = -1;

type Hint = (Millis, c_int, Box<[u8]>);

/// When the timer fired last, and which it is.
static FIRED: AtomicU64 = AtomicU64::new(0);
static TIMER: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Only the main thread has any.
    static HINTS: RefCell<BTreeSet<Hint>> = const { RefCell::new(BTreeSet::new()) };
}

/// Nobody ticks from now on but LB.TICK.
pub fn be_manual() {
    IS_MANUAL.store(true, Ordering::Relaxed);
}

/// Whether nobody ticks but LB.TICK.
pub fn is_manual() -> bool {
    IS_MANUAL.load(Ordering::Relaxed)
}

/// The mark of the present time as a primary.
pub fn term() -> u64 {
    TERM.load(Ordering::Relaxed)
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

/// The latest time that a hint can be for. In whole seconds, so that a pool that comes and goes has 60 at most.
pub fn horizon() -> Millis {
    (now() + HORIZON).next_multiple_of(1000)
}

/// Hears from now on of what brings pools to other keys. Not before anything is due or anybody waits: each event of the server
/// costs 40 instructions more when a module listens.
pub fn listen(ctx: *mut raw::RedisModuleCtx) {
    if !IS_LISTENING.swap(true, Ordering::Relaxed) {
        if lets_clients_go_astray(ctx) {
            IS_DEAF.store(true, Ordering::Relaxed);
            return;
        }
        let generic = raw::REDISMODULE_NOTIFY_GENERIC;
        api!(RedisModule_SubscribeToKeyspaceEvents(
            ctx,
            generic,
            Some(event)
        ));
    }
}

/// Whether nothing is heard of pools that come to other keys: then each command that writes to one notes what is due there.
pub fn is_deaf() -> bool {
    IS_DEAF.load(Ordering::Relaxed)
}

/// Whether the server is one that, where any module listens, leaves a client behind MOVE and COPY in the database that these
/// wrote to: Valkey 8.1 and 9.0 (its issue 4024; 9.1.2 does not).
fn lets_clients_go_astray(ctx: *mut raw::RedisModuleCtx) -> bool {
    let info = api!(RedisModule_GetServerInfo(ctx, c"server".as_ptr()));
    let version = api!(RedisModule_ServerInfoGetFieldC(
        info,
        c"valkey_version".as_ptr()
    ));
    let is_astray = !version.is_null() && {
        // SAFETY: the server hands a text, which lives as long as the information.
        let version = unsafe { std::ffi::CStr::from_ptr(version) }.to_string_lossy();
        let numbers: Vec<u32> = (version.split('.')).map_while(|n| n.parse().ok()).collect();
        (vec![8, 1]..vec![9, 1, 2]).contains(&numbers)
    };
    api!(RedisModule_FreeServerInfo(ctx, info));
    is_astray
}

/// Something will be due at that key.
pub fn remember(time: Millis, db: c_int, key: &[u8]) {
    HINTS.with_borrow_mut(|hints| hints.insert((time, db, key.into())));
}

/// Something may be due at the key that is being loaded. What time it is there is seen later: by now it may be a replica's.
pub fn remember_loaded(io: *mut raw::RedisModuleIO) {
    let name = api!(RedisModule_GetKeyNameFromIO(io));
    if name.is_null() || is_manual() {
        return;
    }
    listen(api!(RedisModule_GetContextFromIO(io)));
    // SAFETY: as every call of the API. 6.2 does not tell the database.
    let db = unsafe { raw::RedisModule_GetDbIdFromIO }.map_or(ANY, |db| unsafe { db(io) });
    remember(AT_ONCE, db, super::place::bytes(name));
}

/// Starts the timer, and hears of what concerns all pools.
pub fn start(ctx: *mut raw::RedisModuleCtx) {
    arm(ctx, PERIOD_MS);
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

fn arm(ctx: *mut raw::RedisModuleCtx, millis: i64) {
    let timer = api!(RedisModule_CreateTimer(
        ctx,
        millis,
        Some(fire),
        ptr::null_mut()
    ));
    TIMER.store(timer, Ordering::Relaxed);
    FIRED.store(now(), Ordering::Relaxed);
}

unsafe extern "C" fn fire(ctx: *mut raw::RedisModuleCtx, _: *mut c_void) {
    let is_all = guarded("the timer", || {
        // During a pause, as before a failover, nothing may go to the replicas: a server ends by an assertion.
        if api!(RedisModule_AvoidReplicaTraffic()) != 0 {
            return true;
        }
        waiting::look(ctx);
        look(ctx)
    });
    let is_all = is_all.unwrap_or(true);
    arm(ctx, if is_all { PERIOD_MS } else { REST_MS });
}

/// Looks at the keys whose time has come; says whether it got to the end.
fn look(ctx: *mut raw::RedisModuleCtx) -> bool {
    if is_manual() || HINTS.with_borrow(|hints| hints.is_empty()) {
        return true;
    }
    let now = now();
    let begun = Instant::now();
    let is_primary = has_flag(ctx, raw::REDISMODULE_CTX_FLAGS_MASTER);
    while begun.elapsed() < GO {
        let first = HINTS.with_borrow_mut(|hints| match hints.first() {
            Some((time, _, _)) if *time <= now => hints.pop_first(),
            _ => None,
        });
        let Some((hint, db, name)) = first else {
            return true;
        };
        if db == ANY {
            let dbs = (0..).take_while(|db| Place::with(ctx, *db, &name, |_| ()).is_some());
            dbs.for_each(|db| remember(hint, db, &name));
            continue;
        }
        Place::with(ctx, db, &name, |place| {
            let key = Key::open_unasked(place).ok();
            let time = key.and_then(|mut key| key.look(hint, is_primary, LEASES_A_TICK));
            // The server refuses where the slot is another node's.
            if let Some(time) = time
                && !place.command(c"LB.TICK", &time.to_string())
            {
                remember(now + RETRY, db, &name);
            }
        });
    }
    false
}

/// All pools are to be looked at, because it may be another time for them.
fn look_at_all() {
    HINTS.with_borrow_mut(|hints| {
        let all = std::mem::take(hints).into_iter();
        hints.extend(all.map(|(_, db, key)| (AT_ONCE, db, key)));
    });
}

/// The server's own timers go by the clock on the wall: where that was put back by an hour they stand still for an hour.
unsafe extern "C" fn cron(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    _: *mut c_void,
) {
    guarded("the clock on the wall", || {
        if now() < FIRED.load(Ordering::Relaxed) {
            api!(RedisModule_StopTimer(
                ctx,
                TIMER.load(Ordering::Relaxed),
                ptr::null_mut()
            ));
            look_at_all();
            arm(ctx, REST_MS);
        }
    });
}

/// What was loaded may be what clients wait for, and of a host with another clock.
unsafe extern "C" fn loaded(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    stage: u64,
    _: *mut c_void,
) {
    if stage == raw::REDISMODULE_SUBEVENT_LOADING_ENDED {
        guarded("the end of loading", || {
            look_at_all();
            waiting::look_at_all();
        });
    }
}

unsafe extern "C" fn event(
    ctx: *mut raw::RedisModuleCtx,
    _: c_int,
    event: *const std::os::raw::c_char,
    name: *mut raw::RedisModuleString,
) -> c_int {
    guarded("an event", || {
        // SAFETY: the server hands a text.
        let event = unsafe { std::ffi::CStr::from_ptr(event) }.to_bytes();
        if [&b"rename_to"[..], b"move_to", b"copy_to", b"restore"].contains(&event) {
            let place = Place { ctx, name };
            if let Ok(mut key) = Key::open_unasked(place) {
                key.arrived();
            }
            waiting::look_later(place.db(), place.bytes());
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
    match role {
        raw::REDISMODULE_EVENT_REPLROLECHANGED_NOW_MASTER => {
            TERM.fetch_add(1, Ordering::Relaxed);
            guarded("a promotion", look_at_all);
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
        // SAFETY: this event comes with that.
        let swapped = unsafe { &*data.cast::<raw::RedisModuleSwapDbInfo>() };
        let (a, b) = (swapped.dbnum_first, swapped.dbnum_second);
        HINTS.with_borrow_mut(|hints| {
            let all = std::mem::take(hints).into_iter();
            hints.extend(all.map(|(time, db, key)| match db {
                db if db == a => (time, b, key),
                db if db == b => (time, a, key),
                _ => (time, db, key),
            }));
        });
        waiting::look_at_all();
    });
}
