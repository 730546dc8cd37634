//! The rooms of the module that can be had without a server.

#[path = "../../src/lb/mod.rs"]
pub mod lb;

/// How arguments are read.
#[path = "../../src/commands"]
pub mod commands {
    pub mod arguments;
    pub mod health_words;
    pub mod limit_words;
    mod refusals;
    pub mod report_words;
}

/// Errors, and how a client waits.
#[path = "../../src/server"]
pub mod server {
    mod block;
    mod error;

    pub use block::Block;
    pub use error::Error;
}
