//! Clients that wait for a backend (`LB.PICK … BLOCK`), first come first served.
//!
//! They are no part of a pool: they are this process's own, in a queue for each key. The one invariant: when a command of ours
//! begins on a key, and when it is done, nobody waits there who could be served. So a newcomer that finds somebody to pick
//! robs nobody.
//!
//! Rejected: the server's own `BlockClientOnKeys`, which asks all waiters of a key at each signal: with 10,000 of them
//! that takes 656 µs. And the server's own deadlines: up to 7.0 a client that was served and then, before the reply, had its
//! deadline, gets no answer at all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::os::raw::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

use redis_module::raw;

use super::clock;
use super::guard::guarded;
use super::info::PICKS;
use super::key::Key;
use super::place::{Place, has_flag};
use super::reply::Reply;
use crate::commands::Error;
use crate::commands::arguments::{Wanted, wanted};
use crate::lb::{LeaseId, Millis, Pool};

type At = (c_int, Box<[u8]>);
type Client = *mut raw::RedisModuleBlockedClient;
type Ctx = *mut raw::RedisModuleCtx;

/// So many queues are looked at in one go, in turn.
const QUEUES_A_GO: usize = 20;

/// Names of backends, in order.
type Names = Box<[Box<[u8]>]>;

/// A client that waits.
struct Waiter {
    client: Client,
    /// What it wants, as it goes into the stream behind the key.
    words: Vec<Vec<u8>>,
    is_array: bool,
    /// Whom it passes over, in order.
    excluded: Names,
    /// Ends the wait.
    timer: Option<raw::RedisModuleTimerID>,
}

/// Those who wait at one key, by the order in which they came.
#[derive(Default)]
struct Queue {
    waiters: BTreeMap<u64, Waiter>,
    /// The same by whom they pass over: those of one kind can all be served, or none of them.
    kinds: HashMap<Names, BTreeSet<u64>>,
    /// The first one of each kind.
    heads: BTreeSet<u64>,
    /// How many kinds pass over that backend.
    shunned: HashMap<Box<[u8]>, usize>,
}

#[derive(Default)]
struct Queues {
    queues: BTreeMap<At, Queue>,
    clients: HashMap<Client, (At, u64)>,
    arrivals: u64,
    /// Keys at which something may have come in another way than by a command of ours.
    to_look_at: BTreeSet<At>,
    /// Leases that were granted to clients who had gone.
    to_end: Vec<(At, LeaseId)>,
    /// Up to where it was looked in turn.
    looked: Option<At>,
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

/// How a wait ends, on its way to the client.
enum Outcome {
    Given {
        at: At,
        backends: Vec<Box<[u8]>>,
        lease: Option<LeaseId>,
        is_array: bool,
        is_delivered: bool,
    },
    Nothing {
        is_array: bool,
    },
    /// With this error.
    Refused(String),
}

impl Outcome {
    fn fault() -> Outcome {
        Outcome::Refused(Error::bug().message().into())
    }
}

impl Queue {
    fn add(&mut self, arrival: u64, waiter: Waiter) {
        match self.kinds.get_mut(&waiter.excluded) {
            Some(kind) => _ = kind.insert(arrival),
            None => {
                for name in &waiter.excluded {
                    *self.shunned.entry(name.clone()).or_default() += 1;
                }
                let kind = BTreeSet::from([arrival]);
                self.kinds.insert(waiter.excluded.clone(), kind);
                self.heads.insert(arrival);
            }
        }
        self.waiters.insert(arrival, waiter);
    }

    fn remove(&mut self, arrival: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&arrival)?;
        let kind = self.kinds.get_mut(&waiter.excluded)?;
        kind.remove(&arrival);
        if self.heads.remove(&arrival) {
            match kind.first() {
                Some(next) => _ = self.heads.insert(*next),
                None => {
                    self.kinds.remove(&waiter.excluded);
                    for name in &waiter.excluded {
                        match self.shunned.get_mut(name) {
                            Some(kinds) if *kinds > 1 => *kinds -= 1,
                            _ => _ = self.shunned.remove(name),
                        }
                    }
                }
            }
        }
        Some(waiter)
    }

    /// The first one who can be served.
    fn first(&self, pool: &Pool) -> Option<&Waiter> {
        let available = pool.available();
        if available == 0 {
            return None;
        }
        // With as many kinds as waiters a look at each of them would cost too much at each command; whether all pass over all
        // that is there costs no more than the longest of their lists.
        let is_shunned = |name: &[u8]| self.shunned.get(name) == Some(&self.kinds.len());
        if available <= self.shunned.len() && pool.eligible().all(is_shunned) {
            return None;
        }
        let waiters = self.heads.iter().map(|head| &self.waiters[head]);
        let mut able = waiters.filter(|waiter| {
            let is_excluded = |name: &[u8]| {
                let found = waiter.excluded.binary_search_by(|n| (**n).cmp(name));
                found.is_ok()
            };
            available > waiter.excluded.len() || !pool.eligible().all(is_excluded)
        });
        able.next()
    }
}

impl Queues {
    fn add(&mut self, at: At, waiter: Waiter) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.clients.insert(waiter.client, (at.clone(), arrival));
        self.queues.entry(at).or_default().add(arrival, waiter);
        WAITING.store(self.clients.len(), Ordering::Relaxed);
    }

    fn remove(&mut self, client: Client) -> Option<Waiter> {
        let (at, arrival) = self.clients.remove(&client)?;
        WAITING.store(self.clients.len(), Ordering::Relaxed);
        let queue = self.queues.get_mut(&at)?;
        let waiter = queue.remove(arrival)?;
        if queue.waiters.is_empty() {
            self.queues.remove(&at);
        }
        Some(waiter)
    }
}

/// Takes a client out of its queue, if it waits there.
fn remove(ctx: Ctx, client: Client) -> Option<Waiter> {
    let waiter = QUEUES.with_borrow_mut(|queues| queues.remove(client))?;
    if let Some(timer) = waiter.timer {
        api!(RedisModule_StopTimer(ctx, timer, null_mut()));
    }
    Some(waiter)
}

/// Lets the client of a command wait, so long at most; 0 = without end.
pub fn wait(place: Place, wanted: &Wanted, millis: Millis) {
    let client = api!(RedisModule_BlockClient(
        place.ctx,
        Some(answer),
        Some(unblocked),
        Some(free),
        0
    ));
    api!(RedisModule_SetDisconnectCallback(
        client,
        Some(disconnected)
    ));
    clock::listen(place.ctx);
    let timer = (millis > 0).then(|| {
        api!(RedisModule_CreateTimer(
            place.ctx,
            millis as i64,
            Some(time_out),
            client.cast()
        ))
    });
    let mut excluded: Vec<Box<[u8]>> = wanted.request.exclude.iter().map(|n| (*n).into()).collect();
    excluded.sort_unstable();
    excluded.dedup();
    let waiter = Waiter {
        client,
        words: wanted.words(),
        is_array: wanted.is_array,
        excluded: excluded.into(),
        timer,
    };
    QUEUES.with_borrow_mut(|queues| queues.add((place.db(), place.bytes().into()), waiter));
}

fn end(client: Client, outcome: Outcome) {
    let outcome = Box::into_raw(Box::new(outcome));
    api!(RedisModule_UnblockClient(client, outcome.cast()));
}

/// Serves whoever waits at that key and can be served now.
pub fn serve(key: &mut Key) {
    if !is_any() {
        return;
    }
    let place = key.place();
    let at: At = (place.db(), place.bytes().into());
    while let Some(pool) = key.pool() {
        let first = QUEUES.with_borrow(|queues| {
            let first = queues.queues.get(&at)?.first(pool)?;
            Some(first.client)
        });
        let Some(first) = first.filter(|_| !place.must_obey()) else {
            return;
        };
        if let Some(waiter) = remove(place.ctx, first)
            && guarded("a pick for who waits", || give(key, &at, &waiter)).is_none()
        {
            key.poison();
            end(waiter.client, Outcome::fault());
        }
    }
}

/// Picks for a waiter who can be served.
fn give(key: &mut Key, at: &At, waiter: &Waiter) {
    let words: Vec<&[u8]> = waiter.words.iter().map(|word| &**word).collect();
    let Ok(Wanted { request, .. }) = wanted(words.iter().copied()) else {
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
    let names = picked.slots.iter().map(|slot| pool.name(*slot).into());
    let given = Outcome::Given {
        at: at.clone(),
        backends: names.collect(),
        lease: picked.lease,
        is_array: waiter.is_array,
        is_delivered: false,
    };
    key.place().replicate(c"LB.PICK", &words);
    key.place().touched();
    end(waiter.client, given);
}

/// Something may have come to that key in another way than by a command of ours.
pub fn look_later(db: c_int, key: &[u8]) {
    if is_any() {
        QUEUES.with_borrow_mut(|queues| queues.to_look_at.insert((db, key.into())));
    }
}

/// Something may have come to any key.
pub fn look_at_all() {
    QUEUES.with_borrow_mut(|queues| queues.to_look_at.extend(queues.queues.keys().cloned()));
}

/// Whether anybody waits for what is at that key, or for the key.
pub fn is_any_at(place: Place) -> bool {
    let at = (place.db(), place.bytes().into());
    is_any() && QUEUES.with_borrow(|queues| queues.queues.contains_key(&at))
}

/// On a primary: serves who waits for what has come in another way than by a command of ours, ends the leases that reached
/// nobody, and the waits for keys that are another node's.
pub fn look(ctx: Ctx) {
    let (to_look_at, to_end) = QUEUES.with_borrow_mut(|queues| {
        let to_look_at = std::mem::take(&mut queues.to_look_at);
        (to_look_at, std::mem::take(&mut queues.to_end))
    });
    if (to_look_at.is_empty() && to_end.is_empty() && !is_any())
        || !has_flag(ctx, raw::REDISMODULE_CTX_FLAGS_MASTER)
    {
        return;
    }
    for ((db, name), id) in to_end {
        Place::with(ctx, db, &name, |place| {
            place.command(c"LB.DONE", &id.to_string())
        });
    }
    for at in to_look_at.into_iter().chain(next_in_turn()) {
        // It changes nothing, and as at every command whoever can be served is served. Not from here: what a timer puts into
        // the stream stands, on 6.2, behind what commands do that it runs.
        let look = |place: Place| match place.command(c"LB.TICK", "0") {
            true => None,
            false => place.moved(),
        };
        if let Some(moved) = Place::with(ctx, at.0, &at.1, look).flatten() {
            send_away(ctx, &at, &moved);
        }
    }
}

/// The keys at which somebody waits, some at a time: not of all that can happen to a key there is an event.
fn next_in_turn() -> Vec<At> {
    if !is_any() {
        return vec![];
    }
    QUEUES.with_borrow_mut(|queues| {
        let from = (queues.looked.take()).map_or(Bound::Unbounded, Bound::Excluded);
        let next = queues.queues.range((from, Bound::Unbounded));
        let keys: Vec<At> = next.map(|(at, _)| at.clone()).take(QUEUES_A_GO).collect();
        queues.looked = keys.last().cloned();
        keys
    })
}

/// Ends all waits for that key with an error, as where the key is another node's now. So does the server with its own commands
/// that wait.
fn send_away(ctx: Ctx, at: &At, error: &str) {
    let waiters: Vec<Client> = QUEUES.with_borrow(|queues| {
        let queue = queues.queues.get(at);
        queue.map_or(vec![], |q| q.waiters.values().map(|w| w.client).collect())
    });
    for client in waiters {
        remove(ctx, client);
        end(client, Outcome::Refused(error.into()));
    }
}

/// This server is a replica from now on. Most servers send all away who wait; Valkey 9, in a cluster, leaves that to us.
pub fn send_all_away(ctx: Ctx) {
    let keys: Vec<At> = QUEUES.with_borrow(|queues| queues.queues.keys().cloned().collect());
    for at in keys {
        let error = "UNBLOCKED the server has become a replica, where nobody can wait";
        send_away(ctx, &at, error);
    }
}

/// A client has waited long enough.
unsafe extern "C" fn time_out(_: Ctx, client: *mut c_void) {
    let client = client.cast();
    // The server itself ends the timer that fires: to stop it here would free it twice.
    let leave = || QUEUES.with_borrow_mut(|queues| queues.remove(client));
    let timed_out = guarded("a wait that timed out", || {
        if let Some(waiter) = leave() {
            let is_array = waiter.is_array;
            end(client, Outcome::Nothing { is_array });
        }
    });
    if timed_out.is_none() && leave().is_some() {
        end(client, Outcome::fault());
    }
}

/// The server calls it to answer a client that was unblocked.
unsafe extern "C" fn answer(ctx: Ctx, _: *mut *mut raw::RedisModuleString, _: c_int) -> c_int {
    let answered = guarded("answering who waited", || {
        let outcome = api!(RedisModule_GetBlockedClientPrivateData(ctx)).cast::<Outcome>();
        // SAFETY: `end` made it, and `free` will free it.
        match unsafe { outcome.as_mut() } {
            Some(Outcome::Given {
                backends,
                lease,
                is_array,
                is_delivered,
                ..
            }) => {
                *is_delivered = true;
                let names = backends.iter().map(|name| &**name);
                Reply::to(ctx).given(names, *lease, *is_array);
            }
            Some(Outcome::Nothing { is_array }) => nothing(ctx, *is_array),
            Some(Outcome::Refused(error)) => Reply::to(ctx).error(error),
            None => {}
        }
    });
    if answered.is_none() {
        Reply::to(ctx).error(Error::bug().message());
    }
    raw::REDISMODULE_OK as c_int
}

fn nothing(ctx: Ctx, is_array: bool) {
    Reply::to(ctx).given(std::iter::empty(), None, is_array);
}

/// The server calls it at CLIENT UNBLOCK, which without it does nothing. (With ERROR it answers by itself.)
unsafe extern "C" fn unblocked(ctx: Ctx, _: *mut *mut raw::RedisModuleString, _: c_int) -> c_int {
    guarded("a client that was unblocked", || {
        let client = api!(RedisModule_GetBlockedClientHandle(ctx));
        if let Some(waiter) = remove(ctx, client) {
            nothing(ctx, waiter.is_array);
            api!(RedisModule_UnblockClient(client, null_mut()));
        }
    });
    raw::REDISMODULE_OK as c_int
}

/// The server calls it when a client that waits is gone, or was unblocked by somebody else.
unsafe extern "C" fn disconnected(ctx: Ctx, client: Client) {
    guarded("a client that waited and is gone", || {
        if remove(ctx, client).is_some() {
            api!(RedisModule_UnblockClient(client, null_mut()));
        }
    });
}

/// The server calls it when it is done with what a client was given.
unsafe extern "C" fn free(_: Ctx, outcome: *mut c_void) {
    guarded("what a waiter was given", || {
        if outcome.is_null() {
            return;
        }
        // SAFETY: `end` made it, and it is freed once.
        let outcome = unsafe { Box::from_raw(outcome.cast::<Outcome>()) };
        if let Outcome::Given {
            at,
            backends,
            lease: Some(first),
            is_delivered: false,
            ..
        } = *outcome
        {
            let ids = (0..backends.len() as u64).map(|place| LeaseId {
                number: first.number + place,
                ..first
            });
            let ended = ids.map(|id| (at.clone(), id));
            QUEUES.with_borrow_mut(|queues| queues.to_end.extend(ended));
        }
    });
}
