//! Registers the commands with the server: name, flags, keys, documentation.

use std::ffi::CString;
use std::os::raw::{c_char, c_int};
use std::ptr;

use redis_module::raw;

use super::call::Call;
use super::command::{Command, dispatch};
use super::error::Error;
use super::guard::guarded;
use super::info::REFUSED;
use super::reply::Reply;
use super::spec::{Arg, Kind, Spec};

/// An entry of the module's table of commands.
pub struct Entry {
    spec: &'static Spec,
    run: unsafe extern "C" fn(
        *mut raw::RedisModuleCtx,
        *mut *mut raw::RedisModuleString,
        c_int,
    ) -> c_int,
}

/// The entry of command `C`.
pub const fn entry<C: Command>() -> Entry {
    Entry {
        spec: &C::SPEC,
        run: called::<C>,
    }
}

/// The server calls this to run command `C`.
unsafe extern "C" fn called<C: Command>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut *mut raw::RedisModuleString,
    argc: c_int,
) -> c_int {
    let outcome = guarded(C::SPEC.name, || {
        // SAFETY: the server passed these values, and the call ends here.
        dispatch::<C>(&unsafe { Call::new(ctx, argv, argc) });
    });
    if outcome.is_none() {
        Reply::to(ctx).error(Error::bug().message());
        REFUSED.count();
    }
    raw::REDISMODULE_OK as c_int
}

/// Registers a command. Servers from 7.0 on also get its description, and newer ones its ACL categories.
pub fn command(ctx: *mut raw::RedisModuleCtx, entry: &Entry) -> Result<(), String> {
    let spec = entry.spec;
    let failed = |what: &str| Err(format!("the server refuses {what} of {}", spec.name));
    let mut texts = Texts::default();
    let name = texts.text(spec.name);
    let created = api!(RedisModule_CreateCommand(
        ctx,
        name,
        Some(entry.run),
        texts.text(spec.flags),
        1,
        1,
        1
    ));
    if created != raw::REDISMODULE_OK as c_int {
        return failed("the name or the flags");
    }
    let (Some(get_command), Some(set_info)) =
        (unsafe { (raw::RedisModule_GetCommand, raw::RedisModule_SetCommandInfo) })
    else {
        return Ok(());
    };
    // SAFETY: the command was just created. The server copies the description, and everything that it points to lives until
    // the end of this function.
    unsafe {
        let command = get_command(ctx, name);
        let mut keys = [
            key_spec(spec),
            raw::RedisModuleCommandKeySpec {
                ..std::mem::zeroed()
            },
        ];
        let mut arguments = Arguments::default();
        let version = raw::RedisModuleCommandInfoVersion {
            version: 1,
            sizeof_historyentry: size_of::<raw::RedisModuleCommandHistoryEntry>(),
            sizeof_keyspec: size_of::<raw::RedisModuleCommandKeySpec>(),
            sizeof_arg: size_of::<raw::RedisModuleCommandArg>(),
        };
        let description = raw::RedisModuleCommandInfo {
            version: &version,
            summary: texts.text(spec.summary),
            complexity: texts.text(spec.complexity),
            since: texts.text(spec.since),
            history: ptr::null_mut(),
            tips: ptr::null(),
            arity: spec.arity,
            key_specs: keys.as_mut_ptr(),
            args: arguments.array(spec.args, &mut texts),
        };
        if set_info(command, &description) != raw::REDISMODULE_OK as c_int {
            return failed("the description");
        }
        if let Some(set_categories) = raw::RedisModule_SetCommandACLCategories
            && set_categories(command, texts.text(&categories(ctx, spec)))
                != raw::REDISMODULE_OK as c_int
        {
            return failed("the ACL categories");
        }
    }
    Ok(())
}

/// The ACL categories of the command: the server's own that fit it, and the module's.
fn categories(ctx: *mut raw::RedisModuleCtx, spec: &Spec) -> String {
    let mut categories = spec.categories();
    // 7.4 and newer have this function. From the second command on the category exists already, and the call does nothing.
    if let Some(add) = unsafe { raw::RedisModule_AddACLCategory } {
        // SAFETY: as for every call of the API.
        unsafe { add(ctx, c"lb".as_ptr()) };
        categories.push("lb");
    }
    categories.join(" ")
}

fn key_spec(spec: &Spec) -> raw::RedisModuleCommandKeySpec {
    let flags = spec.key.split(' ').map(|word| match word {
        "RO" => raw::REDISMODULE_CMD_KEY_RO,
        "RW" => raw::REDISMODULE_CMD_KEY_RW,
        "OW" => raw::REDISMODULE_CMD_KEY_OW,
        "access" => raw::REDISMODULE_CMD_KEY_ACCESS,
        "update" => raw::REDISMODULE_CMD_KEY_UPDATE,
        "insert" => raw::REDISMODULE_CMD_KEY_INSERT,
        "delete" => raw::REDISMODULE_CMD_KEY_DELETE,
        other => panic!("{other} is no flag of a key"),
    });
    // SAFETY: in this struct zero means absent.
    let mut key: raw::RedisModuleCommandKeySpec = unsafe { std::mem::zeroed() };
    key.flags = flags.fold(0, |all, flag| all | u64::from(flag));
    key.begin_search_type = raw::RedisModuleKeySpecBeginSearchType_REDISMODULE_KSPEC_BS_INDEX;
    key.bs.index.pos = 1;
    key.find_keys_type = raw::RedisModuleKeySpecFindKeysType_REDISMODULE_KSPEC_FK_RANGE;
    key.fk.range.keystep = 1;
    key
}

/// C strings, kept alive while the server reads them.
#[derive(Default)]
struct Texts(Vec<CString>);

impl Texts {
    fn text(&mut self, text: &str) -> *const c_char {
        self.0
            .push(CString::new(text).expect("no NUL in our texts"));
        self.0.last().expect("just pushed").as_ptr()
    }
}

/// Arrays of arguments, each ended by an argument without a name, kept alive likewise.
#[derive(Default)]
struct Arguments(Vec<Vec<raw::RedisModuleCommandArg>>);

impl Arguments {
    fn array(&mut self, args: &[Arg], texts: &mut Texts) -> *mut raw::RedisModuleCommandArg {
        if args.is_empty() {
            return ptr::null_mut();
        }
        let mut array: Vec<_> = args.iter().map(|arg| self.argument(arg, texts)).collect();
        // SAFETY: in this struct zero means absent.
        array.push(unsafe { std::mem::zeroed() });
        self.0.push(array);
        self.0.last_mut().expect("just pushed").as_mut_ptr()
    }

    fn argument(&mut self, arg: &Arg, texts: &mut Texts) -> raw::RedisModuleCommandArg {
        use raw::*;
        let (kind, parts): (_, &[Arg]) = match arg.kind {
            Kind::Key => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_KEY, &[]),
            Kind::Text => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_STRING, &[]),
            Kind::Integer => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_INTEGER, &[]),
            Kind::Double => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_DOUBLE, &[]),
            Kind::Token => (
                RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_PURE_TOKEN,
                &[],
            ),
            Kind::OneOf(parts) => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_ONEOF, parts),
            Kind::Block(parts) => (RedisModuleCommandArgType_REDISMODULE_ARG_TYPE_BLOCK, parts),
        };
        let optional = if arg.is_optional {
            REDISMODULE_CMD_ARG_OPTIONAL
        } else {
            0
        };
        let multiple = if arg.is_multiple {
            REDISMODULE_CMD_ARG_MULTIPLE
        } else {
            0
        };
        RedisModuleCommandArg {
            name: texts.text(arg.name),
            type_: kind,
            key_spec_index: if let Kind::Key = arg.kind { 0 } else { -1 },
            token: arg.token.map_or(ptr::null(), |token| texts.text(token)),
            summary: ptr::null(),
            since: ptr::null(),
            flags: (optional | multiple) as c_int,
            deprecated_since: ptr::null(),
            subargs: self.array(parts, texts),
            display_text: ptr::null(),
        }
    }
}
