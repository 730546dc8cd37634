//! Clients that wait for a backend (`LB.PICK … BLOCK`), in the order of their numbers.
//!
//! Waiting clients are not part of a pool. This process keeps them in a queue for each key (see [`super::queue`]). The one
//! invariant: when a command of ours begins on a key, and when it ends, no client waits there that could be served. So a new
//! client that finds a backend takes it from no waiting client.
//!
//! Rejected: the server's own `BlockClientOnKeys`. It asks all waiters of a key at each signal: with 10,000 waiters that takes
//! 656 µs. Also rejected: the server's own deadlines. Up to 7.0 a client that was served, and whose deadline comes before the
//! reply, gets no reply at all.

use std::os::raw::{c_int, c_void};
use std::ptr::null_mut;
use std::time::Instant;

use redis_module::raw;

use super::block::Block;
use super::clock::now;
use super::error::Error;
use super::grants::Granted;
use super::guard::guarded;
use super::info::{PICKS, REFUSED};
use super::key::{Key, Needed};
use super::key_ref::{KeyRef, databases};
use super::lacking::{self, Lacking};
use super::listening::{is_deaf, listen};
use super::queue::{Asked, At, Fit, Room};
use super::reply::Reply;
use super::timer;
use super::waits::{self, Client, Waiter, at};
use crate::lb::{LeaseId, Request};

type Ctx = *mut raw::RedisModuleCtx;

/// The number of keys, taken in turn, at which one run of the timer looks.
const KEYS_A_RUN: usize = 20;

/// The result of a wait, on its way to the client.
enum Outcome {
    Given {
        granted: Granted,
        backends: Vec<Box<[u8]>>,
        lease: Option<LeaseId>,
        is_array: bool,
        is_delivered: bool,
    },
    Nothing {
        is_array: bool,
    },
    /// The wait ends with this error.
    Refused(String),
}

impl Outcome {
    fn fault() -> Outcome {
        Outcome::Refused(Error::bug().message().into())
    }
}

/// Takes a client out of its queue, if it waits, and stops its timer.
fn remove(ctx: Ctx, client: Client) -> Option<Waiter> {
    let waiter = leave(client)?;
    waiter.stop_timer(ctx);
    Some(waiter)
}

fn leave(client: Client) -> Option<Waiter> {
    waits::with(|waits| waits.queues.remove(client))
}

/// Blocks the client of a command until its request can be served. `words` are the arguments behind the key with which the pick is
/// replicated. If no more clients can wait, the last of all is refused: this one, or one of those that wait.
pub fn wait(
    key: &mut Key,
    request: &Request,
    block: &Block,
    words: Vec<Vec<u8>>,
    is_array: bool,
) -> Result<(), Error> {
    make_room(key, block)?;
    let key_ref = key.key_ref();
    let client = api!(RedisModule_BlockClient(
        key_ref.ctx,
        Some(answer),
        Some(unblocked),
        Some(free),
        0
    ));
    api!(RedisModule_SetDisconnectCallback(
        client,
        Some(disconnected)
    ));
    listen(key_ref.ctx);
    let timer = (block.millis > 0).then(|| {
        api!(RedisModule_CreateTimer(
            key_ref.ctx,
            block.millis as i64,
            Some(time_out),
            client.cast()
        ))
    });
    let asked = Asked::of(request);
    let kind = asked.kind();
    let waiter = Waiter {
        client,
        asked,
        words,
        is_array,
        timer,
        since: Instant::now(),
    };
    let settings = key.queue_settings();
    waits::with(|waits| {
        let queues = &mut waits.queues;
        queues.add(at(key_ref), settings, client, block, kind, waiter);
    });
    Ok(())
}

fn make_room(key: &mut Key, block: &Block) -> Result<(), Error> {
    let (Some(settings), true) = (key.queue_settings(), waits::is_any()) else {
        return Ok(());
    };
    let key_ref = key.key_ref();
    let last = waits::with(|waits| {
        let room = waits.queues.room(&at(key_ref), settings, block);
        match room {
            Room::Free => Ok(None),
            Room::InPlaceOf(last) => Ok(Some(last.client)),
            Room::None => Err(Error::queue_full(settings.max)),
        }
    });
    if !matches!(last, Ok(None)) {
        key.count_refused();
    }
    if let Some(last) = last? {
        REFUSED.count();
        remove(key_ref.ctx, last);
        let error = Error::queue_full(settings.max).message().into();
        end(last, Outcome::Refused(error));
    }
    Ok(())
}

fn end(client: Client, outcome: Outcome) {
    let outcome = Box::into_raw(Box::new(outcome));
    api!(RedisModule_UnblockClient(client, outcome.cast()));
}

/// Serves all waiters at that key that can be served now, and have the number `most` or a lower one.
pub fn serve(key: &mut Key, most: u8) {
    if !waits::is_any() {
        return;
    }
    let key_ref = key.key_ref();
    let at = at(key_ref);
    // Time can end a session, so that another backend will do.
    if waits::with(|waits| waits.queues.is_any_sticky_at(&at)) {
        key.move_clock();
    }
    let mut lacking = Lacking::default();
    while let Some(pool) = key.pool() {
        let first = waits::with(|waits| {
            let first = waits.queues.first(&at, most, pool, |kind, waiter| {
                if kind.is_leasing && key_ref.is_out_of_memory() {
                    Fit::NoLeases
                } else if lacking.has(waiter.client) {
                    Fit::LacksCosts
                } else {
                    Fit::Fits
                }
            })?;
            let costly = first.asked.has_costs().then(|| first.asked.clone());
            Some((first.client, costly))
        });
        let Some((first, costly)) = first.filter(|_| !key_ref.must_obey()) else {
            break;
        };
        if costly.is_some_and(|asked| lacking.adds(key, first, &asked)) {
            continue;
        }
        if let Some(waiter) = waits::with(|waits| waits.queues.serve(first)) {
            waiter.stop_timer(key_ref.ctx);
            if guarded("a pick for a waiter", || give(key, &at, &waiter)).is_none() {
                key.poison();
                end(waiter.client, Outcome::fault());
            }
        }
    }
    lacking.await_costs(key);
}

/// Makes the pick of a waiter that can be served.
fn give(key: &mut Key, at: &At, waiter: &Waiter) {
    let request = waiter.asked.request();
    if request.terms.is_some() {
        key.move_clock();
    }
    key.prepare(Needed::by(&request));
    let Some(pool) = key.pool_mut() else {
        return;
    };
    let picked = pool.picks(&request);
    PICKS.add(picked.slots.len());
    let names = picked.slots.iter().map(|slot| pool.name(*slot).into());
    let given = Outcome::Given {
        granted: waits::with(|waits| waits.grants.begin(at)),
        backends: names.collect(),
        lease: picked.lease,
        is_array: waiter.is_array,
        is_delivered: false,
    };
    let words: Vec<&[u8]> = waiter.words.iter().map(|word| &**word).collect();
    key.key_ref().replicate(c"LB.PICK", &words);
    key.key_ref().touched();
    end(waiter.client, given);
}

/// The work of the timer on a primary that takes writes. It ends the leases that did not reach their clients. It serves waiters
/// if a pool has come to their key without a command of ours. It ends the waits at keys that another node has now. Returns
/// whether it did all this before `until`.
pub fn look(ctx: Ctx, until: Instant) -> bool {
    end_unreached_leases(ctx);
    let is_all = lacking::look(ctx, until);
    next_in_turn().iter().for_each(|at| look_at(ctx, at));
    while let Some((db, name)) = waits::with(|waits| waits.to_look_at.pop_first()) {
        for db in databases(ctx, db) {
            look_at(ctx, &(db, name.clone()));
        }
        if Instant::now() >= until {
            return false;
        }
    }
    is_all && (!is_deaf() || look_unheard(ctx, until))
}

/// The work of the timer on a primary that refuses writes, where no client can be served: it ends the waits at keys that
/// another node has now.
pub fn send_away_whose_key_moved(ctx: Ctx) {
    for at in next_in_turn() {
        if let Some(moved) = KeyRef::with(ctx, at.0, &at.1, KeyRef::moved).flatten() {
            send_away(ctx, &at, &moved);
        }
    }
}

fn end_unreached_leases(ctx: Ctx) {
    for ((db, name), id) in waits::with(|waits| waits.grants.take_to_end()) {
        for db in databases(ctx, db) {
            KeyRef::with(ctx, db, &name, |key_ref| {
                key_ref.command(c"LB.DONE", &id.to_string())
            });
        }
    }
}

/// Serves the waiters at that key that can be served, or ends their waits with the node that has the key now.
fn look_at(ctx: Ctx, at: &At) {
    // This tick changes nothing, but as with every command the waiters that can be served are served. They are not served from
    // here, because on 6.2 a timer's own entries in the stream come after those of the commands that it runs.
    let look = |key_ref: KeyRef| match key_ref.command(c"LB.TICK", "0") {
        true => None,
        false => key_ref.moved(),
    };
    if let Some(moved) = KeyRef::with(ctx, at.0, &at.1, look).flatten() {
        send_away(ctx, at, &moved);
    }
}

/// The next keys in turn at which a client waits. They are looked at because some changes of a key cause no event.
fn next_in_turn() -> Vec<At> {
    waits::with(|waits| {
        let behind = waits.in_turn.take();
        let keys = waits.queues.keys(behind.as_ref());
        let keys: Vec<At> = keys.take(KEYS_A_RUN).cloned().collect();
        waits.in_turn = keys.last().cloned();
        keys
    })
}

/// On a server to which the module cannot listen: looks at all keys at which a client waits, so that no client waits long after
/// RENAME, RESTORE or COPY has brought a pool. If nothing can be picked at a key, it costs only the opening of the key.
fn look_unheard(ctx: Ctx, until: Instant) -> bool {
    loop {
        let next = waits::with(|waits| {
            let behind = waits.unheard.take();
            waits.unheard = waits.queues.keys(behind.as_ref()).next().cloned();
            waits.unheard.clone()
        });
        let Some(next) = next else {
            return true;
        };
        let can_serve = |key_ref: KeyRef| {
            let key = Key::open_unasked(key_ref).ok()?;
            key.pool().filter(|pool| pool.available() > 0).map(|_| ())
        };
        if KeyRef::with(ctx, next.0, &next.1, can_serve)
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

/// Ends all waits at that key with an error, for example because another node has the key now. The server does the same with its
/// own blocking commands.
fn send_away(ctx: Ctx, at: &At, error: &str) {
    let clients = waits::with(|waits| -> Vec<Client> {
        waits.queues.at(at).map(|waiter| waiter.client).collect()
    });
    for client in clients {
        remove(ctx, client);
        end(client, Outcome::Refused(error.into()));
    }
}

/// Ends all waits, because this server has become a replica. Most servers do that themselves, but Valkey 9 in a cluster does
/// not. The new primary ends the leases that did not reach their clients.
pub fn send_all_away(ctx: Ctx) {
    let keys: Vec<At> = waits::with(|waits| waits.queues.keys(None).cloned().collect());
    for at in keys {
        let error = "UNBLOCKED the server has become a replica, where no client can wait";
        send_away(ctx, &at, error);
    }
    waits::with(|waits| waits.grants.forget());
}

/// The server calls this when the time of a wait is over.
unsafe extern "C" fn time_out(ctx: Ctx, client: *mut c_void) {
    let client = client.cast();
    // The server frees a timer that fires: to stop it here would free it twice.
    let timed_out = guarded("a wait that timed out", || {
        count_refused(ctx, client);
        if let Some(waiter) = leave(client) {
            let is_array = waiter.is_array;
            end(client, Outcome::Nothing { is_array });
        }
    });
    if timed_out.is_none() && leave(client).is_some() {
        end(client, Outcome::fault());
    }
}

/// Counts a wait that ends in nil, at the key where that client waits.
fn count_refused(ctx: Ctx, client: Client) {
    let count = |key_ref: KeyRef| {
        // A key of another type has no count.
        if let Ok(mut key) = Key::open_unasked(key_ref) {
            key.count_refused();
        }
    };
    let at = waits::with(|waits| waits.queues.place_of(client).cloned());
    if let Some((db, name)) = at {
        KeyRef::with(ctx, db, &name, count);
    }
}

/// The server calls this to reply to a client that was unblocked.
unsafe extern "C" fn answer(ctx: Ctx, _: *mut *mut raw::RedisModuleString, _: c_int) -> c_int {
    let answered = guarded("answering a waiter", || {
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

/// The server calls this at CLIENT UNBLOCK. Without this callback that command would do nothing. (With ERROR the server replies
/// by itself.)
unsafe extern "C" fn unblocked(ctx: Ctx, _: *mut *mut raw::RedisModuleString, _: c_int) -> c_int {
    guarded("a client that was unblocked", || {
        let client = api!(RedisModule_GetBlockedClientHandle(ctx));
        count_refused(ctx, client);
        if let Some(waiter) = remove(ctx, client) {
            nothing(ctx, waiter.is_array);
            api!(RedisModule_UnblockClient(client, null_mut()));
        }
    });
    raw::REDISMODULE_OK as c_int
}

/// The server calls this when a client that waits has disconnected, or was unblocked by something other than this module.
unsafe extern "C" fn disconnected(ctx: Ctx, client: Client) {
    guarded("a client that waited and is gone", || {
        if remove(ctx, client).is_some() {
            api!(RedisModule_UnblockClient(client, null_mut()));
        }
    });
}

/// The server calls this when it no longer needs the result of a wait.
unsafe extern "C" fn free(ctx: Ctx, outcome: *mut c_void) {
    guarded("freeing the result of a wait", || {
        if outcome.is_null() {
            return;
        }
        // SAFETY: `end` made it, and it is freed once.
        let outcome = unsafe { Box::from_raw(outcome.cast::<Outcome>()) };
        let Outcome::Given {
            granted,
            backends,
            lease,
            is_delivered,
            ..
        } = *outcome
        else {
            return;
        };
        let first = lease.filter(|_| !is_delivered);
        let unreached = first.into_iter().flat_map(|first| {
            let places = 0..backends.len() as u64;
            places.map(move |place| LeaseId {
                number: first.number + place,
                ..first
            })
        });
        waits::with(|waits| waits.grants.end(&granted, unreached));
        if first.is_some() {
            timer::wake(ctx, now());
        }
    });
}
