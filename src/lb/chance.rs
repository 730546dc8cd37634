//! The pool's own generator of chance. It is state: a replica that follows the same commands draws the same.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// xoshiro256++ (Blackman and Vigna, 2018), with the ways to draw from it.
///
/// How a number below n is made of 64 bits stands here, not in a crate, so that no update changes what an old
/// stream of commands replays to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chance(Xoshiro256PlusPlus);

impl Chance {
    /// The generator that this seed starts.
    pub fn seeded(seed: u64) -> Chance {
        Chance(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Whether it generates anything: in a state of all zeros xoshiro stays for ever.
    pub fn is_sound(&self) -> bool {
        // The four words, each a varint.
        postcard::to_allocvec(self).is_ok_and(|words| words != [0; 4])
    }

    /// A number from 0 to n - 1, each as likely as any other (Lemire, "Fast random integer generation in an
    /// interval", 2019). `n` is above 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let unfair = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.0.next_u64()) * u128::from(n);
            if product as u64 >= unfair {
                return (product >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, pools that are out there would draw otherwise than their streams say.
    #[test]
    fn draws_what_it_always_drew() {
        let mut chance = Chance::seeded(42);
        let drawn: Vec<u64> = (0..8).map(|_| chance.below(1000)).collect();
        assert_eq!(drawn, DRAWN);
    }

    const DRAWN: [u64; 8] = [814, 318, 983, 701, 793, 588, 125, 605];

    #[test]
    fn is_fair() {
        let mut chance = Chance::seeded(1);
        let mut seen = [0u32; 7];
        for _ in 0..70_000 {
            seen[chance.below(7) as usize] += 1;
        }
        // Each count is binomial with a standard deviation of 93: five of them on either side.
        assert!(seen.iter().all(|n| (9_535..10_465).contains(n)), "{seen:?}");
    }

    /// Above half of 64 bits every second word is rejected.
    #[test]
    fn words_that_would_be_unfair_are_rejected() {
        let n = (1 << 63) + 1;
        let (mut chance, mut plain) = (Chance::seeded(9), Chance::seeded(9));
        for _ in 0..100 {
            let exact = loop {
                let product = u128::from(plain.0.next_u64()) * u128::from(n);
                if product % (1 << 64) >= (1 << 64) % u128::from(n) {
                    break (product >> 64) as u64;
                }
            };
            assert_eq!(chance.below(n), exact);
        }
    }

    #[test]
    fn a_number_below_one_is_zero() {
        assert_eq!(Chance::seeded(3).below(1), 0);
    }
}
