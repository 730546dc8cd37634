//! Uniform chance. For callers that must not be predictable, or where a fixed order would meet another rhythm.
//!
//! O(log n).

use super::{Foresight, Pick};
use crate::lb::Slot;
use crate::lb::pool::Pool;

pub(super) struct Random;

impl Pick for Random {
    const NAME: &'static str = "random";
    const CODE: u8 = 3;
    const FORESIGHT: Foresight = Foresight::None;

    fn pick(pool: &mut Pool) -> Slot {
        let eligible = pool.lane.order.total().count;
        let k = pool.chance().below(u64::from(eligible)) as u32;
        pool.lane.order.by_count(&pool.backends, pool.lane.tier, k)
    }
}
