//! The core: a pool of backends as a deterministic state machine.
//!
//! Same state and same command give the same result, on every machine and in every release that knows the
//! pool's rules. Nothing of Redis is imported here; no clock, no entropy. Trees, tables and vacant slots only speed things up.
//! They are layout: they are not saved, and never show in a result.
//!
//! The rooms, from the inside out. Each one knows only those before it.
//!
//! - `ground`: memory, names, the clock, chance, and how things are kept for slots and saved.
//! - `roster`: the members. `account`: clock, leases, limits, tallies. `field`: all that an algorithm sees of the backends.
//! - `pick`: the algorithms. Each sees a view, and changes only what it keeps of its own.
//! - `pool`: all of these together, in step. One file for each kind of command.
//! - [`codec`]: pools as bytes.

#![forbid(unsafe_code)]

mod account;
pub mod codec;
mod field;
mod ground;
mod pick;
mod pool;
mod roster;

pub use account::{
    BALANCE_LEAST, BALANCE_MOST, COSTS_MAX, Cost, CostLimit, Effects, EpochText, FAILS_MAX,
    HealthSettings, HealthWord, IdText, LEASES_MAX, LOAD_MAX, LOAD_ONE, Lease, LeaseId, LeaseTerms,
    Limits, Order, Outcome, QueueSettings, RATE_MAX, Rate, Report, Tally, WAITING_MAX,
};
pub use field::State;
pub use ground::bounds::{
    BACKENDS_MAX, COSTS_NAMED_MAX, COUNT_MAX, EXCLUDE_MAX, NAME_MAX, SESSIONS_MAX, Slot, Slots,
    TIERS_MAX, WEIGHT_MAX,
};
pub use ground::clock::{CLOCK_MAX, Millis, SPAN_MAX, STEP, shown};
pub use ground::digits;
pub use ground::memory::Mover;
pub use ground::name::Name;
pub use pick::{ALGORITHMS, Algorithm, FORESEEABLE, POLICIES};
pub use pool::{
    Added, Availability, Backend, Granted, HealthOf, Limited, Picked, Pool, Replaced, Request,
    Sticky, session_hash,
};
