//! The key of a command, open for as long as the command looks at it.

use std::os::raw::c_int;
use std::ptr;

use redis_module::raw;

use super::call::Call;
use super::{datatype, info};
use crate::commands::Error;
use crate::lb::Pool;

/// What is stored at a key.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are pools; a box costs a cache miss a pick"
)]
pub enum Value {
    /// A pool.
    Pool(Pool),
    /// A panic came half-way through a change. Nothing of such a pool is used any more.
    Poisoned,
}

/// An open key. Nothing else opens the same key meanwhile: a command has one key and runs alone.
pub struct Key<'a> {
    call: &'a Call,
    raw: *mut raw::RedisModuleKey,
    /// Null where the key is missing.
    value: *mut Value,
    /// Whether a panic from now on can leave the pool half-changed.
    is_lent: bool,
}

impl<'a> Key<'a> {
    #[inline(always)]
    pub(super) fn open(call: &'a Call, mode: c_int) -> Result<Key<'a>, Error> {
        let mut key = Key::unread(call, mode);
        let raw = key.raw;
        if api!(RedisModule_ModuleTypeGetType(raw)) == datatype::pool_type() {
            key.value = api!(RedisModule_ModuleTypeGetValue(raw)).cast();
            // SAFETY: values of this type are made by `set` or `datatype`, from a `Box<Value>`.
            match unsafe { &*key.value } {
                Value::Pool(_) => Ok(key),
                Value::Poisoned => Err(Error::poisoned()),
            }
        } else if api!(RedisModule_KeyType(raw)) == raw::REDISMODULE_KEYTYPE_EMPTY as c_int {
            Ok(key)
        } else {
            Err(Error::wrong_type())
        }
    }

    /// The pool, to look at it.
    pub fn pool(&self) -> Option<&Pool> {
        // SAFETY: the value lives as long as the key is open, and is lent as `&mut` only through `&mut self`.
        match unsafe { self.value.as_ref() } {
            Some(Value::Pool(pool)) => Some(pool),
            _ => None,
        }
    }

    /// The pool, to change it.
    pub fn pool_mut(&mut self) -> Option<&mut Pool> {
        self.is_lent = true;
        // SAFETY: as above.
        match unsafe { self.value.as_mut() } {
            Some(Value::Pool(pool)) => Some(pool),
            _ => None,
        }
    }

    /// The pool, to change it; a new one where the key is missing.
    pub fn pool_or_new(&mut self) -> &mut Pool {
        if self.value.is_null() {
            self.set(Value::Pool(Pool::new()));
        }
        self.pool_mut().expect("it was just made")
    }

    /// Deletes the key if its pool has neither backends nor settings.
    pub fn delete_if_void(&mut self) {
        if self.pool().is_some_and(Pool::is_void) {
            api!(RedisModule_DeleteKey(self.raw));
            self.value = ptr::null_mut();
            self.call.notify(raw::REDISMODULE_NOTIFY_GENERIC, c"del");
        }
    }

    /// Puts that value at the command's key, in place of anything that is there if it may be replaced.
    pub(super) fn put(call: &'a Call, value: Value, replace: bool) -> Result<(), Error> {
        let mode = (raw::REDISMODULE_READ | raw::REDISMODULE_WRITE) as c_int;
        let mut key = Key::unread(call, mode);
        let is_missing =
            api!(RedisModule_KeyType(key.raw)) == raw::REDISMODULE_KEYTYPE_EMPTY as c_int;
        if !is_missing && !replace {
            return Err(Error::busy_key());
        }
        key.set(value);
        Ok(())
    }

    fn unread(call: &'a Call, mode: c_int) -> Key<'a> {
        Key {
            call,
            raw: api!(RedisModule_OpenKey(call.ctx, call.key_name(), mode)),
            value: ptr::null_mut(),
            is_lent: false,
        }
    }

    fn set(&mut self, value: Value) {
        self.value = Box::into_raw(Box::new(value));
        api!(RedisModule_ModuleTypeSetValue(
            self.raw,
            datatype::pool_type(),
            self.value.cast()
        ));
    }
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        if self.is_lent && !self.value.is_null() && std::thread::panicking() {
            // What is there is forgotten, not dropped: dropping what is half-changed may panic again.
            // SAFETY: the value lives as long as the key is open.
            unsafe { self.value.write(Value::Poisoned) };
            info::POISONED.count();
        }
        api!(RedisModule_CloseKey(self.raw));
    }
}
