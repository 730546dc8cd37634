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
mod forget;
mod health;
mod health_words;
mod info;
mod leases;
mod limit;
mod limit_words;
mod list;
mod load;
mod peek;
mod pick;
mod policy;
mod queue;
mod refusals;
mod release;
mod rem;
mod renew;
mod report;
mod report_words;
mod rules;
mod seed;
mod set;
mod state;
mod stats;
mod tick;
mod weight;
mod when;

use crate::server::{Entry, entry};

/// The commands of the module, in the order in which users see them listed. A line here makes a command known.
pub(crate) const COMMANDS: &[Entry] = &[
    entry::<add::Add>(),
    entry::<set::Set>(),
    entry::<rem::Rem>(),
    entry::<weight::Weight>(),
    entry::<state::State>(),
    entry::<policy::Policy>(),
    entry::<list::List>(),
    entry::<card::Card>(),
    entry::<pick::Pick>(),
    entry::<peek::Peek>(),
    entry::<forget::Forget>(),
    entry::<done::Done>(),
    entry::<report::Report>(),
    entry::<renew::Renew>(),
    entry::<release::Release>(),
    entry::<leases::Leases>(),
    entry::<limit::Limit>(),
    entry::<health::Health>(),
    entry::<queue::Queue>(),
    entry::<when::When>(),
    entry::<info::Info>(),
    entry::<stats::Stats>(),
    entry::<tick::Tick>(),
    entry::<seed::Seed>(),
    entry::<epoch::Epoch>(),
    entry::<rules::Rules>(),
    entry::<load::Load>(),
    #[cfg(feature = "faults")]
    entry::<fault::Fault>(),
];
