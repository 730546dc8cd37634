//! The ground, which every room may use. It uses nothing of the core.

pub mod bounds;
pub mod chains;
pub mod chance;
pub mod clock;
pub mod digits;
pub mod kept;
pub mod memory;
pub mod name;
pub mod pages;
pub mod row;
pub mod saved;
pub mod sparse;
