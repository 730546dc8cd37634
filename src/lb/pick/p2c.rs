//! Power of two choices: the less loaded of two backends drawn by chance (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001), by the measure of `lc`.
//!
//! Nearly as even as least connections, and it never sends a whole crowd to the one backend that is idlest just now.
//! O(log n).

use std::cmp::Ordering;

use super::own::{DependsOn, Pick};
use super::view::View;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;

pub struct PowerOfTwoChoices;

impl Pick for PowerOfTwoChoices {
    const NAME: &'static str = "p2c";
    const CODE: u8 = 6;
    const DEPENDS_ON: DependsOn = DependsOn::Chance;
    type Own = ();

    fn pick((): &mut (), see: View<'_>, chance: &mut Chance) -> Slot {
        let eligible = see.eligible();
        let first = chance.below(u64::from(eligible)) as u32;
        if eligible == 1 {
            return see.by_count(first);
        }
        let other = chance.below(u64::from(eligible) - 1) as u32;
        let other = other + u32::from(other >= first);
        let (first, other) = (see.by_count(first), see.by_count(other));
        let load = |slot| see.load(see.tier(), slot);
        match load(other).compare(load(first)) {
            Ordering::Less => other,
            Ordering::Equal | Ordering::Greater => first,
        }
    }
}
