//! The settings of LB.QUEUE. The clients that wait are no part of a pool: their server keeps them.

use serde::{Deserialize, Serialize};

use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};

/// The largest MAX of a queue.
pub const WAITING_MAX: u32 = i32::MAX as u32;

/// How clients wait for the backends of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSettings {
    /// This number of clients waits at most; 0 = any number.
    pub max: u32,
    /// The order among waiters of one number.
    pub order: Order,
}

/// The order in which waiters of one number are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// As they came.
    #[default]
    Fifo,
    /// The names for which they wait take turns.
    Fair,
}

impl Order {
    /// Both, as they are saved: by their places.
    pub const ALL: [Order; 2] = [Order::Fifo, Order::Fair];

    /// The user's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Order::Fifo => "fifo",
            Order::Fair => "fair",
        }
    }
}

impl QueueSettings {
    /// Writes them, if they are not the default.
    pub fn save(&self, to: &mut Writer) {
        if *self != QueueSettings::default() {
            to.put(self);
        }
    }

    /// Reads them.
    pub fn load(from: &mut Reader) -> Result<QueueSettings, Malformed> {
        let settings: QueueSettings = from.get()?;
        checked("queue", settings, settings.max <= WAITING_MAX)
    }
}
