//! The room that talks to the server: the only one with `unsafe`.
//!
//! Its public types are safe to use: a [`Call`] lends the arguments of one command, and a [`Key`] lends the pool at a key
//! while the key is open. No panic leaves this room: each function that the server calls is guarded.
//!
//! Rejected: the safe layer of the crate `redis-module`. It aborts the server on a NUL byte, uses bytes from a client as a
//! printf format, needs 7.2 for its ACL strings, and costs 700 to 970 instructions a command. We use only its `raw`.

#![allow(unsafe_code)]

/// Calls a function of the module API that every server has since Redis 6.2.
///
/// No call checks that the function exists, because `load` refuses an older server.
macro_rules! api {
    ($name:ident($($argument:expr),* $(,)?)) => {
        unsafe {
            (redis_module::raw::$name.unwrap_unchecked())($($argument),*)
        }
    };
}

/// Makes a module out of a table of commands: defines the function that the server calls when it loads the library.
macro_rules! module {
    ($commands:expr) => {
        /// The server calls this when it loads the module.
        ///
        /// # Safety
        /// See `server::on_load`.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn RedisModule_OnLoad(
            ctx: *mut redis_module::raw::RedisModuleCtx,
            argv: *mut *mut redis_module::raw::RedisModuleString,
            argc: std::os::raw::c_int,
        ) -> std::os::raw::c_int {
            unsafe { $crate::server::on_load(ctx, argv, argc, $commands) }
        }
    };
}

mod allocator;
mod block;
mod call;
mod clock;
mod command;
mod datatype;
mod defrag;
mod error;
mod events;
mod grants;
mod guard;
mod hints;
mod info;
mod key;
mod key_ref;
mod lacking;
mod listening;
mod load;
mod queue;
mod refusal;
mod register;
mod reply;
mod section;
mod sources;
mod spec;
mod timer;
mod value;
mod waiting;
mod waits;

pub use block::Block;
pub use call::{Args, Call};
pub use command::{Access, Command, Effect, carry_out};
pub use error::Error;
#[cfg(feature = "faults")]
pub use guard::fault::arm as arm_fault;
pub use key::{Key, Needed};
pub use load::on_load;
pub(crate) use module;
pub use register::{Entry, entry};
pub use reply::Reply;
pub use spec::{Arg, Kind, Spec};
pub use value::Value;
