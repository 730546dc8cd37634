//! Waiters that costs alone keep out: which they are, and when the costs come back.
//!
//! Nothing is due in the pool when a bucket of costs fills, since amounts differ from request to request. So this process notes for each
//! key when the first of its waiters finds what it lacks, and moves the pool's clock then. LB.DONE, LB.LIMIT and other commands bring
//! costs back too: after each of them the waiters are tried anyway.

use std::time::Instant;

use redis_module::raw;

use super::clock::now;
use super::guard::guarded;
use super::key::Key;
use super::key_ref::KeyRef;
use super::queue::{Asked, Fit};
use super::timer;
use super::waits::{self, Client, at};
use crate::lb::{self, Millis, Pool, Request};

/// If a pool has more backends than one request tries, it is tried again after that time.
const AGAIN_MS: Millis = 100;

/// The waiters at a key that are found to lack costs, while the others are served.
#[derive(Default)]
pub struct Lacking {
    clients: Vec<Client>,
    /// The clock at which the first of them finds what it lacks.
    first: Option<Millis>,
}

impl Lacking {
    /// Whether that waiter is one of them.
    pub fn has(&self, client: Client) -> bool {
        self.clients.contains(&client)
    }

    /// Tries whether that waiter, whom nothing else keeps out, can be served, and adds it if it cannot.
    pub fn adds(&mut self, key: &mut Key, client: Client, asked: &Asked) -> bool {
        let request = asked.request();
        let Some(pool) = key.pool_mut() else {
            return false;
        };
        let found = guarded("a look for a waiter", || pool.would_pick(&request));
        if found == Some(true) {
            return false;
        }
        self.clients.push(client);
        match found {
            Some(_) => {
                let time = pool.affords_from(&request);
                let back = time.map(|time| next_try(pool, time));
                self.first = self.first.into_iter().chain(back).min();
            }
            None => key.poison(),
        }
        true
    }

    /// Lets the timer try again when the first of them finds what it lacks.
    pub fn await_costs(&self, key: &Key) {
        if let Some(first) = self.first {
            let key_ref = key.key_ref();
            let time = key.server_time(first);
            waits::with(|waits| waits.costs.add(at(key_ref), time));
            timer::wake(key_ref.ctx, time);
        }
    }
}

/// The clock at which to try again what is there from this time on.
fn next_try(pool: &Pool, time: Millis) -> Millis {
    match time > pool.clock() {
        true => lb::shown(time),
        false => pool.clock() + AGAIN_MS,
    }
}

/// Whether a waiter of the number `most` or a lower one lacks a cost that this request takes too: then the request comes behind
/// it. All waiters that can be served have been served.
pub fn is_behind(key: &Key, request: &Request, most: u8) -> bool {
    let Some(pool) = key.pool().filter(|_| waits::is_any()) else {
        return false;
    };
    let key_ref = key.key_ref();
    let limited = request.costs.iter().map(|(name, _)| *name);
    let limited: Vec<&[u8]> = limited.filter(|name| pool.limits_cost(name)).collect();
    if limited.is_empty() {
        return false;
    }
    let mut is_behind = false;
    waits::with(|waits| {
        _ = waits.queues.first(&at(key_ref), most, pool, |kind, _| {
            if kind.is_leasing && key_ref.is_out_of_memory() {
                return Fit::NoLeases;
            }
            is_behind |= kind.costs.iter().any(|name| limited.contains(&&**name));
            Fit::LacksCosts
        });
    });
    is_behind
}

/// The work of the timer: moves the clocks of the pools in which waiters find now what they lacked, and so serves them. Answers
/// whether it did all of it before `until`.
pub fn look(ctx: *mut raw::RedisModuleCtx, until: Instant) -> bool {
    while let Some((db, name)) = waits::with(|waits| waits.costs.pop(now())) {
        KeyRef::with(ctx, db, &name, |key_ref| {
            let key = Key::open_unasked(key_ref).ok();
            if let Some(time) = key.and_then(|mut key| key.present()) {
                key_ref.command(c"LB.TICK", &time.to_string());
            }
        });
        if Instant::now() >= until {
            return false;
        }
    }
    true
}
