//! redis-lb: a load balancer that a whole fleet shares, as a native type of Redis.
//!
//! The map of the house, from the inside out. No room knows of those farther out.
//!
//! - [`lb`]: a pool of backends as a deterministic state machine in plain Rust. It knows nothing of Redis.
//! - [`server`]: the only room with `unsafe`. It registers the commands with the server and lends each command the pool at its key.
//! - [`commands`]: one file for each command: its name and arguments, its parser, its one call of the core, its reply.

pub mod commands;
pub mod lb;
pub mod server;

use server::{Entry, entry};

server::module!(COMMANDS);

/// The commands of the module, in the order in which users see them listed.
const COMMANDS: &[Entry] = &[
    entry::<commands::Add>(),
    entry::<commands::Set>(),
    entry::<commands::Rem>(),
    entry::<commands::Weight>(),
    entry::<commands::State>(),
    entry::<commands::Policy>(),
    entry::<commands::List>(),
    entry::<commands::Card>(),
    entry::<commands::Pick>(),
    entry::<commands::Peek>(),
    entry::<commands::Done>(),
    entry::<commands::Renew>(),
    entry::<commands::Release>(),
    entry::<commands::Leases>(),
    entry::<commands::Limit>(),
    entry::<commands::When>(),
    entry::<commands::Info>(),
    entry::<commands::Stats>(),
    entry::<commands::Tick>(),
    entry::<commands::Seed>(),
    entry::<commands::Epoch>(),
    entry::<commands::Load>(),
    #[cfg(feature = "faults")]
    entry::<commands::Fault>(),
];
