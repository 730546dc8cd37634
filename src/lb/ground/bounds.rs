//! How far the numbers of a pool go.

use smallvec::SmallVec;

/// The place of a backend in its pool: slots are in order of addition.
pub type Slot = usize;

/// The slots of some backends, without an allocation where they are few. Most commands name one.
pub type Slots = SmallVec<[Slot; 4]>;

/// The largest weight.
pub const WEIGHT_MAX: u16 = u16::MAX;
/// The longest name of a backend, in bytes.
pub const NAME_MAX: usize = 512;
/// The most backends that one pool holds. It keeps the sum of all running weights below 2^48.
pub const BACKENDS_MAX: usize = 1 << 24;
/// The most different tiers in one pool. Each takes some bytes for every backend of the pool.
pub const TIERS_MAX: usize = 16;
/// The most picks that one command makes.
pub const COUNT_MAX: usize = 10_000;
/// The most backends that one command excludes.
pub const EXCLUDE_MAX: usize = 1_000;
/// The most costs that one command names.
pub const COSTS_NAMED_MAX: usize = 16;
/// The most sessions that one pool keeps.
pub const SESSIONS_MAX: usize = 1 << 20;
/// The largest number that a reply can show.
pub const COUNTER_MAX: u64 = i64::MAX as u64;

/// One more, up to the largest number that a reply can show. A counter stays there.
#[inline(always)]
pub fn counted(n: u64) -> u64 {
    match n + 1 {
        one_more if one_more > COUNTER_MAX => at_most(),
        one_more => one_more,
    }
}

/// Apart, for it never comes: so a count is an addition, and a jump that is not taken.
#[cold]
fn at_most() -> u64 {
    COUNTER_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_stays_at_the_largest_number_that_a_reply_can_show() {
        assert_eq!(counted(0), 1);
        assert_eq!(counted(i64::MAX as u64 - 1), i64::MAX as u64);
        assert_eq!(counted(i64::MAX as u64), i64::MAX as u64);
    }
}
