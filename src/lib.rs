//! redis-lb.
pub mod lb;
