//! Power of two choices: the less loaded of two backends drawn by chance (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001), by the measure of `lc`.
//!
//! Nearly as even as least connections, and it never sends a whole crowd to the one backend that is idlest just now.
//! O(log n).

use std::cmp::Ordering;

use super::lc::by_load;
use super::{Foresight, Pick};
use crate::lb::Slot;
use crate::lb::pool::Pool;

pub(super) struct PowerOfTwoChoices;

impl Pick for PowerOfTwoChoices {
    const NAME: &'static str = "p2c";
    const CODE: u8 = 6;
    const FORESIGHT: Foresight = Foresight::None;

    fn pick(pool: &mut Pool) -> Slot {
        let eligible = pool.lane.order.total().count;
        let first = pool.chance().below(u64::from(eligible)) as u32;
        let slot = |pool: &Pool, k| pool.lane.order.by_count(&pool.backends, pool.lane.tier, k);
        if eligible == 1 {
            return slot(pool, first);
        }
        let other = pool.chance().below(u64::from(eligible) - 1) as u32;
        let other = other + u32::from(other >= first);
        let (first, other) = (slot(pool, first), slot(pool, other));
        match by_load(&pool.backends, pool.capacity.as_deref(), other, first) {
            Ordering::Less => other,
            Ordering::Equal | Ordering::Greater => first,
        }
    }
}
