//! The commands: one file each.
//!
//! Each reads its arguments whole before it changes anything, so that a command that fails has changed nothing; and one
//! that has changed something cannot fail, on a replica neither.

#![forbid(unsafe_code)]

mod add;
pub mod arguments;
mod card;
mod error;
#[cfg(feature = "faults")]
mod fault;
mod info;
mod list;
mod load;
mod peek;
mod pick;
mod policy;
mod rem;
mod seed;
mod set;
mod spec;
mod state;
mod stats;
mod weight;

pub use add::Add;
pub use card::Card;
pub use error::Error;
#[cfg(feature = "faults")]
pub use fault::Fault;
pub use info::Info;
pub use list::List;
pub use load::Load;
pub use peek::Peek;
pub use pick::Pick;
pub use policy::Policy;
pub use rem::Rem;
pub use seed::Seed;
pub use set::Set;
pub use spec::{Arg, Kind, Spec};
pub use state::State;
pub use stats::Stats;
pub use weight::Weight;

use crate::server::Call;

/// A command of the module.
pub trait Command {
    /// What the server is told of it.
    const SPEC: Spec;

    /// Does it and answers it, or says what is wrong.
    fn run(call: &Call) -> Result<(), Error>;
}
