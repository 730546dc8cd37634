//! The clients of this process that wait, and where.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::raw::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis_module::raw;

use super::grants::{Grants, Move};
use super::key_ref::KeyRef;
use super::queue::{Asked, At, Queues};

/// A client that is held by the server until it is told to answer it.
pub type Client = *mut raw::RedisModuleBlockedClient;

/// A client that waits.
pub struct Waiter {
    pub client: Client,
    pub asked: Asked,
    /// What it asked for as it goes into the stream, behind the key.
    pub words: Vec<Vec<u8>>,
    pub is_array: bool,
    /// Ends the wait.
    pub timer: Option<raw::RedisModuleTimerID>,
}

/// All that this process knows of its waiters.
#[derive(Default)]
pub struct Waits {
    pub queues: Queues<Client, Waiter>,
    /// Keys at which something may have come in another way than by a command of ours.
    pub to_look_at: BTreeSet<At>,
    /// Where the looks at a few keys at a time go on.
    pub in_turn: Option<At>,
    /// Where the looks at all keys go on, on a server that tells nothing.
    pub unheard: Option<At>,
    pub grants: Grants,
}

thread_local! {
    // Only the main thread has any.
    static WAITS: RefCell<Waits> = RefCell::default();
}

/// How many wait. Beside the queues, because a static costs a command next to nothing, and a thread's own a call.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Whether anybody waits, anywhere.
#[inline(always)]
pub fn is_any() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// Whether anybody waits for what is at that key, or for the key.
pub fn is_any_at(key_ref: KeyRef) -> bool {
    is_any() && with(|waits| waits.queues.is_any_at(&at(key_ref)))
}

/// The key as the queues name it.
pub fn at(key_ref: KeyRef) -> At {
    (key_ref.db(), key_ref.bytes().into())
}

/// Runs with all waits. Nothing that it does may call the server, which may call back.
pub fn with<T>(run: impl FnOnce(&mut Waits) -> T) -> T {
    WAITS.with_borrow_mut(|waits| {
        let result = run(waits);
        WAITING.store(waits.queues.len(), Ordering::Relaxed);
        result
    })
}

/// Something may have come to that key in another way than by a command of ours.
pub fn look_later(at: At) {
    if is_any() {
        with(|waits| waits.to_look_at.insert(at));
    }
}

/// Something may have come to any key.
pub fn look_at_all() {
    with(|waits| waits.to_look_at.extend(waits.queues.keys(None).cloned()));
}

/// The pool at the one key is at the other now.
pub fn moved(from: At, to: At) {
    with(|waits| waits.grants.moved(Move::Key(from, to)));
}

/// The keys of two databases have changed places.
pub fn swapped(a: c_int, b: c_int) {
    with(|waits| waits.grants.moved(Move::Databases(a, b)));
    look_at_all();
}

/// Whether nothing is left to be done for waiters, or for what they were granted.
pub fn is_idle() -> bool {
    !is_any() && with(|waits| !waits.grants.is_any_to_end())
}
