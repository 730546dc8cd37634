//! Consistent hashing: an item goes to one backend, by weight, for as long as that one is eligible.
//!
//! Weighted rendezvous. Each backend draws a time for the item, exponentially distributed, and the smallest time / weight wins.
//! The draw depends on the two names alone. So the choice depends on nothing that happened before, a backend that goes or comes
//! moves only its own items, and another weight moves only the difference. It wins over rings and lookup tables wherever that must
//! hold exactly: these move other items too, or give shares that are not as the weights.
//!
//! All in whole numbers. The exponential time is drawn as von Neumann did it ("Various techniques used in connection with random
//! digits", 1951), by comparing uniform numbers, so there is no logarithm whose last bit could differ between machines. Its first
//! number is never above the time that comes out of it, so one multiplication and one comparison pass over nearly every backend: 6
//! instructions each. O(n). Where few backends hold nearly all of the weight, that comparison passes over few of the others: up to 19 each.
//! Rejected: lookup tables, trees and skeletons, which are faster and move other items than they must; a second
//! multiplication in the mix, since with one the shares and the next choices already differ from the weights only as chance does; the
//! largest weight of each block of backends, which would mend the 19 and cost each pool 8 bytes.

use super::own::{DependsOn, Own, Pick};
use super::view::View;
use crate::lb::account::Bound;
use crate::lb::field::{Field, Seat};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::Kept;
use crate::lb::ground::name::public_hash;
use crate::lb::roster::Card;

pub struct Rendezvous;

impl Pick for Rendezvous {
    const NAME: &'static str = "hash";
    const CODE: u8 = 8;
    const DEPENDS_ON: DependsOn = DependsOn::Item;
    type Own = Heaviest;

    fn pick(own: &mut Heaviest, see: View<'_>, chance: &mut Chance) -> Slot {
        Rendezvous::pick_if_any(own, see, chance).expect("there is an eligible backend")
    }

    /// A backend whose probe is due can be chosen too: then it falls on it anyway.
    fn pick_if_any(own: &mut Heaviest, see: View<'_>, _: &mut Chance) -> Option<Slot> {
        let asked = see.asked()?;
        let tier = see.tier_with_probes()?;
        let mut race = Race {
            item: public_hash(asked.item),
            cards: asked.cards,
            see,
            tier,
            bound: see.bound(tier),
            heaviest: own.among(see.seats()),
            rate: u64::MAX,
            limit: u64::MAX,
            best: None,
        };
        race.run(asked.hashes);
        race.best.map(|best| best.slot)
    }
}

/// The first number that a backend draws for an item: the two halves of the product of their hashes.
#[inline(always)]
pub(super) fn mix(item: u64, name: u64) -> u64 {
    let product = u128::from(item) * u128::from(name);
    product as u64 ^ (product >> 64) as u64
}

/// The exponential time that a backend draws, whose first number is this one, in units of 2^-64. It is at least that number.
///
/// A trial draws numbers while each is below the one before. If their number is odd, the time is the first of them, and 1 for
/// each trial before. No stream of numbers goes on for long without that: it has a period of 2^64, and two trials in three end.
pub(super) fn time(first: u64) -> u128 {
    let mut stream = first;
    let (mut trials, mut start) = (0, first);
    loop {
        let (mut last, mut is_odd) = (start, true);
        loop {
            let number = splitmix64(&mut stream);
            if number >= last {
                break;
            }
            (last, is_odd) = (number, !is_odd);
        }
        if is_odd {
            return trials << 64 | u128::from(start);
        }
        trials += 1;
        start = splitmix64(&mut stream);
    }
}

/// The next number of a stream (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn splitmix64(stream: &mut u64) -> u64 {
    *stream = stream.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *stream;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The largest weight of all backends; 0 where it must be looked for. It follows from the weights, so it is not saved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heaviest(u16);

impl Heaviest {
    /// The largest weight among these seats, which are all.
    fn among(&mut self, seats: &[Seat]) -> u64 {
        if self.0 == 0 {
            let weights = seats.iter().map(|seat| seat.weight);
            self.0 = weights.max().unwrap_or(0);
        }
        self.0.into()
    }
}

/// A search for the smallest time / weight.
struct Race<'a> {
    item: u64,
    cards: &'a [Card],
    see: View<'a>,
    tier: u8,
    bound: Option<Bound>,
    heaviest: u64,
    /// At least the time / weight of the best. A backend whose first number is above this times its weight is not better.
    rate: u64,
    /// This times the largest weight.
    limit: u64,
    best: Option<Best>,
}

#[derive(Clone, Copy)]
struct Best {
    slot: Slot,
    time: u128,
    weight: u64,
}

impl Race<'_> {
    /// Lets all backends enter, eight at a time. Where there are few, their names have no hashes yet.
    fn run(&mut self, hashes: &[u64]) {
        let (eights, _) = hashes.as_chunks::<8>();
        for (i, eight) in eights.iter().enumerate() {
            let can_be_better = |name: &u64| mix(self.item, *name) <= self.limit;
            if eight.iter().any(can_be_better) {
                self.enter(8 * i, eight);
            }
        }
        let first = 8 * eights.len();
        self.enter(first, &hashes[first..]);
        for (slot, card) in self.cards.iter().enumerate().skip(hashes.len()) {
            self.enter(slot, &[public_hash(card.name.as_bytes())]);
        }
    }

    #[inline(never)]
    fn enter(&mut self, first: Slot, names: &[u64]) {
        let seats = &self.see.seats()[first..];
        for (i, (name, seat)) in names.iter().zip(seats).enumerate() {
            let number = mix(self.item, *name);
            if number <= self.rate.saturating_mul(seat.weight.into()) {
                self.look_at(first + i, number);
            }
        }
    }

    #[inline(never)]
    fn look_at(&mut self, slot: Slot, first: u64) {
        let is_admitted = |bound| self.see.admits(bound, slot);
        if !self.see.takes(self.tier, slot) || !self.bound.as_ref().is_none_or(is_admitted) {
            return;
        }
        let weight = u64::from(self.see.seats()[slot].weight);
        let time = time(first);
        let is_better = |best: &Best| {
            let (one, other) = (
                time * u128::from(best.weight),
                best.time * u128::from(weight),
            );
            let name = |slot: Slot| self.cards[slot].name.as_bytes();
            let order = one.cmp(&other);
            order.then_with(|| name(slot).cmp(name(best.slot))).is_lt()
        };
        if self.best.as_ref().is_none_or(is_better) {
            self.best = Some(Best { slot, time, weight });
            let rate = time.div_ceil(weight.into());
            self.rate = u64::try_from(rate).unwrap_or(u64::MAX);
            self.limit = self.rate.saturating_mul(self.heaviest);
        }
    }
}

impl Kept for Heaviest {
    fn grown(&mut self, _: usize) {
        self.0 = 0;
    }

    fn forget(&mut self, _: Slot) {
        self.0 = 0;
    }
}

impl Own for Heaviest {
    fn reweighted(&mut self, _: &Field, _: Slot, from: u16, to: u16) {
        if self.0 > 0 {
            self.0 = if from == self.0 { 0 } else { self.0.max(to) };
        }
    }

    fn check(&self, see: View<'_>) {
        let heaviest = see.seats().iter().map(|seat| seat.weight).max();
        assert!(self.0 == 0 || Some(self.0) == heaviest);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::lb::pick::Asked;

    fn pairs(of: &str) -> Vec<(String, u128)> {
        let text = include_str!("../../../tests/data/hash/vectors.json");
        let vectors: Value = serde_json::from_str(text).expect("JSON");
        let pairs = vectors[of].as_array().expect("pairs").iter();
        let hex = |text: &Value| u128::from_str_radix(text.as_str().expect("text"), 16);
        let pair = |pair: &Value| {
            (
                pair[0].as_str().expect("text").into(),
                hex(&pair[1]).expect("hexadecimal"),
            )
        };
        pairs.map(pair).collect()
    }

    /// If this fails, items go elsewhere than other clients say, and than they went before.
    #[test]
    fn hashes_and_times_are_the_published_ones() {
        let (hashes, times) = (pairs("hashes"), pairs("times"));
        assert!(hashes.len() > 20 && times.len() > 20);
        for (bytes, expected) in hashes {
            let byte = |at: usize| u8::from_str_radix(&bytes[2 * at..][..2], 16);
            let bytes: Vec<u8> = (0..bytes.len() / 2).map(byte).map(Result::unwrap).collect();
            assert_eq!(u128::from(public_hash(&bytes)), expected);
        }
        for (first, expected) in times {
            let first = u64::from_str_radix(&first, 16).expect("hexadecimal");
            assert_eq!(time(first), expected);
        }
    }

    /// P(t < T) = 1 - 1 / e^T, in steps of an eighth.
    #[test]
    fn times_are_exponential_and_not_below_their_first_numbers() {
        let mut stream = 1;
        let mut counts = [0u32; 40];
        let times = 1_000_000;
        for _ in 0..times {
            let first = splitmix64(&mut stream);
            let time = time(first);
            assert!(time >= u128::from(first));
            counts[((time >> 61) as usize).min(39)] += 1;
        }
        let below = |eighths: usize| match eighths {
            40 => 1.0,
            _ => 1.0 - (-(eighths as f64) / 8.0).exp(),
        };
        let chi_squared = counts.iter().enumerate().map(|(i, count)| {
            let expected = f64::from(times) * (below(i + 1) - below(i));
            (f64::from(*count) - expected).powi(2) / expected
        });
        // 39 degrees of freedom: 95 % of the time from 24 to 58.
        let chi_squared: f64 = chi_squared.sum();
        assert!((20.0..65.0).contains(&chi_squared), "{chi_squared}");
    }

    /// Two names of the same hash draw the same times. Then the lower name wins, in whatever order they came.
    #[test]
    fn equal_times_leave_it_to_the_names() {
        let cards = [b"b", b"a"].map(|name| Card::new(name, 0));
        let mut field = Field::default();
        for _ in 0..2 {
            field.add(Seat::new(7));
        }
        (0..2).for_each(|slot| field.run(slot, 7));
        for item in [b"x", b"y"] {
            let asked = Asked {
                item,
                cards: &cards,
                hashes: &[5, 5],
            };
            let see = View::of(&field, None).for_item(&asked);
            let chosen = Rendezvous::pick_if_any(&mut Heaviest(0), see, &mut Chance::default());
            assert_eq!(chosen, Some(1));
        }
    }
}
