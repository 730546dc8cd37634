//! Chance by weight: each backend as often as its share of the weights, in no order.
//!
//! O(log n).

use super::{Foresight, Pick};
use crate::lb::Slot;
use crate::lb::pool::Pool;

pub(super) struct WeightedRandom;

impl Pick for WeightedRandom {
    const NAME: &'static str = "wrandom";
    const CODE: u8 = 4;
    const FORESIGHT: Foresight = Foresight::None;

    fn pick(pool: &mut Pool) -> Slot {
        let total = pool.lane.order.total().weight;
        let w = pool.chance().below(total);
        pool.lane.order.by_weight(&pool.backends, pool.lane.tier, w)
    }
}
