//! One command that a client sent.

use std::os::raw::c_int;

use redis_module::raw;

use super::error::Error;
use super::key::Key;
use super::key_ref::{self, KeyRef};
use super::reply::Reply;
use super::waiting;
use crate::lb::{Millis, Request};

/// One command that a client sent, with the ways to answer it.
pub struct Call {
    pub(super) ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: usize,
}

/// The arguments of a command, its name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    call: &'a Call,
    from: usize,
}

impl Call {
    /// # Safety
    /// The three are what the server handed to a command, and the call ends before the command does.
    pub(super) unsafe fn new(
        ctx: *mut raw::RedisModuleCtx,
        argv: *mut *mut raw::RedisModuleString,
        argc: c_int,
    ) -> Call {
        Call {
            ctx,
            argv,
            argc: argc as usize,
        }
    }

    /// How many arguments there are, with the name of the command.
    pub fn argc(&self) -> usize {
        self.argc
    }

    /// The arguments from that place on: 0 is the command's name, 1 its key.
    pub fn args(&self, from: usize) -> Args<'_> {
        Args { call: self, from }
    }

    /// The argument at that place, which the arity promises.
    pub fn arg(&self, at: usize) -> &[u8] {
        self.bytes(at)
    }

    /// Opens the key, the first argument, to change what is there.
    #[inline(always)]
    pub fn key(&self) -> Result<Key<'_>, Error> {
        Key::open_to_write(self.key_ref())
    }

    /// Opens the key, the first argument, to look.
    pub fn key_to_read(&self) -> Result<Key<'_>, Error> {
        Key::open_to_read(self.key_ref())
    }

    /// The ways to answer.
    pub fn reply(&self) -> Reply {
        Reply::to(self.ctx)
    }

    /// Opens the key, the first argument, to put a value there in place of anything.
    pub fn key_to_replace(&self) -> Key<'_> {
        Key::open_to_replace(self.key_ref())
    }

    /// Whether a command that takes memory must be refused.
    pub fn is_out_of_memory(&self) -> bool {
        let key_ref = self.key_ref();
        key_ref.is_out_of_memory() && !key_ref.must_obey()
    }

    /// Whether the client can be let wait: not in a transaction or a script, and not where the stream is obeyed. A replica that
    /// takes writes has nobody who would serve it.
    pub fn can_wait(&self) -> bool {
        let never = raw::REDISMODULE_CTX_FLAGS_DENY_BLOCKING
            | raw::REDISMODULE_CTX_FLAGS_SLAVE
            | raw::REDISMODULE_CTX_FLAGS_MULTI
            | raw::REDISMODULE_CTX_FLAGS_LUA;
        let key_ref = self.key_ref();
        !key_ref.has_flag(never) && !key_ref.must_obey()
    }

    /// Lets the client wait until it can be given what it asks for, so long at most; 0 = without end. `words` are the request as
    /// it goes into the stream, behind the key.
    pub fn wait(&self, request: &Request, words: Vec<Vec<u8>>, is_array: bool, millis: Millis) {
        waiting::wait(self.key_ref(), request, words, is_array, millis);
    }

    /// The command's key.
    #[inline(always)]
    pub(super) fn key_ref(&self) -> KeyRef {
        KeyRef {
            ctx: self.ctx,
            name: self.string(1),
        }
    }

    fn string(&self, at: usize) -> *mut raw::RedisModuleString {
        assert!(at < self.argc, "the arity was checked");
        // SAFETY: argv has argc strings.
        unsafe { *self.argv.add(at) }
    }

    fn bytes(&self, at: usize) -> &[u8] {
        key_ref::bytes(self.string(at))
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let next = (self.from < self.call.argc).then(|| self.call.bytes(self.from))?;
        self.from += 1;
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.call.argc.saturating_sub(self.from);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Args<'_> {}
