//! Replies, in RESP2 and RESP3.

use std::ffi::{CStr, CString};
use std::os::raw::c_long;

use redis_module::raw;

use super::error::Error;
use super::info::REFUSED;
use crate::lb::{EpochText, IdText, LeaseId, Picked, Pool};

/// The reply to a command.
#[derive(Clone, Copy)]
pub struct Reply {
    ctx: *mut raw::RedisModuleCtx,
}

impl Reply {
    pub(super) fn to(ctx: *mut raw::RedisModuleCtx) -> Reply {
        Reply { ctx }
    }

    /// `OK`
    pub fn ok(self) {
        self.simple_text(c"OK");
    }

    /// A simple string.
    pub fn simple(self, word: &str) {
        self.simple_text(&CString::new(word).unwrap_or_default());
    }

    fn simple_text(self, word: &CStr) {
        api!(RedisModule_ReplyWithSimpleString(self.ctx, word.as_ptr()));
    }

    /// The picked backends: an array, or one alone. With leases each one is a pair of backend and lease.
    pub fn picked(self, pool: Option<&Pool>, picked: &Picked, is_array: bool) {
        match pool {
            Some(pool) => {
                self.given(pool.names(&picked.slots), picked.lease, is_array);
            }
            None => self.given(std::iter::empty(), None, is_array),
        }
    }

    /// The same, from the names and the lease of the first. The leases of the others have the following numbers.
    pub(super) fn given<'a>(
        self,
        names: impl ExactSizeIterator<Item = &'a [u8]>,
        lease: Option<LeaseId>,
        is_array: bool,
    ) {
        if is_array {
            self.array(names.len());
        } else if names.len() == 0 {
            self.nil();
        }
        let Some(first) = lease else {
            return names.for_each(|name| self.bulk(name));
        };
        let epoch = EpochText::of(first.epoch);
        for (name, number) in names.zip(first.number..) {
            self.granted(name, &epoch.id(number));
        }
    }

    /// A backend and the lease on it.
    #[inline(always)]
    pub fn granted(self, name: &[u8], lease: &IdText) {
        self.array(2);
        self.bulk(name);
        self.bulk(lease.as_bytes());
    }

    /// One field of a map: its name and a number.
    pub fn field(self, field: &str, value: usize) {
        self.bulk(field.as_bytes());
        self.integer(value);
    }

    /// -1, for a time that never comes.
    pub fn never(self) {
        api!(RedisModule_ReplyWithLongLong(self.ctx, -1));
    }

    /// A number.
    pub fn integer(self, number: usize) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        api!(RedisModule_ReplyWithLongLong(self.ctx, number));
    }

    /// A number that may be below zero.
    pub fn signed(self, number: i64) {
        api!(RedisModule_ReplyWithLongLong(self.ctx, number));
    }

    /// A bulk string: any bytes.
    pub fn bulk(self, bytes: &[u8]) {
        api!(RedisModule_ReplyWithStringBuffer(
            self.ctx,
            bytes.as_ptr().cast(),
            bytes.len()
        ));
    }

    /// The protocol's null.
    pub fn nil(self) {
        api!(RedisModule_ReplyWithNull(self.ctx));
    }

    /// The head of an array of `len` elements. They must follow.
    pub fn array(self, len: usize) {
        api!(RedisModule_ReplyWithArray(self.ctx, len as c_long));
    }

    /// The head of a map of `len` pairs. Keys and values must follow in turn. In RESP2 it is a flat array.
    pub fn map(self, len: usize) {
        // On 6.2 modules cannot reply with maps, even to clients that speak RESP3.
        match unsafe { raw::RedisModule_ReplyWithMap } {
            Some(reply) => {
                // SAFETY: as for every call of the API.
                unsafe { reply(self.ctx, len as c_long) };
            }
            None => self.array(2 * len),
        }
    }

    /// The error of a command that turned out to be impossible only when it ran.
    pub fn refused(self, error: &Error) {
        self.error(error.message());
        REFUSED.count();
    }

    pub(super) fn error(self, message: &str) {
        let message = CString::new(message).unwrap_or_else(|_| c"ERR".into());
        api!(RedisModule_ReplyWithError(self.ctx, message.as_ptr()));
    }

    pub(super) fn wrong_arity(self) {
        api!(RedisModule_WrongArity(self.ctx));
    }
}
