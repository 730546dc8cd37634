//! The trait of a command: its description, its effect on time and on the stream, and the steps in which it runs. The order
//! of the steps is defined here, and nowhere else.

use std::ffi::CStr;

use super::call::Call;
use super::error::Error;
use super::info::{PICKS, REFUSED};
use super::key::{Key, Needed};
use super::spec::Spec;
use super::{waiting, waits};

/// A command of the module.
pub trait Command: Sized {
    /// The description that the server gets.
    const SPEC: Spec;

    /// The command's arguments, parsed.
    type Order<'a>;

    /// Parses all arguments. A form of a command, whose arguments that command has parsed, needs none.
    fn read(_call: &Call) -> Result<Self::Order<'_>, Error> {
        unreachable!("{} reads its forms", Self::SPEC.name)
    }

    /// How it uses the pool and its clock. A readonly command always has [`Access::Look`]: this is not called for it.
    fn access(_order: &Self::Order<'_>) -> Access {
        Access::Now
    }

    /// Opens the key. Nearly all commands accept only a pool there, or a missing key.
    #[inline(always)]
    fn open(call: &Call, access: Access) -> Result<Key<'_>, Error> {
        match access {
            Access::Look => call.key_to_read(),
            Access::Timeless | Access::Now | Access::FromNow => call.key(),
        }
    }

    /// Refuses an order that this pool cannot carry out, or completes it by the pool's settings. Nothing has changed before this
    /// step, and no later step can fail.
    #[inline(always)]
    fn check(_order: &mut Self::Order<'_>, _key: &mut Key) -> Result<(), Error> {
        Ok(())
    }

    /// Waiters of this number and lower ones go before it: whoever of them can be served is served first.
    #[inline(always)]
    fn behind(_order: &Self::Order<'_>) -> u8 {
        ALL
    }

    /// The needs of its pick, if it makes one. They are met before `run`.
    #[inline(always)]
    fn needed<'o>(_order: &'o Self::Order<'_>) -> Option<Needed<'o>> {
        None
    }

    /// Carries out the order and replies.
    fn run(order: Self::Order<'_>, key: &mut Key, call: &Call) -> Effect;

    /// All steps. A command can have forms, each with steps of its own: then no step has to look at the form, and the steps of a
    /// frequent one do not carry the others.
    #[inline(always)]
    fn steps(call: &Call) -> Result<(), Error> {
        carry_out::<Self>(Self::read(call)?, call)
    }
}

/// Every waiter has this number or a lower one.
const ALL: u8 = u8::MAX;

/// How a command uses a pool and its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It only reads the pool, as the pool was at its own clock.
    Look,
    /// It changes the pool, and does not depend on the time.
    Timeless,
    /// It changes the pool as it is now: if time matters in the pool, its clock is moved to the present first.
    Now,
    /// As `Now`, and from now on time matters in the pool: its clock is moved in any case, and a pool that never had a lease gets
    /// the newest rules.
    FromNow,
}

/// The effect that a command had.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Nothing changed: nothing goes into the stream.
    None,
    /// It has made this number of picks. A pick causes no event.
    Picked(usize),
    /// It has made a change that causes no event.
    Unannounced,
    /// The events that happened, each with its number of times. If every number is 0, nothing was changed.
    Events([(&'static CStr, usize); 3]),
}

impl Effect {
    /// The events that happened, each with its number of times.
    pub fn events<const N: usize>(events: [(&'static CStr, usize); N]) -> Effect {
        let mut all = [(c"", 0); 3];
        all[..N].copy_from_slice(&events);
        Effect::Events(all)
    }

    /// The effect of a change that causes no event, or of no change.
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
    match C::steps(call) {
        Ok(()) if is_write && waits::is_any() => serve(call, ALL),
        Ok(()) => {}
        Err(error) => {
            call.reply().error(error.message());
            REFUSED.count();
        }
    }
}

/// The steps behind the reading of the order.
#[inline(always)]
pub fn carry_out<'a, C: Command>(mut order: C::Order<'a>, call: &'a Call) -> Result<(), Error> {
    // The pool may have come to this key without a command of ours.
    if !C::SPEC.is_readonly() && waits::is_any() {
        serve(call, C::behind(&order));
    }
    let access = match C::SPEC.is_readonly() {
        true => Access::Look,
        false => C::access(&order),
    };
    let mut key = C::open(call, access)?;
    C::check(&mut order, &mut key)?;
    let is_timed = match access {
        Access::Look | Access::Timeless => false,
        Access::Now => key.is_timed(),
        Access::FromNow => {
            key.renew_rules_if_due();
            true
        }
    };
    if is_timed && !key.is_at_present() {
        tick(&mut key, C::behind(&order));
    }
    if let Some(needed) = C::needed(&order) {
        key.prepare(needed);
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
    key.close();
    std::mem::forget(key);
    Ok(())
}

/// Moves the pool's clock to the present. If that frees capacity, clients that wait for it are served before this command.
#[cold]
fn tick(key: &mut Key, most: u8) {
    if key.move_clock() {
        waiting::serve(key, most);
    }
}

/// Replicates the command as it came, signals the change to clients that watch the key, and announces the events. Deletes the
/// pool if the command left it without backends and settings.
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

/// Serves the waiters at the command's key, of the number `most` and lower ones.
#[cold]
fn serve(call: &Call, most: u8) {
    if waits::is_any_at(call.key_ref())
        && let Ok(mut key) = call.key()
    {
        waiting::serve(&mut key, most);
    }
}
