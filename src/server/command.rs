//! A command, as the room that talks to the server sees it: what it is called, what it does to time and to the stream, and the
//! steps in which it runs. The steps follow each other here, and nowhere else.

use std::ffi::CStr;

use super::call::Call;
use super::error::Error;
use super::info::{PICKS, REFUSED};
use super::key::{Key, Needed};
use super::spec::Spec;
use super::{waiting, waits};

/// A command of the module.
pub trait Command {
    /// What the server is told of it.
    const SPEC: Spec;

    /// What its arguments say.
    type Order<'a>;

    /// Reads the arguments whole.
    fn read(call: &Call) -> Result<Self::Order<'_>, Error>;

    /// What it does to the pool. A command whose spec is readonly is not asked.
    fn access(_order: &Self::Order<'_>) -> Access {
        Access::Now
    }

    /// The key, opened. Nearly all commands want a pool there, or nothing.
    #[inline(always)]
    fn open(call: &Call, access: Access) -> Result<Key<'_>, Error> {
        match access {
            Access::Look => call.key_to_read(),
            Access::Timeless | Access::Now | Access::FromNow => call.key(),
        }
    }

    /// Refuses what this pool cannot do. Nothing has changed so far, and nothing that comes behind this can fail.
    #[inline(always)]
    fn check(_order: &Self::Order<'_>, _key: &mut Key) -> Result<(), Error> {
        Ok(())
    }

    /// The pick that it makes, if it makes one: what that needs is brought about before.
    #[inline(always)]
    fn needed<'o>(_order: &'o Self::Order<'_>) -> Option<Needed<'o>> {
        None
    }

    /// Does it and answers it.
    fn run(order: Self::Order<'_>, key: &mut Key, call: &Call) -> Effect;
}

/// What a command does to a pool, and to its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It only looks: at the pool as of its own clock.
    Look,
    /// It changes the pool, whatever the time.
    Timeless,
    /// It changes the pool as it is now: where time matters in it, its clock is brought up to the time before.
    Now,
    /// The same, and from now on time matters in it.
    FromNow,
}

/// What a command has done.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Nothing: nothing goes into the stream.
    None,
    /// It has picked so often. No event is made of that.
    Picked(usize),
    /// It has changed something of which no event is made.
    Unannounced,
    /// These events have come so often. Where none has, nothing was changed.
    Events([(&'static CStr, usize); 3]),
}

impl Effect {
    /// These events have come so often.
    pub fn events<const N: usize>(events: [(&'static CStr, usize); N]) -> Effect {
        let mut all = [(c"", 0); 3];
        all[..N].copy_from_slice(&events);
        Effect::Events(all)
    }

    /// A change of which no event is made, if there was any.
    pub fn unannounced(changed: bool) -> Effect {
        match changed {
            true => Effect::Unannounced,
            false => Effect::None,
        }
    }
}

/// Runs a command from its arguments to its reply.
#[inline(always)]
pub fn dispatch<C: Command>(call: &Call) {
    // 6.2 does not check the arity of a module's command.
    if !C::SPEC.takes(call.argc()) {
        call.reply().wrong_arity();
        REFUSED.count();
        return;
    }
    let is_write = !C::SPEC.is_readonly();
    // What is there may have come without a command of ours.
    if is_write && waits::is_any() {
        serve(call);
    }
    match step::<C>(call) {
        Ok(()) if is_write && waits::is_any() => serve(call),
        Ok(()) => {}
        Err(error) => {
            call.reply().error(error.message());
            REFUSED.count();
        }
    }
}

#[inline(always)]
fn step<C: Command>(call: &Call) -> Result<(), Error> {
    let order = C::read(call)?;
    let access = match C::SPEC.is_readonly() {
        true => Access::Look,
        false => C::access(&order),
    };
    let mut key = C::open(call, access)?;
    C::check(&order, &mut key)?;
    match access {
        Access::Look | Access::Timeless => {}
        Access::Now if key.is_timed() => tick(&mut key),
        Access::Now => {}
        Access::FromNow => tick(&mut key),
    }
    if let Some(needed) = C::needed(&order) {
        key.prepare(&needed);
    }
    match C::run(order, &mut key, call) {
        Effect::None => {}
        Effect::Picked(picks) => {
            PICKS.add(picks);
            call.key_ref().changed();
        }
        Effect::Unannounced => call.key_ref().changed(),
        Effect::Events(events) => announce(call, &mut key, &events),
    }
    Ok(())
}

/// Brings the pool's clock up to the time. Whoever waits for what that frees is served first.
#[inline(never)]
fn tick(key: &mut Key) {
    if key.move_clock() {
        waiting::serve(key);
    }
}

/// The command goes into the stream as it came, and clients that watch the key or have subscribed to the events hear of it. A pool
/// that the command left without backends and settings goes.
fn announce(call: &Call, key: &mut Key, events: &[(&CStr, usize)]) {
    let mut came = events.iter().filter(|(_, times)| *times > 0).peekable();
    if came.peek().is_some() {
        call.key_ref().changed();
    }
    for (event, _) in came {
        call.key_ref().announce(event);
    }
    key.delete_if_void();
}

/// Serves the waiters at the command's key.
#[cold]
fn serve(call: &Call) {
    if waits::is_any_at(call.key_ref())
        && let Ok(mut key) = call.key()
    {
        waiting::serve(&mut key);
    }
}
