//! Bounded load (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2018), by the leases of the whole fleet.

use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};

/// The largest load that `hash` gives a backend, in percent of its share. Below 101 there would not always be one below its bound.
pub const BALANCE_LEAST: u16 = 101;
/// And the largest setting.
pub const BALANCE_MOST: u16 = 10_000;

/// The setting; 0 = any load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance(u16);

impl Balance {
    /// That many percent, 0 or in range.
    pub fn of(percent: u16) -> Balance {
        debug_assert!(percent == 0 || (BALANCE_LEAST..=BALANCE_MOST).contains(&percent));
        Balance(percent)
    }

    /// In percent.
    pub fn percent(self) -> u16 {
        self.0
    }

    /// The bound of backends with this sum of weights, where this number of leases is open in all. None where nothing is bounded.
    pub fn bound(self, leases: usize, weights: impl FnOnce() -> u64) -> Option<Bound> {
        (self.0 > 0 && leases > 0).then(|| Bound {
            allowance: (leases as u64 + 1) * u64::from(self.0),
            weights: 100 * weights(),
        })
    }

    /// Writes it, if it is set.
    pub fn save(self, to: &mut Writer) {
        if self.0 > 0 {
            to.put(&self.0);
        }
    }

    /// Reads one that is set.
    pub fn load(from: &mut Reader) -> Result<Balance, Malformed> {
        let percent: u16 = from.get()?;
        let is_sound = (BALANCE_LEAST..=BALANCE_MOST).contains(&percent);
        checked("balance", Balance(percent), is_sound)
    }
}

/// How many leases each backend can have: ⌈(all leases + 1) × percent / 100 × its share of the weights⌉.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// (all leases + 1) × percent, below 2^46.
    allowance: u64,
    /// 100 × the sum of weights, below 2^47.
    weights: u64,
}

impl Bound {
    /// Whether a backend of that weight, with this number of leases, can have one more: leases + 1 ≤ ⌈x⌉ means leases < x.
    pub fn admits(&self, leases: u32, weight: u16) -> bool {
        let product = |a: u64, b: u64| u128::from(a) * u128::from(b);
        product(leases.into(), self.weights) < product(self.allowance, weight.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the ceiling as it is written.
    #[test]
    fn a_backend_has_at_most_its_bound() {
        for percent in [101, 125, 200, 10_000] {
            for (all, weight, weights) in [
                (1, 1, 3),
                (7, 2, 9),
                (1000, 3, 10),
                (1 << 31, 65_535, 1 << 40),
            ] {
                let bound = Balance::of(percent)
                    .bound(all, || weights)
                    .expect("it is set");
                let most = (all as u128 + 1) * u128::from(percent) * u128::from(weight);
                let most = most.div_ceil(100 * u128::from(weights)) as u32;
                assert!(bound.admits(most - 1, weight) && !bound.admits(most, weight));
            }
        }
        assert!(Balance::of(125).bound(0, || 1).is_none());
        assert!(Balance::default().bound(9, || 1).is_none());
    }
}
