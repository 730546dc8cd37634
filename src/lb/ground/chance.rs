//! The pool's own generator of chance. It is part of the state: a replica that follows the same commands draws the same.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use super::memory::allocated;
use super::saved::{Malformed, Reader, Writer, checked};

/// xoshiro256++ (Blackman and Vigna, 2018), with the ways to draw from it. It begins when it is seeded.
///
/// The way from 64 bits to a number below n stands here, not in a crate, so that no update changes the picks that an old
/// stream of commands replays to.
#[derive(Clone, Debug, Default)]
pub struct Chance(Option<Box<Xoshiro256PlusPlus>>);

/// The byte for a generator that was never seeded.
const NONE: u8 = 0;

impl Chance {
    /// The generator that this seed starts.
    pub fn seeded(seed: u64) -> Chance {
        Chance(Some(Box::new(Xoshiro256PlusPlus::seed_from_u64(seed))))
    }

    /// Whether it was seeded.
    pub fn is_seeded(&self) -> bool {
        self.0.is_some()
    }

    /// A number from 0 to n - 1, each as likely as any other (Lemire, "Fast random integer generation in an
    /// interval", 2019). `n` is above 0. A generator whose stream has no seed draws from seed 0, on every machine alike.
    pub fn below(&mut self, n: u64) -> u64 {
        let generator =
            (self.0).get_or_insert_with(|| Box::new(Xoshiro256PlusPlus::seed_from_u64(0)));
        let unfair = n.wrapping_neg() % n;
        loop {
            let product = u128::from(generator.next_u64()) * u128::from(n);
            if product as u64 >= unfair {
                return (product >> 64) as u64;
            }
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        (self.0.as_ref()).map_or(0, |_| allocated(size_of::<Xoshiro256PlusPlus>()))
    }

    /// Writes it.
    pub fn save(&self, to: &mut Writer) {
        to.put(&self.0.as_deref());
    }

    /// Reads it.
    #[inline(always)]
    pub fn load(from: &mut Reader) -> Result<Chance, Malformed> {
        match from.skip(NONE) {
            true => Ok(Chance::default()),
            false => Chance::load_seeded(from),
        }
    }

    #[inline(never)]
    fn load_seeded(from: &mut Reader) -> Result<Chance, Malformed> {
        let generator: Option<Xoshiro256PlusPlus> = from.get()?;
        // In a state of all zeros xoshiro stays for ever. Each of the four words is a varint.
        let is_zero =
            |g: &Xoshiro256PlusPlus| postcard::to_allocvec(g).is_ok_and(|words| words == [0; 4]);
        let is_sound = !generator.as_ref().is_some_and(is_zero);
        Ok(Chance(
            checked("generator", generator, is_sound)?.map(Box::new),
        ))
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn word(chance: &mut Chance) -> u64 {
        chance.0.as_mut().expect("it was seeded").next_u64()
    }

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
                let product = u128::from(word(&mut plain)) * u128::from(n);
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
