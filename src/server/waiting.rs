//! Clients that wait for a backend (`LB.PICK … BLOCK`), first come first served.
//!
//! They are no part of a pool: they are this process's own, in a queue for each key. The one invariant: when a command is done, nobody waits who could be served. So a newcomer
//! that finds somebody to pick robs nobody.
//!
//! Rejected: the server's own `BlockClientOnKeys`, which asks all waiters of a key at each signal: with 10,000 of them
//! that takes 656 µs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::raw::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use redis_module::raw;

use super::clock;
use super::guard::guarded;
use super::info::PICKS;
use super::key::Key;
use super::place::{Place, has_flag};
use super::reply::Reply;
use crate::commands::arguments::{Wanted, wanted};
use crate::lb::{LeaseId, Millis};

type At = (c_int, Box<[u8]>);
type Client = *mut raw::RedisModuleBlockedClient;

/// A client that waits.
struct Waiter {
    client: Client,
    /// What it wants, as it goes into the stream behind the key.
    words: Vec<Vec<u8>>,
    /// Whom it passes over, in order.
    excluded: Vec<Box<[u8]>>,
}

/// Those who wait at one key, by the order in which they came.
#[derive(Default)]
struct Queue {
    waiters: BTreeMap<u64, Waiter>,
    /// The same by whom they pass over: those of one kind can all be served, or none of them.
    kinds: HashMap<Vec<Box<[u8]>>, BTreeSet<u64>>,
}

#[derive(Default)]
struct Queues {
    queues: HashMap<At, Queue>,
    clients: HashMap<Client, (At, u64)>,
    arrivals: u64,
    /// Keys at which something may have come in another way than by a command of ours.
    to_look_at: BTreeSet<At>,
    /// Leases that were granted to clients who had gone.
    to_end: Vec<(At, LeaseId)>,
}

thread_local! {
    // Only the main thread has any.
    static QUEUES: RefCell<Queues> = RefCell::default();
}

/// How many wait. Beside the queues, because a static costs a command next to nothing, and a thread's own a call.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Whether anybody waits, anywhere.
#[inline(always)]
pub fn is_any() -> bool {
    WAITING.load(Ordering::Relaxed) > 0
}

/// What a waiter was given, on its way to it.
struct Given {
    at: At,
    backends: Vec<Box<[u8]>>,
    lease: Option<LeaseId>,
    is_array: bool,
    is_delivered: bool,
}

impl Queues {
    fn add(&mut self, at: At, waiter: Waiter) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.clients.insert(waiter.client, (at.clone(), arrival));
        let queue = self.queues.entry(at).or_default();
        let kind = queue.kinds.entry(waiter.excluded.clone()).or_default();
        kind.insert(arrival);
        queue.waiters.insert(arrival, waiter);
        WAITING.store(self.clients.len(), Ordering::Relaxed);
    }

    fn remove(&mut self, client: Client) -> Option<Waiter> {
        let (at, arrival) = self.clients.remove(&client)?;
        WAITING.store(self.clients.len(), Ordering::Relaxed);
        let queue = self.queues.get_mut(&at)?;
        let waiter = queue.waiters.remove(&arrival)?;
        if let Some(kind) = queue.kinds.get_mut(&waiter.excluded) {
            kind.remove(&arrival);
            if kind.is_empty() {
                queue.kinds.remove(&waiter.excluded);
            }
        }
        if queue.waiters.is_empty() {
            self.queues.remove(&at);
        }
        Some(waiter)
    }

    /// The first one at that key who can be served, by whom they pass over.
    fn first(&self, at: &At, can_be_served: impl Fn(&[&[u8]]) -> bool) -> Option<Client> {
        let queue = self.queues.get(at)?;
        let heads = queue
            .kinds
            .iter()
            .filter_map(|(kind, all)| Some((*all.first()?, kind)));
        let mut heads: Vec<_> = heads.collect();
        heads.sort_unstable();
        let (arrival, _) = heads.into_iter().find(|(_, kind)| {
            let excluded: Vec<&[u8]> = kind.iter().map(|name| &**name).collect();
            can_be_served(&excluded)
        })?;
        Some(queue.waiters[&arrival].client)
    }
}

/// Lets the client of a command wait, so long at most; 0 = without end.
pub fn wait(place: Place, wanted: &Wanted, millis: Millis) {
    let client = api!(RedisModule_BlockClient(
        place.ctx,
        Some(answer),
        Some(time_out),
        Some(free),
        millis as i64
    ));
    api!(RedisModule_SetDisconnectCallback(
        client,
        Some(disconnected)
    ));
    clock::listen(place.ctx);
    let mut excluded: Vec<Box<[u8]>> = wanted.request.exclude.iter().map(|n| (*n).into()).collect();
    excluded.sort_unstable();
    excluded.dedup();
    let waiter = Waiter {
        client,
        words: wanted.words(),
        excluded,
    };
    QUEUES.with_borrow_mut(|queues| queues.add((place.db(), place.bytes().into()), waiter));
}

/// Serves whoever waits at that key and can be served now.
pub fn serve(key: &mut Key) {
    if !is_any() || key.place().must_obey() {
        return;
    }
    let place = key.place();
    let at: At = (place.db(), place.bytes().into());
    loop {
        let Some(pool) = key.pool().filter(|pool| pool.available() > 0) else {
            return;
        };
        let waiter = QUEUES.with_borrow_mut(|queues| {
            let client = queues.first(&at, |excluded| pool.has_eligible(excluded))?;
            queues.remove(client)
        });
        let Some(waiter) = waiter else {
            return;
        };
        give(key, &at, &waiter);
    }
}

/// Picks for a waiter who can be served.
fn give(key: &mut Key, at: &At, waiter: &Waiter) {
    let words: Vec<&[u8]> = waiter.words.iter().map(|word| &**word).collect();
    let read = wanted(words.iter().copied());
    let Ok(Wanted {
        request, is_array, ..
    }) = read
    else {
        unreachable!("they were read before");
    };
    if request.terms.is_some() {
        key.move_clock();
    }
    key.prepare(&request);
    let Some(pool) = key.pool_mut() else {
        return;
    };
    let picked = pool.picks(&request);
    PICKS.add(picked.slots.len());
    let given = Given {
        at: at.clone(),
        backends: picked
            .slots
            .iter()
            .map(|slot| pool.name(*slot).into())
            .collect(),
        lease: picked.lease,
        is_array,
        is_delivered: false,
    };
    key.place().replicate(c"LB.PICK", &words);
    key.place().touched();
    let given = Box::into_raw(Box::new(given));
    api!(RedisModule_UnblockClient(waiter.client, given.cast()));
}

/// Something may have come to that key in another way than by a command of ours.
pub fn look_later(db: c_int, key: &[u8]) {
    if is_any() {
        QUEUES.with_borrow_mut(|queues| queues.to_look_at.insert((db, key.into())));
    }
}

/// Something may have come to all keys of that database.
pub fn look_at_database(db: c_int) {
    QUEUES.with_borrow_mut(|queues| {
        let keys = queues.queues.keys().filter(|at| at.0 == db).cloned();
        let keys: Vec<At> = keys.collect();
        queues.to_look_at.extend(keys);
    });
}

/// Looks at those keys, on a primary; and ends the leases that reached nobody.
pub fn look(ctx: *mut raw::RedisModuleCtx) {
    let (to_look_at, to_end) = QUEUES.with_borrow_mut(|queues| {
        let to_look_at = std::mem::take(&mut queues.to_look_at);
        (to_look_at, std::mem::take(&mut queues.to_end))
    });
    if to_look_at.is_empty() && to_end.is_empty() {
        return;
    }
    if !has_flag(ctx, raw::REDISMODULE_CTX_FLAGS_MASTER) {
        return;
    }
    for (db, name) in to_look_at {
        Place::with(ctx, db, &name, |place| {
            if let Ok(mut key) = Key::open_to_write(place) {
                serve(&mut key);
            }
        });
    }
    for ((db, name), id) in to_end {
        Place::with(ctx, db, &name, |place| {
            place.command(c"LB.DONE", &id.to_string())
        });
    }
}

/// The server calls it to answer a client that was unblocked.
unsafe extern "C" fn answer(
    ctx: *mut raw::RedisModuleCtx,
    _: *mut *mut raw::RedisModuleString,
    _: c_int,
) -> c_int {
    guarded("answering who waited", || {
        let given = api!(RedisModule_GetBlockedClientPrivateData(ctx)).cast::<Given>();
        // SAFETY: `give` made it, and `free` will free it.
        if let Some(given) = unsafe { given.as_mut() } {
            given.is_delivered = true;
            let names = given.backends.iter().map(|name| &**name);
            Reply::to(ctx).given(names, given.lease, given.is_array);
        }
    });
    raw::REDISMODULE_OK as c_int
}

/// The server calls it when a client has waited long enough.
unsafe extern "C" fn time_out(
    ctx: *mut raw::RedisModuleCtx,
    _: *mut *mut raw::RedisModuleString,
    _: c_int,
) -> c_int {
    guarded("a wait that timed out", || {
        let client = api!(RedisModule_GetBlockedClientHandle(ctx));
        let waiter = QUEUES.with_borrow_mut(|queues| queues.remove(client));
        let is_array = waiter.as_ref().is_some_and(|w| {
            wanted(w.words.iter().map(|word| &**word)).is_ok_and(|wanted| wanted.is_array)
        });
        Reply::to(ctx).given(std::iter::empty(), None, is_array);
        if waiter.is_some() {
            api!(RedisModule_UnblockClient(client, std::ptr::null_mut()));
        }
    });
    raw::REDISMODULE_OK as c_int
}

/// The server calls it when a client that waits is gone, or was unblocked by somebody else.
unsafe extern "C" fn disconnected(_: *mut raw::RedisModuleCtx, client: Client) {
    guarded("a client that waited and is gone", || {
        let waiter = QUEUES.with_borrow_mut(|queues| queues.remove(client));
        if waiter.is_some() {
            api!(RedisModule_UnblockClient(client, std::ptr::null_mut()));
        }
    });
}

/// The server calls it when it is done with what a client was given.
unsafe extern "C" fn free(_: *mut raw::RedisModuleCtx, given: *mut c_void) {
    guarded("what a waiter was given", || {
        if given.is_null() {
            return;
        }
        // SAFETY: `give` made it, and it is freed once.
        let given = unsafe { Box::from_raw(given.cast::<Given>()) };
        if let Some(first) = given.lease.filter(|_| !given.is_delivered) {
            let ids = (0..given.backends.len() as u64).map(|place| LeaseId {
                number: first.number + place,
                ..first
            });
            let ended = ids.map(|id| (given.at.clone(), id));
            QUEUES.with_borrow_mut(|queues| queues.to_end.extend(ended));
        }
    });
}
