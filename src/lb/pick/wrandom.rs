//! Chance by weight: each backend as often as its share of the weights, in no order.
//!
//! O(log n).

use super::own::{DependsOn, Pick};
use super::view::View;
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;

pub struct WeightedRandom;

impl Pick for WeightedRandom {
    const NAME: &'static str = "wrandom";
    const CODE: u8 = 4;
    const DEPENDS_ON: DependsOn = DependsOn::Chance;
    type Own = ();

    fn pick((): &mut (), see: View<'_>, chance: &mut Chance) -> Slot {
        see.by_weight(chance.below(see.total_weight()))
    }
}
