//! Uniform chance. For callers that must not be predictable, or where a fixed order would meet another rhythm.
//!
//! O(log n).

use super::own::{DependsOn, Pick};
use super::view::View;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;

pub struct Random;

impl Pick for Random {
    const NAME: &'static str = "random";
    const CODE: u8 = 3;
    const DEPENDS_ON: DependsOn = DependsOn::Chance;
    type Own = ();

    fn pick((): &mut (), see: View<'_>, chance: &mut Chance) -> Slot {
        see.by_count(chance.below(u64::from(see.eligible())) as u32)
    }
}
