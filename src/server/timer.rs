//! The timer of the module, and the hints that it follows (see [`Hints`]).
//!
//! It fires every [`PERIOD_MS`]. It fires sooner if a client waits for something that is due sooner, and after [`REST_MS`] if a
//! run could not do all its work. `events.rs` defines the work of a run.

use std::cell::{Cell, RefCell};
use std::os::raw::{c_int, c_void};
use std::ptr::null_mut;

use redis_module::raw;

use super::clock::now;
use super::hints::{Hint, Hints, horizon};
use crate::lb::Millis;

/// The time between two runs. Together with the step of the clocks, anything that is due is done within 100 ms.
const PERIOD_MS: Millis = 50;
/// The time before the next run, after a run that could not do all its work.
const REST_MS: Millis = 1;
/// If the timer is later than this, the process stood still (SIGSTOP, a virtual machine that was moved). It may not have read yet
/// that it is no longer the primary, or that its replicas are gone. So it skips one run.
const STANDSTILL_MS: Millis = 500;

/// A run of the timer. It returns whether it did all its work.
pub type Run = fn(*mut raw::RedisModuleCtx) -> bool;

thread_local! {
    // Only the main thread has a timer and hints.
    static HINTS: RefCell<Hints> = const { RefCell::new(Hints::new()) };
    static TIMER: Cell<Option<Timer>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Timer {
    id: raw::RedisModuleTimerID,
    run: Run,
    armed: Millis,
    fires: Millis,
    /// Whether the run before was skipped. Two runs in a row are never skipped, because a server may be that slow all the time.
    has_just_skipped: bool,
}

/// Starts the timer.
pub fn start(ctx: *mut raw::RedisModuleCtx, run: Run) {
    arm(ctx, run, now(), PERIOD_MS, false);
}

/// Adds a hint: something will be due at that key.
pub fn remember(time: Millis, db: c_int, key: &[u8]) {
    HINTS.with_borrow_mut(|hints| hints.add(time, db, key));
}

/// Makes the timer fire at that time at the latest, because a client waits for something that is due then.
pub fn wake(ctx: *mut raw::RedisModuleCtx, time: Millis) {
    let now = now();
    if time > horizon(now) {
        // A hint comes before that time. When it is followed, this is called again.
        return;
    }
    let time = time.max(now + 1);
    HINTS.with_borrow_mut(|hints| hints.await_at(time));
    // There is no `TIMER` while it fires: the server frees a timer that fires, and to stop it then would free it twice. The end
    // of the run arms a new timer, by the awaited moments.
    if let Some(timer) = TIMER.get().filter(|timer| time < timer.fires) {
        api!(RedisModule_StopTimer(ctx, timer.id, null_mut()));
        arm(ctx, timer.run, now, time - now, timer.has_just_skipped);
    }
}

/// Whether the time of any hint has come.
pub fn is_due(now: Millis) -> bool {
    HINTS.with_borrow(|hints| hints.is_due(now))
}

/// The next hint whose time has come.
pub fn next_hint(now: Millis) -> Option<Hint> {
    HINTS.with_borrow_mut(|hints| hints.pop(now))
}

/// Makes every hint due at once, because the time of the pools may have changed.
pub fn look_at_all() {
    HINTS.with_borrow_mut(Hints::look_at_all);
}

/// Follows a SWAPDB: the keys of two databases have changed places.
pub fn swap(a: c_int, b: c_int) {
    HINTS.with_borrow_mut(|hints| hints.swap(a, b));
}

/// Arms the timer anew if the system's clock was put back, and returns whether it was. The server's timers follow that clock: if
/// it is put back by an hour, they stand still for an hour. So the server's cron loop calls this.
pub fn keep_going(ctx: *mut raw::RedisModuleCtx) -> bool {
    let now = now();
    let Some(timer) = TIMER.get().filter(|timer| now < timer.armed) else {
        return false;
    };
    api!(RedisModule_StopTimer(ctx, timer.id, null_mut()));
    arm(ctx, timer.run, now, REST_MS, false);
    true
}

fn arm(
    ctx: *mut raw::RedisModuleCtx,
    run: Run,
    now: Millis,
    millis: Millis,
    has_just_skipped: bool,
) {
    let none = null_mut();
    let id = api!(RedisModule_CreateTimer(
        ctx,
        millis as i64,
        Some(fire),
        none
    ));
    TIMER.set(Some(Timer {
        id,
        run,
        armed: now,
        fires: now + millis,
        has_just_skipped,
    }));
}

unsafe extern "C" fn fire(ctx: *mut raw::RedisModuleCtx, _: *mut c_void) {
    let Some(timer) = TIMER.take() else {
        return;
    };
    let is_late = now() > timer.fires + STANDSTILL_MS;
    if is_late && !timer.has_just_skipped {
        return arm(ctx, timer.run, now(), PERIOD_MS, true);
    }
    let is_all = (timer.run)(ctx);
    let now = now();
    let awaited = HINTS.with_borrow_mut(|hints| hints.awaited(now));
    let awaited = awaited.map_or(PERIOD_MS, |time| time - now);
    let millis = if is_all {
        awaited.min(PERIOD_MS)
    } else {
        REST_MS
    };
    arm(ctx, timer.run, now, millis, false);
}
