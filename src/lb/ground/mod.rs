//! The ground, which every room may use. It uses nothing of the core.

pub mod bounds;
pub mod chance;
pub mod clock;
pub mod kept;
pub mod memory;
pub mod name;
pub mod row;
pub mod saved;
