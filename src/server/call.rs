//! One command that a client sent.

use std::ffi::CStr;
use std::os::raw::c_int;

use redis_module::raw;

use super::datatype;
use super::key::Key;
use super::reply::Reply;
use crate::commands::Error;

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
        let write = raw::REDISMODULE_READ | raw::REDISMODULE_WRITE;
        Key::open(self, write as c_int)
    }

    /// Opens the key, the first argument, to look.
    pub fn key_to_read(&self) -> Result<Key<'_>, Error> {
        Key::open(self, raw::REDISMODULE_READ as c_int)
    }

    /// The ways to answer.
    pub fn reply(&self) -> Reply {
        Reply::to(self.ctx)
    }

    /// These events came so often by the command. If any did, the pool at its key has changed: the command goes into the
    /// stream as it came, and clients that watch the key or have subscribed to the event hear of it.
    pub fn changed(&self, events: &[(&CStr, usize)]) {
        if events.iter().all(|(_, times)| *times == 0) {
            return;
        }
        self.picked();
        for (event, _) in events.iter().filter(|(_, times)| *times > 0) {
            self.notify(raw::REDISMODULE_NOTIFY_MODULE, event);
        }
    }

    /// The command has changed the pool by picking from it, of which no event is made.
    #[inline(always)]
    pub fn picked(&self) {
        api!(RedisModule_ReplicateVerbatim(self.ctx));
        api!(RedisModule_SignalModifiedKey(self.ctx, self.key_name()));
    }

    /// Announces an event at the command's key.
    pub(super) fn notify(&self, kind: c_int, event: &CStr) {
        api!(RedisModule_NotifyKeyspaceEvent(
            self.ctx,
            kind,
            event.as_ptr(),
            self.key_name()
        ));
    }

    /// Puts the pool that the payload holds at the key.
    pub fn load(&self, payload: &[u8], replace: bool) -> Result<(), Error> {
        let value = datatype::decode(payload)
            .map_err(|malformed| Error::new(format!("ERR the payload is no pool: {malformed}")))?;
        Key::put(self, value, replace)
    }

    /// Whether this command comes from the stream (from a primary, or out of an AOF) and must do what the stream says.
    pub fn must_obey(&self) -> bool {
        let is_from_aof = api!(RedisModule_GetClientId(self.ctx)) == u64::MAX;
        let flags = api!(RedisModule_GetContextFlags(self.ctx)) as u32;
        is_from_aof || flags & raw::REDISMODULE_CTX_FLAGS_REPLICATED != 0
    }

    /// A number that nobody can foresee.
    pub fn entropy(&self) -> u64 {
        let mut bytes = [0; 8];
        api!(RedisModule_GetRandomBytes(bytes.as_mut_ptr(), bytes.len()));
        u64::from_ne_bytes(bytes)
    }

    /// Puts another command on the same key into the stream, before this one.
    pub fn replicate(&self, command: &CStr, argument: &str) {
        api!(RedisModule_Replicate(
            self.ctx,
            command.as_ptr(),
            c"sb".as_ptr(),
            self.key_name(),
            argument.as_ptr(),
            argument.len(),
        ));
    }

    pub(super) fn key_name(&self) -> *mut raw::RedisModuleString {
        self.string(1)
    }

    fn string(&self, at: usize) -> *mut raw::RedisModuleString {
        assert!(at < self.argc, "the arity was checked");
        // SAFETY: argv has argc strings.
        unsafe { *self.argv.add(at) }
    }

    fn bytes(&self, at: usize) -> &[u8] {
        let mut len = 0;
        let bytes = api!(RedisModule_StringPtrLen(self.string(at), &mut len));
        // SAFETY: the server keeps the arguments until the command is done.
        unsafe { std::slice::from_raw_parts(bytes.cast(), len) }
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
