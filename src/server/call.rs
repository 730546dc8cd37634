//! One command that a client sent.

use std::os::raw::c_int;

use redis_module::raw;

use super::block::Block;
use super::error::Error;
use super::key::Key;
use super::key_ref::{self, KeyRef};
use super::reply::Reply;
use super::{lacking, waiting};
use crate::lb::Request;

/// One command that a client sent: its arguments, its key and its reply.
pub struct Call {
    pub(super) ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: usize,
}

/// The arguments of a command that are not read yet.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    call: &'a Call,
    from: usize,
}

impl Call {
    /// # Safety
    /// The server passed these three values to a command, and the call must end before the command does.
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

    /// The number of arguments, including the name of the command.
    pub fn argc(&self) -> usize {
        self.argc
    }

    /// The arguments from index `from` on. Index 0 is the command's name, index 1 its key.
    pub fn args(&self, from: usize) -> Args<'_> {
        Args { call: self, from }
    }

    /// The argument at index `at`. The arity must guarantee that it exists.
    pub fn arg(&self, at: usize) -> &[u8] {
        self.bytes(at)
    }

    /// Opens the key for writing.
    #[inline(always)]
    pub fn key(&self) -> Result<Key<'_>, Error> {
        Key::open_to_write(self.key_ref())
    }

    /// Opens the key for reading.
    pub fn key_to_read(&self) -> Result<Key<'_>, Error> {
        Key::open_to_read(self.key_ref())
    }

    /// The reply to the client.
    pub fn reply(&self) -> Reply {
        Reply::to(self.ctx)
    }

    /// Opens the key to replace its value, whatever its type.
    pub fn key_to_replace(&self) -> Key<'_> {
        Key::open_to_replace(self.key_ref())
    }

    /// Whether the server is out of memory, so that a command that takes memory must be refused.
    pub fn is_out_of_memory(&self) -> bool {
        let key_ref = self.key_ref();
        key_ref.is_out_of_memory() && !key_ref.must_obey()
    }

    /// Whether the client can wait. It cannot in a transaction or a script, or where the command comes from the stream. It
    /// cannot on a replica that takes writes either: nothing there would serve it.
    pub fn can_wait(&self) -> bool {
        let never = raw::REDISMODULE_CTX_FLAGS_DENY_BLOCKING
            | raw::REDISMODULE_CTX_FLAGS_SLAVE
            | raw::REDISMODULE_CTX_FLAGS_MULTI
            | raw::REDISMODULE_CTX_FLAGS_LUA;
        let key_ref = self.key_ref();
        !key_ref.has_flag(never) && !key_ref.must_obey()
    }

    /// Whether a client waits at `key`, the command's own, that goes before a request of that number for the same costs.
    pub fn is_behind(&self, key: &Key, request: &Request, prio: u8) -> bool {
        lacking::is_behind(key, request, prio)
    }

    /// Blocks the client until its request can be served. `key` is the command's own. `words` are the arguments behind the key
    /// with which the pick is replicated. If no more clients can wait, it is an error.
    pub fn wait(
        &self,
        key: &mut Key,
        request: &Request,
        block: &Block,
        words: Vec<Vec<u8>>,
        is_array: bool,
    ) -> Result<(), Error> {
        waiting::wait(key, request, block, words, is_array)
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
