//! Clients that wait for a backend (`LB.PICK … BLOCK`), first come first served.
//!
//! They are no part of a pool: they are this process's own, in a queue for each key (see [`Queues`]). The one invariant: when a
//! command of ours begins on a key, and when it is done, nobody waits there who could be served. So a newcomer that finds
//! somebody to pick robs nobody.
//!
//! Rejected: the server's own `BlockClientOnKeys`, which asks all waiters of a key at each signal: with 10,000 of them
//! that takes 656 µs. And the server's own deadlines: up to 7.0 a client that was served and then, before the reply, had its
//! deadline, gets no answer at all.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::raw::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use redis_module::raw;

use super::clock::now;
use super::guard::guarded;
use super::info::PICKS;
use super::key::Key;
use super::listening::{is_deaf, listen};
use super::place::Place;
use super::queue::{Asked, At, Leasing, Queues};
use super::reply::Reply;
use super::timer;
use crate::commands::Error;
use crate::lb::{LeaseId, Millis, Request};

type Client = *mut raw::RedisModuleBlockedClient;
type Ctx = *mut raw::RedisModuleCtx;

/// At so many keys it is looked in one run of the timer, in turn.
const KEYS_A_RUN: usize = 20;

/// A client that waits.
struct Waiter {
    client: Client,
    asked: Asked,
    /// What it asked for as it goes into the stream, behind the key.
    words: Vec<Vec<u8>>,
    is_array: bool,
    /// Ends the wait.
    timer: Option<raw::RedisModuleTimerID>,
}

#[derive(Default)]
struct Waits {
    queues: Queues<Client, Waiter>,
    /// Keys at which something may have come in another way than by a command of ours.
    to_look_at: BTreeSet<At>,
    /// The key at which the looks in turn go on, and the one at which the looks of a server go on that hears nothing.
    in_turn: Option<At>,
    unheard: Option<At>,
    grants: Grants,
}

/// What was granted to waiters and has not reached them yet.
#[derive(Default)]
struct Grants {
    /// How many are on their way to a client.
    open: usize,
    /// What was moved since the first of them.
    moves: Vec<Move>,
    /// Leases of clients that were gone, with the key and how many moves there were when they were granted.
    to_end: Vec<(At, usize, LeaseId)>,
}

enum Move {
    /// A key has another name, or is in another database.
    Key(At, At),
    /// The keys of two databases have changed places.
    Databases(c_int, c_int),
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

/// How a wait ends, on its way to the client.
enum Outcome {
    Given {
        at: At,
        /// How many moves of keys there were before.
        moves: usize,
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

impl Grants {
    fn moved(&mut self, moved: Move) {
        if self.open > 0 || !self.to_end.is_empty() {
            self.moves.push(moved);
        }
    }

    /// Where that key is now, which was there so many moves after the first.
    fn now_at(&self, mut at: At, moves: usize) -> At {
        for moved in &self.moves[moves..] {
            match moved {
                Move::Key(from, to) if *from == at => at = to.clone(),
                Move::Databases(a, b) if *a == at.0 => at.0 = *b,
                Move::Databases(a, b) if *b == at.0 => at.0 = *a,
                Move::Key(..) | Move::Databases(..) => {}
            }
        }
        at
    }

    fn forget_moves(&mut self) {
        if self.open == 0 && self.to_end.is_empty() {
            self.moves.clear();
        }
    }
}

/// Takes a client out of its queue, if it waits there.
fn remove(ctx: Ctx, client: Client) -> Option<Waiter> {
    let waiter = leave(client)?;
    if let Some(timer) = waiter.timer {
        api!(RedisModule_StopTimer(ctx, timer, null_mut()));
    }
    Some(waiter)
}

fn leave(client: Client) -> Option<Waiter> {
    WAITS.with_borrow_mut(|waits| {
        let waiter = waits.queues.remove(client);
        WAITING.store(waits.queues.len(), Ordering::Relaxed);
        waiter
    })
}

/// Lets the client of a command wait, so long at most; 0 = without end. `words` are the request as it goes into the stream.
pub fn wait(place: Place, request: &Request, words: Vec<Vec<u8>>, is_array: bool, millis: Millis) {
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
    listen(place.ctx);
    let timer = (millis > 0).then(|| {
        api!(RedisModule_CreateTimer(
            place.ctx,
            millis as i64,
            Some(time_out),
            client.cast()
        ))
    });
    let asked = Asked::of(request);
    let waiter = Waiter {
        client,
        asked: asked.clone(),
        words,
        is_array,
        timer,
    };
    WAITS.with_borrow_mut(|waits| {
        waits.queues.add(at(place), client, &asked, waiter);
        WAITING.store(waits.queues.len(), Ordering::Relaxed);
    });
}

fn at(place: Place) -> At {
    (place.db(), place.bytes().into())
}

fn end(client: Client, outcome: Outcome) {
    if let Outcome::Given { .. } = outcome {
        WAITS.with_borrow_mut(|waits| waits.grants.open += 1);
    }
    let outcome = Box::into_raw(Box::new(outcome));
    api!(RedisModule_UnblockClient(client, outcome.cast()));
}

/// Serves all waiters at that key that can be served now.
pub fn serve(key: &mut Key) {
    if !is_any() {
        return;
    }
    let place = key.place();
    let at = at(place);
    let leasing = || match place.is_out_of_memory() {
        true => Leasing::Refused,
        false => Leasing::Granted,
    };
    while let Some(pool) = key.pool() {
        let first = WAITS.with_borrow(|waits| {
            let first = waits.queues.first(&at, pool, leasing)?;
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

/// Picks for a waiter that can be served.
fn give(key: &mut Key, at: &At, waiter: &Waiter) {
    let request = waiter.asked.request();
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
        moves: WAITS.with_borrow(|waits| waits.grants.moves.len()),
        backends: names.collect(),
        lease: picked.lease,
        is_array: waiter.is_array,
        is_delivered: false,
    };
    let words: Vec<&[u8]> = waiter.words.iter().map(|word| &**word).collect();
    key.place().replicate(c"LB.PICK", &words);
    key.place().touched();
    end(waiter.client, given);
}

/// Something may have come to that key in another way than by a command of ours.
pub fn look_later(at: At) {
    if is_any() {
        WAITS.with_borrow_mut(|waits| waits.to_look_at.insert(at));
    }
}

/// What was at the one key is at the other now.
pub fn moved(from: At, to: At) {
    WAITS.with_borrow_mut(|waits| waits.grants.moved(Move::Key(from, to)));
}

/// The keys of two databases have changed places.
pub fn swapped(a: c_int, b: c_int) {
    WAITS.with_borrow_mut(|waits| waits.grants.moved(Move::Databases(a, b)));
    look_at_all();
}

/// Something may have come to any key.
pub fn look_at_all() {
    WAITS.with_borrow_mut(|waits| waits.to_look_at.extend(waits.queues.keys(None).cloned()));
}

/// Whether anybody waits for what is at that key, or for the key.
pub fn is_any_at(place: Place) -> bool {
    is_any() && WAITS.with_borrow(|waits| waits.queues.is_any_at(&at(place)))
}

/// Whether anything is left to be done for waiters, or for what they were granted.
pub fn is_idle() -> bool {
    !is_any() && WAITS.with_borrow(|waits| waits.grants.to_end.is_empty())
}

/// On a primary that takes writes: ends the leases that reached nobody; serves waiters to whom something has come in another way
/// than by a command of ours; ends the waits for keys that are another node's. Says whether it did all by that time.
pub fn look(ctx: Ctx, until: Instant) -> bool {
    end_what_reached_nobody(ctx);
    next_in_turn().iter().for_each(|at| look_at(ctx, at));
    while let Some(at) = WAITS.with_borrow_mut(|waits| waits.to_look_at.pop_first()) {
        look_at(ctx, &at);
        if Instant::now() >= until {
            return false;
        }
    }
    !is_deaf() || look_unheard(ctx, until)
}

/// On a primary that refuses writes, where nobody can be served: ends the waits for keys that are another node's.
pub fn send_away_whose_key_moved(ctx: Ctx) {
    for at in next_in_turn() {
        if let Some(moved) = Place::with(ctx, at.0, &at.1, Place::moved).flatten() {
            send_away(ctx, &at, &moved);
        }
    }
}

fn end_what_reached_nobody(ctx: Ctx) {
    let to_end = WAITS.with_borrow_mut(|waits| {
        let grants = &mut waits.grants;
        let to_end = std::mem::take(&mut grants.to_end).into_iter();
        let to_end: Vec<_> = to_end
            .map(|(at, moves, id)| (grants.now_at(at, moves), id))
            .collect();
        grants.forget_moves();
        to_end
    });
    for ((db, name), id) in to_end {
        Place::with(ctx, db, &name, |place| {
            place.command(c"LB.DONE", &id.to_string())
        });
    }
}

/// Serves the waiters at that key that can be served, or tells them which node has it now.
fn look_at(ctx: Ctx, at: &At) {
    // It changes nothing, and as at every command whoever can be served is served. Not from here: what a timer puts into
    // the stream stands, on 6.2, behind what commands do that it runs.
    let look = |place: Place| match place.command(c"LB.TICK", "0") {
        true => None,
        false => place.moved(),
    };
    if let Some(moved) = Place::with(ctx, at.0, &at.1, look).flatten() {
        send_away(ctx, at, &moved);
    }
}

/// The next keys at which somebody waits: not of all that can happen to a key there is an event.
fn next_in_turn() -> Vec<At> {
    WAITS.with_borrow_mut(|waits| {
        let behind = waits.in_turn.take();
        let keys = waits.queues.keys(behind.as_ref());
        let keys: Vec<At> = keys.take(KEYS_A_RUN).cloned().collect();
        waits.in_turn = keys.last().cloned();
        keys
    })
}

/// The same where the server cannot be listened to: all keys at which somebody waits, so that nobody waits long for what has come
/// by RENAME, RESTORE or COPY. A key at which nothing can be picked costs no more than to be opened.
fn look_unheard(ctx: Ctx, until: Instant) -> bool {
    loop {
        let next = WAITS.with_borrow_mut(|waits| {
            let behind = waits.unheard.take();
            waits.unheard = waits.queues.keys(behind.as_ref()).next().cloned();
            waits.unheard.clone()
        });
        let Some(next) = next else {
            return true;
        };
        let can_serve = |place: Place| {
            let key = Key::open_unasked(place).ok()?;
            key.pool().filter(|pool| pool.available() > 0).map(|_| ())
        };
        if Place::with(ctx, next.0, &next.1, can_serve)
            .flatten()
            .is_some()
        {
            look_at(ctx, &next);
        }
        if Instant::now() >= until {
            return false;
        }
    }
}

/// Ends all waits for that key with an error, as where the key is another node's now. So does the server with its own commands
/// that wait.
fn send_away(ctx: Ctx, at: &At, error: &str) {
    let clients = |waits: &Waits| waits.queues.at(at).map(|w| w.client).collect::<Vec<_>>();
    for client in WAITS.with_borrow(clients) {
        remove(ctx, client);
        end(client, Outcome::Refused(error.into()));
    }
}

/// This server is a replica from now on. Most servers send all waiters away; Valkey 9, in a cluster, leaves that to us. The
/// leases that reached nobody are the new primary's to end.
pub fn send_all_away(ctx: Ctx) {
    let keys: Vec<At> = WAITS.with_borrow(|waits| waits.queues.keys(None).cloned().collect());
    for at in keys {
        let error = "UNBLOCKED the server has become a replica, where nobody can wait";
        send_away(ctx, &at, error);
    }
    WAITS.with_borrow_mut(|waits| waits.grants.to_end.clear());
}

/// A client has waited long enough.
unsafe extern "C" fn time_out(_: Ctx, client: *mut c_void) {
    let client = client.cast();
    // The server itself ends the timer that fires: to stop it here would free it twice.
    let timed_out = guarded("a wait that timed out", || {
        if let Some(waiter) = leave(client) {
            let is_array = waiter.is_array;
            end(client, Outcome::Nothing { is_array });
        }
    });
    if timed_out.is_none() && leave(client).is_some() {
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
unsafe extern "C" fn free(ctx: Ctx, outcome: *mut c_void) {
    guarded("what a waiter was given", || {
        if outcome.is_null() {
            return;
        }
        // SAFETY: `end` made it, and it is freed once.
        let outcome = unsafe { Box::from_raw(outcome.cast::<Outcome>()) };
        let Outcome::Given {
            at,
            moves,
            backends,
            lease,
            is_delivered,
            ..
        } = *outcome
        else {
            return;
        };
        let first = lease.filter(|_| !is_delivered);
        let ids = first.into_iter().flat_map(|first| {
            let places = 0..backends.len() as u64;
            places.map(move |place| LeaseId {
                number: first.number + place,
                ..first
            })
        });
        WAITS.with_borrow_mut(|waits| {
            let grants = &mut waits.grants;
            grants.open -= 1;
            grants.to_end.extend(ids.map(|id| (at.clone(), moves, id)));
            grants.forget_moves();
        });
        if first.is_some() {
            timer::wake(ctx, now());
        }
    });
}
