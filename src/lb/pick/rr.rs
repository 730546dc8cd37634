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
        pick: |pool| Some(RoundRobin::pick(pool)),
        // This cursor is one number: who looks ahead keeps it aside whole.
        take_back: |_, _| {},
    };

    fn pick(pool: &mut Pool) -> Slot {
        let next = pool.rr.next;
        let slot = match pool.backends.get(next) {
            Some(backend) if backend.live > 0 => next,
            Some(_) => match pool.order.rank(&pool.backends, next) {
                rank if rank < pool.order.total().count => {
                    pool.order.by_count(&pool.backends, rank)
                }
                _ => pool.order.by_count(&pool.backends, 0),
            },
            None => pool.order.by_count(&pool.backends, 0),
        };
        pool.rr.next = slot + 1;
        slot
    }
}
