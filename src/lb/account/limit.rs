//! Limits: how many leases at once, how many picks in a time.

use serde::{Deserialize, Serialize};

use crate::lb::ground::clock::{Millis, SPAN_MAX};
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};

/// The most leases that can be allowed at once; more than a pool can hold.
pub const LEASES_MAX: u32 = i32::MAX as u32;
/// The largest number of picks in RATE and BURST, and the largest amount of a cost.
pub const RATE_MAX: u64 = 1 << 40;
/// The largest debt of a bucket, in tokens. It does not grow beyond that.
pub const DEBT_MAX: u64 = 1 << 62;
/// A time that does not come: later than any clock can show.
const NEVER: u64 = 1 << 62;

/// A number of picks, or an amount of a cost, in a number of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The number of picks, or the amount.
    pub picks: u64,
    /// The time for them.
    pub millis: Millis,
    /// How many can come at once.
    pub burst: u64,
}

/// A token bucket: in any window of T ms it gives at most `burst + ⌊T × picks / millis⌋` tokens.
///
/// Its level is counted in parts of a token. A token has `millis` parts, and each millisecond brings `picks` parts. So all
/// is exact in whole numbers.
///
/// The bucket of a cost can be in debt: its level is below zero. That of a rate never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub rate: Rate,
    /// How full it was at `at`. It is brought up to date only when tokens are taken or given: so the clock may pass in one
    /// step or in many.
    level: Parts,
    at: Millis,
}

/// Parts of a token: an i128, but aligned to eight bytes, for an i128 of its own costs an allocation 16 bytes more. It is saved as a
/// u128, which is shorter where it is not negative.
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

impl From<i128> for Parts {
    fn from(parts: i128) -> Parts {
        Parts::from(parts as u128)
    }
}

impl From<Parts> for i128 {
    fn from(parts: Parts) -> i128 {
        u128::from(parts) as i128
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

    /// That number of tokens, in parts.
    fn parts(&self, tokens: u64) -> i128 {
        i128::from(tokens) * i128::from(self.millis)
    }

    fn full(&self) -> i128 {
        self.parts(self.burst)
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

    /// The bucket with another rate and the tokens that it holds, as far as they find room. A debt stays. What is less than a
    /// part of a token is lost.
    pub fn with_rate(&self, rate: Rate, clock: Millis) -> Bucket {
        let (level, millis) = (self.level_at(clock), i128::from(self.rate.millis));
        let (whole, rest) = (level.div_euclid(millis), level.rem_euclid(millis));
        // At most 2^62 tokens of 2^40 parts each.
        let scaled = whole * i128::from(rate.millis) + rest * i128::from(rate.millis) / millis;
        Bucket {
            rate,
            level: scaled.min(rate.full()).into(),
            at: clock,
        }
    }

    /// Takes tokens. It holds them, or is full.
    pub fn take(&mut self, tokens: u64, clock: Millis) {
        self.level = (self.level_at(clock) - self.rate.parts(tokens)).into();
        self.at = clock;
    }

    /// A request took these tokens, and should have taken others.
    pub fn settle(&mut self, taken: u64, real: u64, clock: Millis) {
        if taken != real {
            let level = self.level_at(clock) + self.rate.parts(taken) - self.rate.parts(real);
            let least = -self.rate.parts(DEBT_MAX);
            self.level = level.clamp(least, self.rate.full()).into();
            self.at = clock;
        }
    }

    /// Lets it hold these tokens at most; answers whether it held more.
    pub fn lower(&mut self, tokens: u64, clock: Millis) -> bool {
        let most = self.rate.parts(tokens);
        let lowers = self.level_at(clock) > most;
        if lowers {
            (self.level, self.at) = (most.into(), clock);
        }
        lowers
    }

    /// Whether it holds these tokens, or is full.
    pub fn holds(&self, tokens: u64, clock: Millis) -> bool {
        self.level_at(clock) >= self.enough(tokens)
    }

    /// When it holds these tokens, or is full: now, or later.
    pub fn next(&self, tokens: u64, clock: Millis) -> Millis {
        let lacks = (self.enough(tokens) - i128::from(self.level)).max(0) as u128;
        let wait = lacks.div_ceil(u128::from(self.rate.picks));
        (self.at + wait.min(u128::from(NEVER)) as u64).max(clock)
    }

    /// How many whole tokens it holds. Below zero it is in debt.
    pub fn tokens(&self, clock: Millis) -> i64 {
        // At most the burst, and at least the largest debt.
        self.level_at(clock)
            .div_euclid(i128::from(self.rate.millis)) as i64
    }

    /// Whether a bucket can be like that at this clock, with this debt at most.
    pub fn is_sound(&self, debt_max: u64, clock: Millis) -> bool {
        self.rate.is_sound()
            && (-self.rate.parts(debt_max)..=self.rate.full()).contains(&self.level.into())
            && self.at <= clock
    }

    /// Its level and since when, to be saved beside its rate.
    pub fn standing(&self) -> (i128, Millis) {
        (self.level.into(), self.at)
    }

    /// The bucket of this rate that stood so.
    pub fn restored(rate: Rate, level: i128, at: Millis) -> Bucket {
        let level = level.into();
        Bucket { rate, level, at }
    }

    fn enough(&self, tokens: u64) -> i128 {
        self.rate.parts(tokens.min(self.rate.burst))
    }

    fn level_at(&self, clock: Millis) -> i128 {
        let brought = i128::from(clock - self.at) * i128::from(self.rate.picks);
        (i128::from(self.level) + brought).min(self.rate.full())
    }
}

/// The settings of LB.LIMIT. Each may be left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Leases at once; 0 = any number.
    pub max: Option<u32>,
    /// Picks in a time; `Some(None)` = any number.
    pub rate: Option<Option<Rate>>,
    /// The backends of the lowest tier that has an eligible one serve.
    pub tier: Option<u8>,
}

impl Limits {
    /// Whether it would limit anything that is not limited yet.
    pub fn is_any(&self) -> bool {
        self.max.is_some_and(|max| max > 0)
            || self.rate.flatten().is_some()
            || self.tier.is_some_and(|tier| tier > 0)
    }

    /// Whether it only takes limits away. For that a full server has room, and for a move to another tier it has none.
    pub fn only_frees(&self) -> bool {
        !self.is_any() && self.tier.is_none()
    }
}

/// The limits that hold for every backend that has none of its own of that kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Each {
    pub max: u32,
    pub rate: Option<Rate>,
}

/// A limit of a backend or of the pool.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    pub max: u32,
    pub bucket: Option<Box<Bucket>>,
    /// When its bucket has a token again, where it has none: as it stands among the pool's refills.
    pub refill: Option<Millis>,
    /// Whether it was reached when it was looked at last.
    pub is_reached: bool,
    /// Whether it has its `max` from what holds for each backend.
    pub inherits_max: bool,
    /// Whether it has its rate from there.
    pub inherits_rate: bool,
}

impl Limit {
    /// Whether it limits anything.
    pub fn is_set(&self) -> bool {
        self.max > 0 || self.bucket.is_some()
    }

    /// Its own `max`, 0 where it has none.
    pub fn own_max(&self) -> u32 {
        if self.inherits_max { 0 } else { self.max }
    }

    /// Its own rate.
    pub fn own_rate(&self) -> Option<Rate> {
        let bucket = self.bucket.as_ref().filter(|_| !self.inherits_rate);
        bucket.map(|bucket| bucket.rate)
    }

    /// Sets the limits that are given; answers whether that changed anything. Where its own is taken away, that of each backend
    /// holds.
    pub fn set(&mut self, limits: &Limits, each: &Each, clock: Millis) -> bool {
        let mut changed = false;
        if let Some(max) = limits.max {
            changed = max != self.own_max();
            (self.max, self.inherits_max) = (max, false);
            self.inherit_max(each);
        }
        if let Some(rate) = limits.rate.filter(|rate| *rate != self.own_rate()) {
            changed = true;
            self.set_rate(rate.or(each.rate), clock);
            self.inherits_rate = rate.is_none() && each.rate.is_some();
        }
        changed
    }

    /// Takes over what holds for each backend, where it has nothing of its own.
    pub fn inherit(&mut self, each: &Each, clock: Millis) {
        self.inherit_max(each);
        if self.own_rate().is_none() {
            self.set_rate(each.rate, clock);
            self.inherits_rate = each.rate.is_some();
        }
    }

    fn inherit_max(&mut self, each: &Each) {
        if self.own_max() == 0 {
            (self.max, self.inherits_max) = (each.max, each.max > 0);
        }
    }

    fn set_rate(&mut self, rate: Option<Rate>, clock: Millis) {
        if rate != self.bucket.as_ref().map(|bucket| bucket.rate) {
            let bucket = rate.map(|rate| match &self.bucket {
                Some(bucket) => bucket.with_rate(rate, clock),
                None => Bucket::full(rate, clock),
            });
            self.bucket = bucket.map(Box::new);
        }
    }

    /// Whether this number of leases is the most.
    pub fn is_reached_by(&self, leases: u32) -> bool {
        self.max > 0 && leases >= self.max
    }

    /// When the bucket has a token: now, or later.
    pub fn next(&self, clock: Millis) -> Millis {
        (self.bucket.as_ref()).map_or(clock, |bucket| bucket.next(1, clock))
    }

    /// Writes it.
    pub fn save(&self, to: &mut Writer) {
        to.put(&self.max);
        to.put(&self.bucket.as_deref());
    }

    /// Reads it.
    pub fn load(from: &mut Reader, clock: Millis) -> Result<Limit, Malformed> {
        let max = from.number("limit", LEASES_MAX)?;
        let bucket: Option<Bucket> = from.get()?;
        let is_sound = bucket.is_none_or(|bucket| bucket.is_sound(0, clock));
        Ok(Limit {
            max,
            bucket: checked("limit", bucket, is_sound)?.map(Box::new),
            ..Limit::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::ground::clock::CLOCK_MAX;

    /// All windows of a greedy user's log. With some of these rates tokens come between two milliseconds.
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
                while bucket.next(1, clock) == clock {
                    bucket.take(1, clock);
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
        bucket.take(1, CLOCK_MAX);
        let slow = Rate { picks: 1, ..rate };
        let mut slow = Bucket::full(Rate { burst: 1, ..slow }, 0);
        slow.take(1, 0);
        assert_eq!(slow.next(1, 0), SPAN_MAX);
        assert_eq!(bucket.with_rate(rate, CLOCK_MAX).rate, rate);
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
            bucket.take(1, 0);
        }
        let wider = Rate {
            picks: 1,
            millis: 1000,
            burst: 100,
        };
        let mut bucket = bucket.with_rate(wider, 0);
        bucket.take(1, 0);
        assert_eq!(bucket.next(1, 0), 1000);
    }
}
