//! The commands: one file each.
//!
//! A command parses all its arguments before it changes anything. So a command that fails has changed nothing, and a command
//! that has changed something cannot fail. Both hold on a replica too.

#![forbid(unsafe_code)]

mod add;
pub mod arguments;
mod card;
mod done;
mod epoch;
#[cfg(feature = "faults")]
mod fault;
mod info;
mod leases;
mod limit;
mod list;
mod load;
mod peek;
mod pick;
mod policy;
mod refusals;
mod release;
mod rem;
mod renew;
mod seed;
mod set;
mod state;
mod stats;
mod tick;
mod weight;
mod when;

pub use add::Add;
pub use card::Card;
pub use done::Done;
pub use epoch::Epoch;
#[cfg(feature = "faults")]
pub use fault::Fault;
pub use info::Info;
pub use leases::Leases;
pub use limit::Limit;
pub use list::List;
pub use load::Load;
pub use peek::Peek;
pub use pick::Pick;
pub use policy::Policy;
pub use release::Release;
pub use rem::Rem;
pub use renew::Renew;
pub use seed::Seed;
pub use set::Set;
pub use state::State;
pub use stats::Stats;
pub use tick::Tick;
pub use weight::Weight;
pub use when::When;
