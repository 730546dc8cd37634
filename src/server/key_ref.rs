//! A key by its name: its database, its events and signals, and the commands that run on it.

use std::ffi::CStr;
use std::os::raw::c_int;

use redis_module::raw;

use super::hints::ANY;
use super::sources;

/// The id of the client that replays an AOF.
const AOF_CLIENT: u64 = u64::MAX;

/// A key of the database that the context has selected. It is valid while the context and the name are: during one callback
/// of the server.
#[derive(Clone, Copy)]
pub struct KeyRef {
    pub(super) ctx: *mut raw::RedisModuleCtx,
    pub(super) name: *mut raw::RedisModuleString,
}

impl KeyRef {
    /// Runs `run` with the key of that name in database `db`. Does nothing where that database does not exist.
    pub(super) fn with<T>(
        ctx: *mut raw::RedisModuleCtx,
        db: c_int,
        name: &[u8],
        run: impl FnOnce(KeyRef) -> T,
    ) -> Option<T> {
        if api!(RedisModule_SelectDb(ctx, db)) != raw::REDISMODULE_OK as c_int {
            return None;
        }
        let name = Text::of(ctx, name);
        Some(run(KeyRef { ctx, name: name.0 }))
    }

    /// The database.
    pub(super) fn db(self) -> c_int {
        api!(RedisModule_GetSelectedDb(self.ctx))
    }

    /// The name.
    pub(super) fn bytes<'a>(self) -> &'a [u8] {
        bytes(self.name)
    }

    /// Records that the running command has changed the pool: replicates the command as it came, and signals the change to
    /// clients that watch the key.
    #[inline(always)]
    pub(super) fn changed(self) {
        api!(RedisModule_ReplicateVerbatim(self.ctx));
        self.touched();
    }

    /// Signals to clients that watch the key that it was changed.
    #[inline(always)]
    pub(super) fn touched(self) {
        api!(RedisModule_SignalModifiedKey(self.ctx, self.name));
    }

    /// Announces an event of this module at the key.
    pub(super) fn announce(self, event: &CStr) {
        self.notify(raw::REDISMODULE_NOTIFY_MODULE, event);
    }

    /// Announces an event at the key.
    pub(super) fn notify(self, kind: c_int, event: &CStr) {
        api!(RedisModule_NotifyKeyspaceEvent(
            self.ctx,
            kind,
            event.as_ptr(),
            self.name
        ));
    }

    /// Appends a command on this key to the stream.
    pub(super) fn replicate(self, command: &CStr, arguments: &[&[u8]]) {
        let texts: Vec<Text> = (arguments.iter())
            .map(|argument| Text::of(self.ctx, argument))
            .collect();
        let mut pointers: Vec<_> = texts.iter().map(|text| text.0).collect();
        api!(RedisModule_Replicate(
            self.ctx,
            command.as_ptr(),
            c"sv".as_ptr(),
            self.name,
            pointers.as_mut_ptr(),
            pointers.len(),
        ));
    }

    /// Runs a command on this key, as a client would, and replicates it. Returns false if the server refuses it, for example
    /// because another node has the slot.
    pub(super) fn command(self, command: &CStr, argument: &str) -> bool {
        let answer = Answer::of(api!(RedisModule_Call(
            self.ctx,
            command.as_ptr(),
            c"!sb".as_ptr(),
            self.name,
            argument.as_ptr(),
            argument.len(),
        )));
        answer.is_given() && !answer.is_error()
    }

    /// The MOVED error that a client gets for this key, if another node has the key's slot.
    pub(super) fn moved(self) -> Option<String> {
        let exists = Answer::of(api!(RedisModule_Call(
            self.ctx,
            c"EXISTS".as_ptr(),
            c"s".as_ptr(),
            self.name
        )));
        if exists.is_given() {
            return None;
        }
        // The server refused it: another node has the slot, or the slot is on its way to one. While it is on its way, clients
        // wait on, as with BLPOP.
        let slot = Answer::of(api!(RedisModule_Call(
            self.ctx,
            c"CLUSTER".as_ptr(),
            c"cs".as_ptr(),
            c"KEYSLOT".as_ptr(),
            self.name
        )));
        let nodes = Answer::of(api!(RedisModule_Call(
            self.ctx,
            c"CLUSTER".as_ptr(),
            c"c".as_ptr(),
            c"NODES".as_ptr()
        )));
        if !slot.is_given() || !nodes.is_given() {
            return None;
        }
        let slot = api!(RedisModule_CallReplyInteger(slot.0)) as u64;
        let (address, is_here) = owner(nodes.text()?, slot)?;
        (!is_here).then(|| format!("MOVED {slot} {address}"))
    }

    /// Whether the running command comes from the stream: from a primary, or from an AOF. Then it must do exactly as the stream
    /// says, and must add nothing to it.
    pub(super) fn must_obey(self) -> bool {
        let id = api!(RedisModule_GetClientId(self.ctx));
        let is_replicated = || self.has_flag(raw::REDISMODULE_CTX_FLAGS_REPLICATED);
        id == AOF_CLIENT || sources::is_replicated(id, is_replicated)
    }

    /// Whether a command that takes memory would be refused.
    pub(super) fn is_out_of_memory(self) -> bool {
        // The server compares whole numbers of bytes, and this is their quotient, rounded. So it decides unless it is 1, and it is
        // 0 if memory is not limited.
        let ratio = api!(RedisModule_GetUsedMemoryRatio());
        ratio > 1.0 || ratio == 1.0 && self.has_flag(raw::REDISMODULE_CTX_FLAGS_OOM)
    }

    /// Whether the context has any of these flags. That can cost 2,000 instructions: to set them all, Redis 8 prints the address of
    /// the client. So no path of a pick, a lease or a report asks for them.
    pub(super) fn has_flag(self, flags: u32) -> bool {
        has_flag(self.ctx, flags)
    }

    /// All flags of the context, at the same cost.
    pub(super) fn flags(self) -> u32 {
        flags(self.ctx)
    }
}

/// Whether the context has any of these flags.
pub(super) fn has_flag(ctx: *mut raw::RedisModuleCtx, any_of: u32) -> bool {
    flags(ctx) & any_of != 0
}

fn flags(ctx: *mut raw::RedisModuleCtx) -> u32 {
    api!(RedisModule_GetContextFlags(ctx)) as u32
}

/// The database `db` alone; every database of the server for [`ANY`].
pub(super) fn databases(ctx: *mut raw::RedisModuleCtx, db: c_int) -> std::ops::Range<c_int> {
    if db != ANY {
        return db..db + 1;
    }
    let is_there =
        |db: &c_int| api!(RedisModule_SelectDb(ctx, *db)) == raw::REDISMODULE_OK as c_int;
    0..(0..).take_while(is_there).count() as c_int
}

/// The bytes of a string of the server's. They must not be used longer than the string lives.
pub(super) fn bytes<'a>(string: *const raw::RedisModuleString) -> &'a [u8] {
    let mut len = 0;
    let bytes = api!(RedisModule_StringPtrLen(string, &mut len));
    // SAFETY: the server keeps the string until the callback is done.
    unsafe { std::slice::from_raw_parts(bytes.cast(), len) }
}

/// The address of the node that serves the slot, and whether it is this node. `nodes` is the reply of CLUSTER NODES.
fn owner(nodes: &str, slot: u64) -> Option<(&str, bool)> {
    // <id> <address>@<port>[,<name>] <flags> <primary> <ping> <pong> <epoch> <link> <slot or range> …
    nodes.lines().find_map(|node| {
        let fields: Vec<&str> = node.split(' ').collect();
        let serves = fields.get(8..)?.iter().any(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            match (from.parse(), to.parse()) {
                (Ok(from), Ok(to)) => (from..=to).contains(&slot),
                // `[slot->-node]`: a slot on its way.
                _ => false,
            }
        });
        let (address, _) = fields[1].split_once('@')?;
        serves.then_some((address, fields[2].contains("myself")))
    })
}

/// The server's reply to a command that the module ran; null if the server refused to run it.
pub(super) struct Answer(*mut raw::RedisModuleCallReply);

impl Answer {
    pub(super) fn of(reply: *mut raw::RedisModuleCallReply) -> Answer {
        Answer(reply)
    }

    fn is_given(&self) -> bool {
        !self.0.is_null()
    }

    fn is_error(&self) -> bool {
        api!(RedisModule_CallReplyType(self.0)) == raw::REDISMODULE_REPLY_ERROR as c_int
    }

    /// The text of the array's element at index `at`.
    pub(super) fn element(&self, at: usize) -> Option<String> {
        if !self.is_given() || self.is_error() {
            return None;
        }
        // The element belongs to the array, and must not be freed by itself.
        text(api!(RedisModule_CallReplyArrayElement(self.0, at))).map(str::to_owned)
    }

    fn text(&self) -> Option<&str> {
        text(self.0)
    }
}

fn text<'a>(reply: *mut raw::RedisModuleCallReply) -> Option<&'a str> {
    if reply.is_null() {
        return None;
    }
    let mut len = 0;
    let text = api!(RedisModule_CallReplyStringPtr(reply, &mut len));
    if text.is_null() {
        return None;
    }
    // SAFETY: the text lives until the reply is freed.
    std::str::from_utf8(unsafe { std::slice::from_raw_parts(text.cast(), len) }).ok()
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.0.is_null() {
            api!(RedisModule_FreeCallReply(self.0));
        }
    }
}

/// A server string that the module made and must free.
struct Text(*mut raw::RedisModuleString);

impl Text {
    fn of(_: *mut raw::RedisModuleCtx, bytes: &[u8]) -> Text {
        // No context is passed, so that only the module frees it.
        let none = std::ptr::null_mut();
        Text(api!(RedisModule_CreateString(
            none,
            bytes.as_ptr().cast(),
            bytes.len()
        )))
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        api!(RedisModule_FreeString(std::ptr::null_mut(), self.0));
    }
}

/// A random number.
pub(super) fn entropy() -> u64 {
    let mut bytes = [0; 8];
    api!(RedisModule_GetRandomBytes(bytes.as_mut_ptr(), bytes.len()));
    u64::from_ne_bytes(bytes)
}
