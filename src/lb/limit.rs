//! Limits: how many leases at once, how many picks in a time.

use serde::{Deserialize, Serialize};

use super::clock::{Millis, SPAN_MAX};

/// The most leases that can be allowed at once; more than a pool can hold.
pub const LEASES_MAX: u32 = i32::MAX as u32;
/// The largest number of picks in RATE and BURST.
pub const RATE_MAX: u64 = 1 << 40;

/// So many picks in so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub picks: u64,
    /// In how long.
    pub millis: Millis,
    /// How many of them can come at once.
    pub burst: u64,
}

/// A token bucket: in any window of T ms it gives at most `burst + ⌊T × picks / millis⌋` tokens.
///
/// Its level is counted in parts of a token, of which a token has `millis` and each millisecond brings `picks`: so all
/// is exact in whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bucket {
    pub rate: Rate,
    /// How full it was at `at`. It is brought up to date only when a token is taken: so the clock may pass in one
    /// step or in many.
    level: Parts,
    at: Millis,
}

/// Parts of a token: a u128, but aligned to eight bytes, for a u128 of its own costs an allocation 16 bytes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u128", into = "u128")]
struct Parts([u64; 2]);

impl From<u128> for Parts {
    fn from(parts: u128) -> Parts {
        Parts([parts as u64, (parts >> 64) as u64])
    }
}

impl From<Parts> for u128 {
    fn from(Parts([low, high]): Parts) -> u128 {
        u128::from(high) << 64 | u128::from(low)
    }
}

impl Rate {
    /// Whether every number is in its range.
    pub fn is_sound(&self) -> bool {
        let picks = 1..=RATE_MAX;
        picks.contains(&self.picks)
            && picks.contains(&self.burst)
            && (1..=SPAN_MAX).contains(&self.millis)
    }

    fn full(&self) -> u128 {
        u128::from(self.burst) * u128::from(self.millis)
    }
}

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate, clock: Millis) -> Bucket {
        Bucket {
            rate,
            level: rate.full().into(),
            at: clock,
        }
    }

    /// The bucket with another rate and the tokens that it holds, as far as they find room.
    pub fn with_rate(&self, rate: Rate, clock: Millis) -> Bucket {
        // At most 2^80 times 2^40.
        let scaled = self.level_at(clock) * u128::from(rate.millis) / u128::from(self.rate.millis);
        Bucket {
            rate,
            level: scaled.min(rate.full()).into(),
            at: clock,
        }
    }

    /// Takes a token, of which there is one.
    pub fn take(&mut self, clock: Millis) {
        self.level = (self.level_at(clock) - u128::from(self.rate.millis)).into();
        self.at = clock;
    }

    /// When there is a token: now, or later.
    pub fn next(&self, clock: Millis) -> Millis {
        let lacks = u128::from(self.rate.millis).saturating_sub(self.level.into());
        let wait = lacks.div_ceil(u128::from(self.rate.picks));
        // A token's parts are at most 2^40, and each millisecond brings one at least.
        (self.at + wait as u64).max(clock)
    }

    /// How many whole tokens it holds.
    pub fn tokens(&self, clock: Millis) -> u64 {
        // At most the burst.
        (self.level_at(clock) / u128::from(self.rate.millis)) as u64
    }

    /// Whether a bucket can be like that, at this clock.
    pub fn is_sound(&self, clock: Millis) -> bool {
        self.rate.is_sound() && u128::from(self.level) <= self.rate.full() && self.at <= clock
    }

    fn level_at(&self, clock: Millis) -> u128 {
        let brought = u128::from(clock - self.at) * u128::from(self.rate.picks);
        (u128::from(self.level) + brought).min(self.rate.full())
    }
}

/// What LB.LIMIT sets, of which each may be left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Leases at once; 0 = any number.
    pub max: Option<u32>,
    /// Picks in a time; `Some(None)` = any number.
    pub rate: Option<Option<Rate>>,
    /// Which backends serve first: those of the lowest tier that has an eligible one.
    pub tier: Option<u8>,
}

impl Limits {
    /// Whether it would limit anything that is not limited yet.
    pub fn is_any(&self) -> bool {
        self.max.is_some_and(|max| max > 0)
            || self.rate.flatten().is_some()
            || self.tier.is_some_and(|tier| tier > 0)
    }

    /// Whether it only takes limits away, for which a full server has room. A move to another tier is none of that kind.
    pub fn only_frees(&self) -> bool {
        !self.is_any() && self.tier.is_none()
    }
}

/// A limit of a backend or of the pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit {
    pub max: u32,
    pub bucket: Option<Box<Bucket>>,
    /// When its bucket has a token again, where it has none: as it stands among the pool's refills.
    pub refill: Option<Millis>,
}

impl Limit {
    /// Whether it limits anything.
    pub fn is_set(&self) -> bool {
        self.max > 0 || self.bucket.is_some()
    }

    /// Sets what is given; says whether that changed anything.
    pub fn set(&mut self, limits: &Limits, clock: Millis) -> bool {
        let max = limits.max.unwrap_or(self.max);
        let mut changed = max != self.max;
        self.max = max;
        let present = self.bucket.as_ref().map(|bucket| bucket.rate);
        if let Some(rate) = limits.rate.filter(|rate| *rate != present) {
            changed = true;
            let bucket = rate.map(|rate| match &self.bucket {
                Some(bucket) => bucket.with_rate(rate, clock),
                None => Bucket::full(rate, clock),
            });
            self.bucket = bucket.map(Box::new);
        }
        changed
    }

    /// Whether so many leases are as many as there may be.
    pub fn is_reached_by(&self, leases: u32) -> bool {
        self.max > 0 && leases >= self.max
    }

    /// When the bucket has a token: now, or later.
    pub fn next(&self, clock: Millis) -> Millis {
        (self.bucket.as_ref()).map_or(clock, |bucket| bucket.next(clock))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every window of a greedy user's log, over rates whose tokens do not come at whole milliseconds.
    #[test]
    fn no_window_holds_more_than_the_bucket_allows() {
        for (picks, millis, burst) in [
            (1, 1, 1),
            (3, 7, 1),
            (7, 3, 2),
            (5, 1000, 4),
            (999, 1000, 10),
        ] {
            let rate = Rate {
                picks,
                millis,
                burst,
            };
            let mut bucket = Bucket::full(rate, 5);
            let mut log = Vec::new();
            let step = if picks == 5 { 10 } else { 1 };
            for clock in (5..3000).step_by(step) {
                while bucket.next(clock) == clock {
                    bucket.take(clock);
                    log.push(clock);
                }
            }
            for (i, from) in log.iter().enumerate() {
                for (n, to) in log[i..].iter().enumerate() {
                    assert!((n as u64) < burst + (to - from) * picks / millis);
                }
            }
            // And where it never runs over, it gives all that it may.
            if (step as u64) * picks <= (burst - 1) * millis {
                let all = burst + (log[log.len() - 1] - 5) * picks / millis;
                assert!(log.len() as u64 + 1 >= all, "{rate:?}");
            }
        }
    }

    #[test]
    fn the_largest_numbers_fit() {
        let rate = Rate {
            picks: RATE_MAX,
            millis: SPAN_MAX,
            burst: RATE_MAX,
        };
        let mut bucket = Bucket::full(rate, 0);
        bucket.take(super::super::clock::CLOCK_MAX);
        let slow = Rate { picks: 1, ..rate };
        let mut slow = Bucket::full(Rate { burst: 1, ..slow }, 0);
        slow.take(0);
        assert_eq!(slow.next(0), SPAN_MAX);
        assert_eq!(
            bucket.with_rate(rate, super::super::clock::CLOCK_MAX).rate,
            rate
        );
    }

    #[test]
    fn another_rate_gives_no_tokens_away() {
        let rate = Rate {
            picks: 1,
            millis: 10,
            burst: 5,
        };
        let mut bucket = Bucket::full(rate, 0);
        for _ in 0..4 {
            bucket.take(0);
        }
        let wider = Rate {
            picks: 1,
            millis: 1000,
            burst: 100,
        };
        let mut bucket = bucket.with_rate(wider, 0);
        bucket.take(0);
        assert_eq!(bucket.next(0), 1000);
    }
}
