//! The core held against a naive form of itself, against nginx, and against its own copies.

mod bounds;
mod costs;
mod growth;
mod hash;
mod house;
mod naive;
mod naive_health;
mod nginx;
mod portions;
mod properties;
mod tiers;
