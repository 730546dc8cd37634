//! redis-lb: a load balancer that a whole fleet shares, as a native type of Redis.
//!
//! The map of the house, from the inside out. No room knows of those farther out.
//!
//! - [`lb`]: a pool of backends as a deterministic state machine in plain Rust. It knows nothing of Redis.
//! - [`server`]: the only room with `unsafe`. It registers the commands with the server and lends each command the pool at its key.
//! - [`commands`]: one file for each command: its name and arguments, its parser, its one call of the core, its reply. And
//!   the one table of them.

pub mod commands;
pub mod lb;
pub mod server;

server::module!(commands::COMMANDS);
