//! Round robin: each in its turn. For backends that are alike, whatever their weights say.
//!
//! O(1) where the next one in line is eligible, O(log n) where it is not.

use super::{Foresight, Pick};
use crate::lb::Slot;
use crate::lb::pool::Pool;

/// Where round robin stands: behind the slot that it picked last.
///
/// It is a place and not a backend, so it outlives the backend that was picked. Newcomers stand at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    pub(in crate::lb) next: Slot,
}

pub(super) struct RoundRobin;

impl Pick for RoundRobin {
    const NAME: &'static str = "rr";
    const CODE: u8 = 1;
    const FORESIGHT: Foresight = Foresight::TakeBack {
        pick: |pool| {
            let before = pool.rr.next as u64;
            Some((RoundRobin::pick(pool), before))
        },
        take_back: |pool, _, before| pool.rr.next = before as Slot,
    };

    fn pick(pool: &mut Pool) -> Slot {
        let next = pool.rr.next;
        let lane = &pool.lane;
        let slot = match pool.backends.get(next) {
            Some(backend) if backend.live_in(lane.tier) > 0 => next,
            Some(_) => match lane.order.rank(&pool.backends, lane.tier, next) {
                rank if rank < lane.eligible() => {
                    lane.order.by_count(&pool.backends, lane.tier, rank)
                }
                _ => lane.order.by_count(&pool.backends, lane.tier, 0),
            },
            None => lane.order.by_count(&pool.backends, lane.tier, 0),
        };
        pool.rr.next = slot + 1;
        slot
    }
}
