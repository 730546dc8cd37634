//! A pool: the one room that knows all the others, and keeps them in step.

mod backend;
mod costs;
mod flow;
mod health;
mod members;
mod parts;
mod picking;
mod queue;
mod saved;
mod sticky;

pub use backend::Backend;
pub use costs::Limited;
pub use flow::Availability;
pub use health::HealthOf;
pub use members::{Added, Replaced};
pub use parts::Pool;
pub use picking::{Granted, Picked, Request, Sticky};
pub use saved::Format;
pub use sticky::session_hash;
