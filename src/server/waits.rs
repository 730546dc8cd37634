//! The clients of this process that wait, and the keys at which they wait.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::raw::c_int;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redis_module::raw;

use super::grants::{Grants, Move};
use super::key_ref::KeyRef;
use super::queue::{Asked, At, Queues};
use crate::lb::Millis;

/// A client that the server blocks until the module unblocks it.
pub type Client = *mut raw::RedisModuleBlockedClient;

/// A client that waits, and its request.
pub struct Waiter {
    pub client: Client,
    pub asked: Asked,
    /// The arguments behind the key with which its pick is replicated.
    pub words: Vec<Vec<u8>>,
    pub is_array: bool,
    /// The timer that ends the wait.
    pub timer: Option<raw::RedisModuleTimerID>,
    /// The beginning of the wait.
    pub since: Instant,
}

impl Waiter {
    /// Stops the timer that ends the wait. The server frees a timer that fires: it must not be stopped.
    pub fn stop_timer(&self, ctx: *mut raw::RedisModuleCtx) {
        if let Some(timer) = self.timer {
            api!(RedisModule_StopTimer(ctx, timer, null_mut()));
        }
    }
}

/// The state of all waits.
#[derive(Default)]
pub struct Waits {
    pub queues: Queues<Client, Waiter>,
    /// Keys to which a pool may have come without a command of ours.
    pub to_look_at: BTreeSet<At>,
    /// The last key that was looked at in turn, a few keys in each run. The next run continues after it.
    pub in_turn: Option<At>,
    /// The same for the looks at all keys, on a server to which the module cannot listen.
    pub unheard: Option<At>,
    pub grants: Grants,
    /// When the costs come back that waiters lack, for each key where some do, by the server's clock.
    pub costs: Due,
}

/// Keys at which something is due, each with a time.
#[derive(Default)]
pub struct Due {
    times: BTreeMap<At, Millis>,
    in_order: BTreeSet<(Millis, At)>,
}

impl Due {
    /// Something is due at that key, then or earlier.
    pub fn add(&mut self, at: At, time: Millis) {
        let known = self.times.get(&at).copied();
        if known.is_none_or(|known| time < known) {
            self.remove(&at);
            self.times.insert(at.clone(), time);
            self.in_order.insert((time, at));
        }
    }

    fn remove(&mut self, at: &At) {
        if let Some((at, time)) = self.times.remove_entry(at) {
            self.in_order.remove(&(time, at));
        }
    }

    /// Takes out the first key whose time has come.
    pub fn pop(&mut self, now: Millis) -> Option<At> {
        let (time, _) = self.in_order.first()?;
        let (_, at) = (*time <= now).then(|| self.in_order.pop_first())??;
        self.times.remove(&at);
        Some(at)
    }
}

thread_local! {
    // Only the main thread has waits.
    static WAITS: RefCell<Waits> = RefCell::default();
}

/// The number of clients that wait. It is kept beside the queues because reading a static costs a command almost nothing, and
/// reading a thread-local costs a call.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Whether a client waits at any key.
#[inline(always)]
pub fn is_any() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// Whether a client waits at that key.
pub fn is_any_at(key_ref: KeyRef) -> bool {
    is_any() && with(|waits| waits.queues.is_any_at(&at(key_ref)))
}

/// The number of clients that wait at that key, and the length of the oldest wait.
pub fn standing(key_ref: KeyRef) -> (usize, Duration) {
    if !is_any() {
        return (0, Duration::ZERO);
    }
    with(|waits| {
        let standing = waits.queues.standing(&at(key_ref));
        standing.map_or((0, Duration::ZERO), |(waiting, oldest)| {
            (waiting, oldest.since.elapsed())
        })
    })
}

/// The key in the form that the queues use.
pub fn at(key_ref: KeyRef) -> At {
    (key_ref.db(), key_ref.bytes().into())
}

/// Runs `run` with the state of all waits. `run` must not call the server, because the server may call back.
pub fn with<T>(run: impl FnOnce(&mut Waits) -> T) -> T {
    WAITS.with_borrow_mut(|waits| {
        let result = run(waits);
        WAITING.store(waits.queues.len(), Ordering::Relaxed);
        result
    })
}

/// Makes the timer look at that key: a pool may have come to it without a command of ours.
pub fn look_later(at: At) {
    if is_any() {
        with(|waits| waits.to_look_at.insert(at));
    }
}

/// Makes the timer look at every key at which a client waits: a pool may have come to any of them.
pub fn look_at_all() {
    with(|waits| waits.to_look_at.extend(waits.queues.keys(None).cloned()));
}

/// Notes that the pool at key `from` is at key `to` now.
pub fn moved(from: At, to: At) {
    with(|waits| waits.grants.moved(Move::Key(from, to)));
}

/// Follows a SWAPDB: the keys of two databases have changed places.
pub fn swapped(a: c_int, b: c_int) {
    with(|waits| waits.grants.moved(Move::Databases(a, b)));
    look_at_all();
}

/// Whether no client waits, and no lease of a client that is gone must be ended.
pub fn is_idle() -> bool {
    !is_any() && with(|waits| !waits.grants.is_any_to_end())
}
