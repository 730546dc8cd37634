//! An open key, and the pool at it.

use std::marker::PhantomData;
use std::os::raw::c_int;
use std::ptr;
use std::time::Duration;

use redis_module::raw;

use super::error::Error;
use super::hints::{AT_ONCE, horizon};
use super::key_ref::{KeyRef, entropy};
use super::listening::{is_deaf, listen};
use super::value::{ProcessNotes, Value, pool_type};
use super::{clock, info, timer, waits};
use crate::lb::{Algorithm, CLOCK_MAX, Millis, Pool, QueueSettings, Request, STEP};

/// The properties of a pick that decide what the pool needs first: a seed, an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Needed<'a> {
    /// The algorithm; `None` means the pool's policy.
    pub algorithm: Option<Algorithm>,
    /// Whether each pick gets a lease.
    pub is_leasing: bool,
    /// The request, if it says more than that.
    pub request: Option<&'a Request<'a>>,
}

impl<'a> Needed<'a> {
    /// Those of a pick of one backend that says no more.
    #[inline(always)]
    pub fn of_one(algorithm: Option<Algorithm>, is_leasing: bool) -> Needed<'a> {
        Needed {
            algorithm,
            is_leasing,
            request: None,
        }
    }

    /// The properties of this request.
    pub fn by(request: &'a Request) -> Needed<'a> {
        Needed {
            algorithm: request.algorithm,
            is_leasing: request.terms.is_some(),
            request: Some(request),
        }
    }

    /// The backends that must not be picked.
    fn exclude(self) -> &'a [&'a [u8]] {
        self.request.map_or(&[], |request| &request.exclude)
    }

    /// Whether there is a backend for the pick.
    fn can_be_met(self, pool: &Pool) -> bool {
        match self.request.and_then(|request| request.sticky.as_ref()) {
            Some(sticky) => pool.has_eligible_for_session(self.exclude(), sticky),
            None => pool.has_eligible(self.exclude()),
        }
    }
}

/// An open key. Nothing else opens the same key meanwhile, because a command has one key and runs alone.
pub struct Key<'a> {
    key_ref: KeyRef,
    raw: *mut raw::RedisModuleKey,
    /// Null if the key is missing. It is never a poisoned value: opening such a key fails.
    value: *mut Value,
    /// Whether the pool was lent as `&mut`, so that a panic can leave it half-changed.
    is_lent: bool,
    call: PhantomData<&'a ()>,
}

impl Key<'_> {
    #[inline(always)]
    pub(super) fn open(key_ref: KeyRef, mode: u32) -> Result<Self, Error> {
        let raw = Key::open_raw(key_ref, mode);
        let value = if api!(RedisModule_ModuleTypeGetType(raw)) == pool_type() {
            let value: *mut Value = api!(RedisModule_ModuleTypeGetValue(raw)).cast();
            // SAFETY: `set` and `datatype` make every value of this type, from a `Box<Value>`.
            match unsafe { &*value } {
                Value::Pool(..) => Ok(value),
                Value::Poisoned => Err(Error::poisoned()),
            }
        } else if api!(RedisModule_KeyType(raw)) == raw::REDISMODULE_KEYTYPE_EMPTY as c_int {
            Ok(ptr::null_mut())
        } else {
            Err(Error::wrong_type())
        };
        // The `Key` is made here and not before: filling it in later costs each command ten moves.
        match value {
            Ok(value) => Ok(Key::of(key_ref, raw, value)),
            Err(error) => {
                drop(Key::of(key_ref, raw, ptr::null_mut()));
                Err(error)
            }
        }
    }

    /// Opens it when no client asked for it, to read the pool or to change its [`ProcessNotes`]. From 7.2 on the server neither
    /// counts nor announces such an access.
    pub(super) fn open_unasked(key_ref: KeyRef) -> Result<Self, Error> {
        let unseen = raw::REDISMODULE_OPEN_KEY_NOTOUCH
            | raw::REDISMODULE_OPEN_KEY_NONOTIFY
            | raw::REDISMODULE_OPEN_KEY_NOSTATS;
        Key::open(key_ref, raw::REDISMODULE_READ | unseen)
    }

    /// Opens it for reading.
    pub(super) fn open_to_read(key_ref: KeyRef) -> Result<Self, Error> {
        Key::open(key_ref, raw::REDISMODULE_READ)
    }

    /// Opens it for writing.
    #[inline(always)]
    pub(super) fn open_to_write(key_ref: KeyRef) -> Result<Self, Error> {
        Key::open(key_ref, raw::REDISMODULE_READ | raw::REDISMODULE_WRITE)
    }

    /// The pool, for reading.
    pub fn pool(&self) -> Option<&Pool> {
        self.seen().map(|(pool, _)| pool)
    }

    #[inline(always)]
    fn seen(&self) -> Option<(&Pool, Option<&ProcessNotes>)> {
        // SAFETY: the value lives while the key is open, and is lent as `&mut` only through `&mut self`.
        unsafe { self.value.as_ref() }.map(|value| match value {
            Value::Pool(pool, local) => (pool, local.as_deref()),
            // SAFETY: so says the field.
            Value::Poisoned => unsafe { std::hint::unreachable_unchecked() },
        })
    }

    /// The pool, for writing.
    pub fn pool_mut(&mut self) -> Option<&mut Pool> {
        self.parts().map(|(pool, _)| pool)
    }

    fn parts(&mut self) -> Option<(&mut Pool, &mut Option<Box<ProcessNotes>>)> {
        self.is_lent = true;
        // SAFETY: as above.
        unsafe { self.value.as_mut() }.map(|value| match value {
            Value::Pool(pool, local) => (pool, local),
            // SAFETY: so says the field.
            Value::Poisoned => unsafe { std::hint::unreachable_unchecked() },
        })
    }

    /// The pool, for writing. Creates a pool if the key is missing.
    pub fn pool_or_new(&mut self) -> &mut Pool {
        if self.value.is_null() {
            self.set(Box::new(Value::pool(Pool::new())));
        }
        self.pool_mut().expect("it was just made")
    }

    /// Deletes the key if its pool has neither backends nor settings.
    pub(super) fn delete_if_void(&mut self) {
        if self.pool().is_some_and(Pool::is_void) {
            api!(RedisModule_DeleteKey(self.raw));
            self.value = ptr::null_mut();
            self.key_ref.notify(raw::REDISMODULE_NOTIFY_GENERIC, c"del");
        }
    }

    // Time

    /// Whether time matters in the pool.
    #[inline(always)]
    pub(super) fn is_timed(&self) -> bool {
        self.pool().is_some_and(Pool::is_timed)
    }

    /// Moves the pool's clock to the present, clears some of the things that are over, and replicates that as LB.TICK. Returns
    /// whether there was anything to do.
    #[inline(always)]
    pub(super) fn move_clock(&mut self) -> bool {
        !self.is_at_present() && self.move_clock_to_present()
    }

    /// Whether there is nothing to do for [`Key::move_clock`]. With many commands in a step that is so for nearly all.
    #[inline(always)]
    pub(super) fn is_at_present(&self) -> bool {
        match self.seen() {
            Some((pool, local)) => pool.is_in_step(led(local)) && !pool.is_any_over(),
            None => true,
        }
    }

    #[inline(never)]
    fn move_clock_to_present(&mut self) -> bool {
        let key_ref = self.key_ref;
        let Some((pool, local)) = self.parts().filter(|_| !clock::is_manual()) else {
            return false;
        };
        let is_of_use = |time: &Millis| *time / STEP > pool.clock() / STEP || pool.is_any_over();
        let time = time(pool, local, key_ref).filter(is_of_use);
        let Some(time) = time.filter(|_| !key_ref.must_obey()) else {
            return false;
        };
        pool.tick(time);
        key_ref.replicate(c"LB.TICK", &[time.to_string().as_bytes()]);
        key_ref.touched();
        true
    }

    /// Whether `clock` is later than the present time of the pool, so that a client must not set the pool's clock to it.
    pub fn is_ahead_of_time(&mut self, clock: Millis) -> bool {
        let key_ref = self.key_ref;
        let Some((pool, local)) = self.parts().filter(|_| !clock::is_manual()) else {
            return false;
        };
        clock > pool.clock()
            && !key_ref.must_obey()
            && time(pool, local, key_ref).is_none_or(|time| clock > time)
    }

    /// How long ago the pool's clock showed the present time. 0 where that must not be asked: on a replica, which follows the time of
    /// its primary, and in a script, which 6.2 runs again on its replicas.
    pub fn lag(&self) -> Millis {
        let (primary, script) = (
            raw::REDISMODULE_CTX_FLAGS_MASTER,
            raw::REDISMODULE_CTX_FLAGS_LUA,
        );
        if clock::is_manual() || self.key_ref.flags() & (primary | script) != primary {
            return 0;
        }
        self.seen()
            .map_or(0, |(pool, local)| led(local).saturating_sub(pool.clock()))
    }

    /// Follows a hint to this key. Returns the time to which to move the pool's clock, if something is due. That time is chosen so
    /// that the tick ends at most `most` leases, unless more have the same deadline. On a replica nothing is returned, and a
    /// new hint is added.
    pub(super) fn look(&mut self, hint: Millis, is_primary: bool, most: usize) -> Option<Millis> {
        let key_ref = self.key_ref;
        let (pool, local) = self.parts()?;
        let is_the_one = hint == AT_ONCE || local.as_ref().is_none_or(|l| l.is_hinted(hint));
        let is_of_use = is_the_one && pool.due().is_some();
        let time = match is_of_use && is_primary {
            true => time(pool, local, key_ref).and_then(|time| pool.due_by(time, most)),
            false => None,
        };
        // The hint is out of the list, even if nothing is due any more. Anything that is due later needs a new hint.
        if let Some(local) = local.as_mut().filter(|_| is_the_one) {
            local.hint = None;
        }
        // If there is nothing to do now, closing the key adds the next hint.
        self.is_lent = is_of_use && is_primary && time.is_none();
        if is_of_use && !is_primary {
            self.hint_at(horizon(clock::now()));
        }
        time
    }

    /// The present time of the pool; `None` where only LB.TICK tells it.
    pub(super) fn present(&mut self) -> Option<Millis> {
        let key_ref = self.key_ref;
        let (pool, local) = self.parts().filter(|_| !clock::is_manual())?;
        time(pool, local, key_ref)
    }

    /// The server's time when the pool's clock shows that time.
    pub(super) fn server_time(&self, clock: Millis) -> Millis {
        let local = self.seen().and_then(|(_, local)| local);
        clock.saturating_sub(local.map_or(0, |local| local.ahead))
    }

    /// Notes that the pool has come to this key without a command of ours: no hint leads to it yet.
    pub(super) fn arrived(&mut self) {
        if let Some((_, Some(local))) = self.parts() {
            local.hint = None;
        }
    }

    /// Whether there is nothing to do for [`Key::hint`].
    #[inline(always)]
    fn is_hinted(&self) -> bool {
        let Some((due, local)) = (self.seen()).and_then(|(pool, local)| Some((pool.due()?, local)))
        else {
            return true;
        };
        let is_hinted = |local: &ProcessNotes| {
            let at = due.saturating_sub(local.ahead);
            local.hint.is_some_and(|hint| hint <= at)
        };
        local.is_some_and(is_hinted) && !waits::is_any() && !is_deaf()
    }

    /// Makes sure that a hint exists for the next time at which something is due in the pool.
    #[inline(never)]
    fn hint(&mut self) {
        let Some((pool, local)) = self.parts() else {
            return;
        };
        let Some(due) = pool.due() else {
            return;
        };
        let (ahead, hint) = local.as_ref().map_or((0, None), |l| (l.ahead, l.hint));
        let at = due.saturating_sub(ahead);
        if waits::is_any() {
            self.wake(at, ahead);
        }
        if hint.is_none_or(|hint| at < hint) || is_deaf() {
            self.hint_at(at.min(horizon(clock::now())));
        }
    }

    /// Makes the timer fire at that time of the server, when something is due, if a client waits at this key.
    #[cold]
    fn wake(&mut self, at: Millis, ahead: Millis) {
        let Some(pool) = self.pool().filter(|_| waits::is_any_at(self.key_ref)) else {
            return;
        };
        // A clock moves in steps. Only for things that are over already it need not move.
        let next_tick = match pool.is_any_over() {
            true => at,
            false => at.max(
                (pool.clock() + 1)
                    .next_multiple_of(STEP)
                    .saturating_sub(ahead),
            ),
        };
        timer::wake(self.key_ref.ctx, next_tick);
    }

    #[cold]
    fn hint_at(&mut self, time: Millis) {
        let key_ref = self.key_ref;
        if let Some((_, local)) = self.parts() {
            local.get_or_insert_default().hint = Some(time);
            listen(key_ref.ctx);
            timer::remember(time, key_ref.db(), key_ref.bytes());
        }
    }

    // Rules, seeds and epochs: the primary chooses them and replicates them

    /// Whether the command comes from the primary or from the AOF: it ran there, so it is not refused here.
    #[cold]
    pub fn must_obey(&self) -> bool {
        self.key_ref.must_obey()
    }

    /// Gives the pool the newest rules, if it never had a lease. Without that command a pool keeps the rules that it has: so a new
    /// replica of an older primary runs it as that primary does.
    #[inline(always)]
    pub(super) fn renew_rules_if_due(&mut self) {
        if self.pool().is_some_and(Pool::is_due_for_new_rules) {
            self.renew_rules();
        }
    }

    #[cold]
    fn renew_rules(&mut self) {
        let key_ref = self.key_ref;
        if let Some(pool) = self.pool_mut()
            && !clock::is_manual()
            && !key_ref.must_obey()
        {
            pool.raise_rules(Pool::RULES);
            key_ref.replicate(c"LB.RULES", &[Pool::RULES.to_string().as_bytes()]);
            key_ref.touched();
        }
    }

    /// Prepares the pool for a pick. The first pick by chance in a pool's life needs a seed. The first lease after an event that
    /// may have duplicated the pool needs an epoch.
    #[inline(always)]
    pub(super) fn prepare(&mut self, needed: Needed) {
        let Some(pool) = self.pool() else {
            return;
        };
        if pool.lacks_seed(needed.algorithm) && pool.has_eligible(needed.exclude()) {
            self.seed();
        }
        if needed.is_leasing {
            self.open_epoch_if_needed(needed);
        }
    }

    #[cold]
    fn seed(&mut self) {
        let key_ref = self.key_ref;
        if let Some(pool) = self.pool_mut()
            && !key_ref.must_obey()
        {
            let seed = entropy();
            pool.seed(seed);
            key_ref.replicate(c"LB.SEED", &[seed.to_string().as_bytes()]);
        }
    }

    /// Opens the epoch that a command names; false if there is no pool. This epoch is not the process's own: another process, or a
    /// client, may have granted leases in it. So this process opens another epoch before its next lease. Except where clocks
    /// are manual, for tests: there the ids of leases must be foreseeable, so the epoch is kept.
    pub fn open_epoch(&mut self, epoch: u64) -> bool {
        let key_ref = self.key_ref;
        let Some((pool, local)) = self.parts() else {
            return false;
        };
        pool.open_epoch(epoch);
        let is_kept = clock::is_manual() && !key_ref.must_obey();
        if let Some(local) = local.as_mut().filter(|_| !is_kept) {
            local.term = 0;
        }
        true
    }

    #[inline(always)]
    fn open_epoch_if_needed(&mut self, needed: Needed) {
        let is_of_this_term = |local: &ProcessNotes| local.term == clock::term();
        let notes = self.parts().and_then(|(_, local)| local.as_deref());
        if !notes.is_some_and(is_of_this_term) {
            self.open_own_epoch(needed);
        }
    }

    #[cold]
    fn open_own_epoch(&mut self, needed: Needed) {
        let key_ref = self.key_ref;
        if let Some((pool, local)) = self.parts().filter(|(pool, _)| needed.can_be_met(pool)) {
            let local = local.get_or_insert_default();
            if !key_ref.must_obey() {
                let epoch = entropy();
                pool.open_epoch(epoch);
                local.term = clock::term();
                key_ref.replicate(c"LB.EPOCH", &[epoch.to_string().as_bytes()]);
            }
        }
    }

    /// Counts a pick that found no backend. The count is a note of this process, no part of the pool.
    #[cold]
    pub fn count_refused(&mut self) {
        if let Some((_, local)) = self.parts() {
            local.get_or_insert_default().refused += 1;
        }
    }

    /// The picks that found no backend, in this process.
    pub fn refused(&self) -> u64 {
        let local = self.seen().and_then(|(_, local)| local);
        local.map_or(0, |local| local.refused)
    }

    /// The settings of the queue of its pool, if there is a pool.
    pub(super) fn queue_settings(&self) -> Option<QueueSettings> {
        self.pool().map(Pool::queue_settings)
    }

    /// The number of clients that wait at this key, and the length of the oldest wait.
    pub fn waits(&self) -> (usize, Duration) {
        waits::standing(self.key_ref)
    }

    // For the rest of this room

    pub(super) fn key_ref(&self) -> KeyRef {
        self.key_ref
    }

    /// Poisons the pool, after a panic while it was lent. Nothing of it is used any more.
    #[cold]
    pub(super) fn poison(&mut self) {
        // The old value is forgotten, not dropped: dropping a half-changed pool may panic again.
        // SAFETY: the value lives while the key is open, and this `Key` does not use it again.
        unsafe { self.value.write(Value::Poisoned) };
        self.value = ptr::null_mut();
        info::POISONED.count();
    }

    /// Opens it to replace its value, whatever its type.
    pub(super) fn open_to_replace(key_ref: KeyRef) -> Self {
        let raw = Key::open_raw(key_ref, raw::REDISMODULE_READ | raw::REDISMODULE_WRITE);
        Key::of(key_ref, raw, ptr::null_mut())
    }

    /// Whether the key is missing.
    pub fn is_missing(&self) -> bool {
        api!(RedisModule_KeyType(self.raw)) == raw::REDISMODULE_KEYTYPE_EMPTY as c_int
    }

    /// Replaces the value at the key by this one.
    pub fn replace(&mut self, value: Box<Value>) {
        self.is_lent = matches!(*value, Value::Pool(..));
        self.set(value);
        if !self.is_lent {
            self.value = ptr::null_mut();
        }
    }

    #[inline(always)]
    fn open_raw(key_ref: KeyRef, mode: u32) -> *mut raw::RedisModuleKey {
        api!(RedisModule_OpenKey(
            key_ref.ctx,
            key_ref.name,
            mode as c_int
        ))
    }

    #[inline(always)]
    fn of(key_ref: KeyRef, raw: *mut raw::RedisModuleKey, value: *mut Value) -> Self {
        Key {
            key_ref,
            raw,
            value,
            is_lent: false,
            call: PhantomData,
        }
    }

    fn set(&mut self, value: Box<Value>) {
        self.value = Box::into_raw(value);
        api!(RedisModule_ModuleTypeSetValue(
            self.raw,
            pool_type(),
            self.value.cast()
        ));
    }
}

/// The server's time, with the lead of the pool's clock.
#[inline(always)]
fn led(local: Option<&ProcessNotes>) -> Millis {
    clock::now() + local.map_or(0, |local| local.ahead)
}

/// The present time of a pool. A pool whose clock is ahead of the server's runs on from its own clock, so its time never
/// stands still before `CLOCK_MAX`. `None` if its clock is ahead and the running command comes from the stream: then the
/// stream sets the time.
fn time(pool: &Pool, local: &mut Option<Box<ProcessNotes>>, key_ref: KeyRef) -> Option<Millis> {
    let now = clock::now();
    let ahead = local.as_ref().map_or(0, |local| local.ahead);
    let time = (now + ahead).min(CLOCK_MAX);
    if time >= pool.clock() {
        return Some(time);
    }
    if key_ref.must_obey() {
        return None;
    }
    local.get_or_insert_default().ahead = pool.clock() - now;
    Some(pool.clock())
}

impl Key<'_> {
    /// Closes it at the end of a command; nothing may use it after that, nor drop it. Dropping does the same, and is left to panics and
    /// to commands that are refused: so it can be out of the way.
    #[inline(always)]
    pub(super) fn close(&mut self) {
        self.follow_up();
        api!(RedisModule_CloseKey(self.raw));
    }

    /// Makes sure of a hint, where the pool was lent and may have changed.
    #[inline(always)]
    fn follow_up(&mut self) {
        if self.is_lent && !self.value.is_null() && !clock::is_manual() && !self.is_hinted() {
            self.hint();
        }
    }
}

impl Drop for Key<'_> {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        match std::thread::panicking() {
            true if self.is_lent && !self.value.is_null() => self.poison(),
            true => {}
            false => self.follow_up(),
        }
        api!(RedisModule_CloseKey(self.raw));
    }
}
