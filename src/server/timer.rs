//! The timer of the module, and the list of what it is to look at (see [`Hints`]).
//!
//! It fires every [`PERIOD_MS`]; sooner where somebody waits for what is due sooner; and after [`REST_MS`] where one run could
//! not do all. What it does, `events.rs` says.

use std::cell::{Cell, RefCell};
use std::os::raw::{c_int, c_void};
use std::ptr::null_mut;

use redis_module::raw;

use super::clock::now;
use super::hints::{Hint, Hints, horizon};
use crate::lb::Millis;

/// Between two looks at the list. With the step of the clocks what is due is done within 100 ms.
const PERIOD_MS: Millis = 50;
/// Before the next run where one could not do all.
const REST_MS: Millis = 1;
/// A process whose timer is late by more stood still (SIGSTOP, a virtual machine that was moved). What it has not read yet may
/// be the news that it is no longer the primary, or that its replicas are gone: so one run is left out.
const STANDSTILL_MS: Millis = 500;

/// What the timer does; says whether it did all.
pub type Run = fn(*mut raw::RedisModuleCtx) -> bool;

thread_local! {
    // Only the main thread has a timer, and what it looks at.
    static HINTS: RefCell<Hints> = const { RefCell::new(Hints::new()) };
    static TIMER: Cell<Option<Timer>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Timer {
    id: raw::RedisModuleTimerID,
    run: Run,
    armed: Millis,
    fires: Millis,
    /// Whether the run before was left out. Never two in a row: a server may be that slow all the time.
    is_behind_one_left_out: bool,
}

/// Starts it.
pub fn start(ctx: *mut raw::RedisModuleCtx, run: Run) {
    arm(ctx, run, now(), PERIOD_MS, false);
}

/// Something will be due at that key.
pub fn remember(time: Millis, db: c_int, key: &[u8]) {
    HINTS.with_borrow_mut(|hints| hints.add(time, db, key));
}

/// Somebody waits for what will be due then: the timer fires at that time, if not before.
pub fn wake(ctx: *mut raw::RedisModuleCtx, time: Millis) {
    let now = now();
    if time > horizon(now) {
        // Before that there is a hint, behind which it is asked again.
        return;
    }
    let time = time.max(now + 1);
    HINTS.with_borrow_mut(|hints| hints.await_at(time));
    // None while it fires: the server itself ends the timer that fires, and to stop it there would free it twice. At the end
    // of the run the timer is armed anew.
    if let Some(timer) = TIMER.get().filter(|timer| time < timer.fires) {
        api!(RedisModule_StopTimer(ctx, timer.id, null_mut()));
        arm(
            ctx,
            timer.run,
            now,
            time - now,
            timer.is_behind_one_left_out,
        );
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

/// Every pool is to be looked at, because it may be another time for it.
pub fn look_at_all() {
    HINTS.with_borrow_mut(Hints::look_at_all);
}

/// The keys of two databases have changed places.
pub fn swap(a: c_int, b: c_int) {
    HINTS.with_borrow_mut(|hints| hints.swap(a, b));
}

/// The server's own timers go by the clock on the wall: where that was put back by an hour they stand still for an hour. So this
/// is called from time to time; says whether the clock was put back.
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
    is_behind_one_left_out: bool,
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
        is_behind_one_left_out,
    }));
}

unsafe extern "C" fn fire(ctx: *mut raw::RedisModuleCtx, _: *mut c_void) {
    let Some(timer) = TIMER.take() else {
        return;
    };
    let is_late = now() > timer.fires + STANDSTILL_MS;
    if is_late && !timer.is_behind_one_left_out {
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
