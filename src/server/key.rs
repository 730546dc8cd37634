//! A key, open for as long as somebody looks at it.

use std::marker::PhantomData;
use std::os::raw::c_int;
use std::ptr;

use redis_module::raw;

use super::error::Error;
use super::hints::{AT_ONCE, horizon};
use super::key_ref::{KeyRef, entropy};
use super::listening::{is_deaf, listen};
use super::value::{ProcessNotes, Value, pool_type};
use super::{clock, info, timer, waits};
use crate::lb::{Algorithm, CLOCK_MAX, Millis, Pool, Request, STEP};

/// What a pick needs before it is made.
#[derive(Clone, Copy, Debug)]
pub struct Needed<'a> {
    /// By which algorithm; by the pool's policy where none is named.
    pub algorithm: Option<Algorithm>,
    /// The backends that are passed over.
    pub exclude: &'a [&'a [u8]],
    /// Whether each pick is granted a lease.
    pub is_leasing: bool,
}

impl<'a> Needed<'a> {
    /// What that request needs.
    pub fn by(request: &'a Request) -> Needed<'a> {
        Needed {
            algorithm: request.algorithm,
            exclude: &request.exclude,
            is_leasing: request.terms.is_some(),
        }
    }
}

/// An open key. Nothing else opens the same key meanwhile: a command has one key and runs alone.
pub struct Key<'a> {
    key_ref: KeyRef,
    raw: *mut raw::RedisModuleKey,
    /// Null where the key is missing. Never one that is poisoned: of such a key there is no `Key`.
    value: *mut Value,
    /// Whether a panic from now on can leave the pool half-changed.
    is_lent: bool,
    call: PhantomData<&'a ()>,
}

impl Key<'_> {
    #[inline(always)]
    pub(super) fn open(key_ref: KeyRef, mode: u32) -> Result<Self, Error> {
        let raw = Key::open_raw(key_ref, mode);
        let value = if api!(RedisModule_ModuleTypeGetType(raw)) == pool_type() {
            let value: *mut Value = api!(RedisModule_ModuleTypeGetValue(raw)).cast();
            // SAFETY: values of this type are made by `set` or `datatype`, from a `Box<Value>`.
            match unsafe { &*value } {
                Value::Pool(..) => Ok(value),
                Value::Poisoned => Err(Error::poisoned()),
            }
        } else if api!(RedisModule_KeyType(raw)) == raw::REDISMODULE_KEYTYPE_EMPTY as c_int {
            Ok(ptr::null_mut())
        } else {
            Err(Error::wrong_type())
        };
        // Made here and not before: to fill it in later costs each command ten moves.
        match value {
            Ok(value) => Ok(Key::of(key_ref, raw, value)),
            Err(error) => {
                drop(Key::of(key_ref, raw, ptr::null_mut()));
                Err(error)
            }
        }
    }

    /// Opens it to look, or to note something that is no part of the pool, where no client asked for it: from 7.2 on the server
    /// counts and announces no access.
    pub(super) fn open_unasked(key_ref: KeyRef) -> Result<Self, Error> {
        let unseen = raw::REDISMODULE_OPEN_KEY_NOTOUCH
            | raw::REDISMODULE_OPEN_KEY_NONOTIFY
            | raw::REDISMODULE_OPEN_KEY_NOSTATS;
        Key::open(key_ref, raw::REDISMODULE_READ | unseen)
    }

    /// Opens it to look.
    pub(super) fn open_to_read(key_ref: KeyRef) -> Result<Self, Error> {
        Key::open(key_ref, raw::REDISMODULE_READ)
    }

    /// Opens it to change what is there.
    #[inline(always)]
    pub(super) fn open_to_write(key_ref: KeyRef) -> Result<Self, Error> {
        Key::open(key_ref, raw::REDISMODULE_READ | raw::REDISMODULE_WRITE)
    }

    /// The pool, to look at it.
    pub fn pool(&self) -> Option<&Pool> {
        // SAFETY: the value lives as long as the key is open, and is lent as `&mut` only through `&mut self`.
        unsafe { self.value.as_ref() }.map(|value| match value {
            Value::Pool(pool, _) => pool,
            // SAFETY: so says the field.
            Value::Poisoned => unsafe { std::hint::unreachable_unchecked() },
        })
    }

    /// The pool, to change it.
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

    /// The pool, to change it; a new one where the key is missing.
    pub fn pool_or_new(&mut self) -> &mut Pool {
        if self.value.is_null() {
            self.set(Value::pool(Pool::new()));
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

    /// Brings the pool's clock up to the time; says whether it moved.
    pub(super) fn move_clock(&mut self) -> bool {
        let key_ref = self.key_ref;
        let Some((pool, local)) = self.parts().filter(|_| !clock::is_manual()) else {
            return false;
        };
        let time = time(pool, local, key_ref).filter(|time| time / STEP > pool.clock() / STEP);
        let Some(time) = time.filter(|_| !key_ref.must_obey()) else {
            return false;
        };
        pool.tick(time);
        key_ref.replicate(c"LB.TICK", &[time.to_string().as_bytes()]);
        key_ref.touched();
        true
    }

    /// Whether a client may not set the pool's clock to that, because it is not so late yet.
    pub fn is_ahead_of_time(&mut self, clock: Millis) -> bool {
        let key_ref = self.key_ref;
        let Some((pool, local)) = self.parts().filter(|_| !clock::is_manual()) else {
            return false;
        };
        clock > pool.clock()
            && !key_ref.must_obey()
            && time(pool, local, key_ref).is_none_or(|time| clock > time)
    }

    /// A hint led here, for that time: to what the pool's clock is to be moved because something is due. Not so far that more than so
    /// many leases end at once, if that can be helped.
    pub(super) fn look(&mut self, hint: Millis, is_primary: bool, most: usize) -> Option<Millis> {
        let key_ref = self.key_ref;
        let (pool, local) = self.parts()?;
        let is_the_one = hint == AT_ONCE || local.as_ref().is_none_or(|l| l.is_hinted(hint));
        let is_of_use = is_the_one && pool.due().is_some();
        let time = match is_of_use && is_primary {
            true => time(pool, local, key_ref).and_then(|time| pool.due_by(time, most)),
            false => None,
        };
        // It is out of the list, also where nothing is due any more: what is due later needs another.
        if let Some(local) = local.as_mut().filter(|_| is_the_one) {
            local.hint = None;
        }
        // Where nothing is to be done now, the next hint is noted when the key is closed.
        self.is_lent = is_of_use && is_primary && time.is_none();
        if is_of_use && !is_primary {
            self.hint_at(horizon(clock::now()));
        }
        time
    }

    /// The pool has come to this key in another way than by a command of ours.
    pub(super) fn arrived(&mut self) {
        if let Some((_, Some(local))) = self.parts() {
            local.hint = None;
        }
    }

    /// Sees to it that there is a hint for what is due next.
    #[cold]
    fn hint(&mut self) {
        let Some((pool, local)) = self.parts() else {
            return;
        };
        let Some(due) = pool.due() else {
            return;
        };
        let clock = pool.clock();
        let (ahead, hint) = local.as_ref().map_or((0, None), |l| (l.ahead, l.hint));
        let at = due.saturating_sub(ahead);
        if waits::is_any_at(self.key_ref) {
            // A clock moves in steps.
            let next_step = (clock + 1).next_multiple_of(STEP);
            timer::wake(self.key_ref.ctx, at.max(next_step.saturating_sub(ahead)));
        }
        if hint.is_none_or(|hint| at < hint) || is_deaf() {
            self.hint_at(at.min(horizon(clock::now())));
        }
    }

    fn hint_at(&mut self, time: Millis) {
        let key_ref = self.key_ref;
        if let Some((_, local)) = self.parts() {
            local.get_or_insert_default().hint = Some(time);
            listen(key_ref.ctx);
            timer::remember(time, key_ref.db(), key_ref.bytes());
        }
    }

    // Chance and epochs, of which the primary decides and which it puts into the stream

    /// Sees to what such a pick will need: the first pick by chance in a pool's life a seed, and the first lease after anything
    /// that may have doubled the pool an epoch.
    #[inline(always)]
    pub(super) fn prepare(&mut self, needed: &Needed) {
        let Some(pool) = self.pool() else {
            return;
        };
        let needs_seed = pool.needs_seed(needed.algorithm, needed.exclude);
        if needs_seed {
            self.seed();
        }
        if needed.is_leasing {
            self.open_epoch_if_needed(needed.exclude);
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

    /// Opens that epoch, as a command says; false where there is no pool. It is not this process's own: another process, or a
    /// client, may have granted leases of it. So what this one grants next is of another; save on a server for tests, where the
    /// ids of leases are as foreseeable as its time.
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

    fn open_epoch_if_needed(&mut self, exclude: &[&[u8]]) {
        let key_ref = self.key_ref;
        if let Some((pool, local)) = self.parts().filter(|(pool, _)| pool.has_eligible(exclude)) {
            let local = local.get_or_insert_default();
            if local.term != clock::term() && !key_ref.must_obey() {
                let epoch = entropy();
                pool.open_epoch(epoch);
                local.term = clock::term();
                key_ref.replicate(c"LB.EPOCH", &[epoch.to_string().as_bytes()]);
            }
        }
    }

    // What the rest of this room needs

    pub(super) fn key_ref(&self) -> KeyRef {
        self.key_ref
    }

    /// A panic came while the pool was lent: nothing of it is used any more.
    #[cold]
    pub(super) fn poison(&mut self) {
        // What is there is forgotten, not dropped: dropping what is half-changed may panic again.
        // SAFETY: the value lives as long as the key is open, and is looked at no more through this one.
        unsafe { self.value.write(Value::Poisoned) };
        self.value = ptr::null_mut();
        info::POISONED.count();
    }

    /// Opens it to put a value there, whatever is there.
    pub(super) fn open_to_replace(key_ref: KeyRef) -> Self {
        let raw = Key::open_raw(key_ref, raw::REDISMODULE_READ | raw::REDISMODULE_WRITE);
        Key::of(key_ref, raw, ptr::null_mut())
    }

    /// Whether nothing at all is there.
    pub fn is_missing(&self) -> bool {
        api!(RedisModule_KeyType(self.raw)) == raw::REDISMODULE_KEYTYPE_EMPTY as c_int
    }

    /// Puts that value there, in place of anything.
    pub fn replace(&mut self, value: Value) {
        self.is_lent = matches!(value, Value::Pool(..));
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

    fn set(&mut self, value: Value) {
        self.value = Box::into_raw(Box::new(value));
        api!(RedisModule_ModuleTypeSetValue(
            self.raw,
            pool_type(),
            self.value.cast()
        ));
    }
}

/// What time it is for that pool. Its clock never stands still: where it is ahead of the server's, it runs on from there.
/// Only the latest time that a clock can show is the end of it. Nothing where the stream says what time it is.
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

impl Drop for Key<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.is_lent && !self.value.is_null() {
            if std::thread::panicking() {
                self.poison();
            } else if self.pool().is_some_and(Pool::is_timed) && !clock::is_manual() {
                self.hint();
            }
        }
        api!(RedisModule_CloseKey(self.raw));
    }
}
