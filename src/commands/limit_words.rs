//! Parser of the limits in LB.LIMIT.

use super::arguments::{Options, Words, cost, is_keyword, name};
use crate::lb::{
    BALANCE_LEAST, BALANCE_MOST, LEASES_MAX, Limited, Limits, RATE_MAX, Rate, SPAN_MAX,
};
use crate::server::Error;

/// The arguments behind the key in LB.LIMIT.
#[derive(Debug)]
pub struct LimitWords<'a> {
    /// Whom the limits are for.
    pub limited: Limited<'a>,
    /// The limits.
    pub limits: Limits,
    /// The limits of costs, each with another name.
    pub costs: Vec<(&'a [u8], Option<Rate>)>,
    /// The largest load that `hash` gives a backend, in percent of its share; 0 = any.
    pub balance: Option<u16>,
}

impl<'a> LimitWords<'a> {
    /// Whether it sets nothing.
    pub fn only_asks(&self) -> bool {
        self.limits == Limits::default() && self.costs.is_empty() && self.balance.is_none()
    }

    /// The names of the costs that it limits.
    pub fn rated_costs(&self) -> impl Iterator<Item = &'a [u8]> {
        let rated = self.costs.iter().filter(|(_, rate)| rate.is_some());
        rated.map(|(name, _)| *name)
    }

    /// Whether it would limit anything that is not limited yet.
    pub fn is_any(&self) -> bool {
        self.limits.is_any()
            || self.rated_costs().next().is_some()
            || self.balance.is_some_and(|percent| percent > 0)
    }

    /// Whether it only takes limits away.
    pub fn only_frees(&self) -> bool {
        self.limits.only_frees()
            && self.rated_costs().next().is_none()
            && self.balance.is_none_or(|percent| percent == 0)
    }
}

/// What a BURST belongs to: the last of these before it. Before all of them it belongs to RATE.
enum Bursting {
    Rate,
    Cost,
}

/// Parses the arguments behind the key in LB.LIMIT.
pub fn limit_words<'a>(words: impl Words<'a>) -> Result<LimitWords<'a>, Error> {
    let (mut limited, mut limits, mut burst) = (None, Limits::default(), None);
    let mut costs: Vec<(&[u8], Option<Rate>, Option<u64>)> = Vec::new();
    let mut balance = None;
    let mut bursting = Bursting::Rate;
    let mut options = Options::of(words);
    while let Some(word) = options.keyword() {
        let is_repeated = if is_keyword(word, b"BACKEND") {
            let named = name(options.value("BACKEND")?)?;
            limited.replace(Limited::Backend(named)).is_some()
        } else if is_keyword(word, b"EACH") {
            limited.replace(Limited::Each).is_some()
        } else if is_keyword(word, b"MAX") {
            let max = options.number("MAX", 0..=u64::from(LEASES_MAX))?;
            limits.max.replace(max as u32).is_some()
        } else if is_keyword(word, b"RATE") {
            bursting = Bursting::Rate;
            limits.rate.replace(rate(&mut options, "RATE")?).is_some()
        } else if is_keyword(word, b"COST") {
            bursting = Bursting::Cost;
            let named = cost(options.value("COST")?)?;
            let is_repeated = costs.iter().any(|(name, ..)| *name == named);
            costs.push((named, rate(&mut options, "COST")?, None));
            is_repeated
        } else if is_keyword(word, b"BURST") {
            let most = options.number("BURST", 1..=RATE_MAX)?;
            match (&bursting, costs.last_mut()) {
                (Bursting::Cost, Some((.., burst))) => burst.replace(most).is_some(),
                _ => burst.replace(most).is_some(),
            }
        } else if is_keyword(word, b"TIER") {
            let tier = options.number("TIER", 0..=u64::from(u8::MAX))?;
            limits.tier.replace(tier as u8).is_some()
        } else if is_keyword(word, b"BALANCE") {
            balance.replace(percent(&mut options)?).is_some()
        } else {
            let words = "BACKEND backend, EACH, MAX n, RATE n ms, COST name n ms, BURST b, TIER t or BALANCE percent";
            return Err(Error::not_one_of("keyword", word, words));
        };
        if is_repeated {
            return Err(Error::repeated(word));
        }
    }
    let limited = limited.unwrap_or(Limited::Pool);
    if let Some(rate) = &mut limits.rate {
        *rate = with_burst(*rate, burst, 1)?;
    } else if burst.is_some() {
        return Err(Error::burst_alone());
    }
    let costs = costs.into_iter().map(|(name, rate, burst)| {
        let usual = rate.map_or(1, |rate| rate.picks.div_ceil(20));
        Ok((name, with_burst(rate, burst, usual)?))
    });
    let costs = costs.collect::<Result<_, Error>>()?;
    match (limits.tier, limited) {
        (Some(_), Limited::Pool) => Err(Error::fixed(
            "ERR TIER needs BACKEND: the pool as a whole has no tier",
        )),
        (Some(_), Limited::Each) => Err(Error::fixed(
            "ERR TIER needs BACKEND: tiers differ from backend to backend",
        )),
        (_, Limited::Backend(_) | Limited::Each) if balance.is_some() => Err(Error::fixed(
            "ERR BALANCE concerns the pool as a whole: it comes without BACKEND and EACH",
        )),
        _ => Ok(LimitWords {
            limited,
            limits,
            costs,
            balance,
        }),
    }
}

/// The number behind BALANCE.
fn percent<'a>(options: &mut Options<impl Words<'a>>) -> Result<u16, Error> {
    let percent = options.number("BALANCE", 0..=u64::from(BALANCE_MOST))? as u16;
    match percent {
        0 | BALANCE_LEAST.. => Ok(percent),
        _ => Err(Error::new(format!(
            "ERR BALANCE is '{percent}', which is neither 0 nor an integer from {BALANCE_LEAST} to {BALANCE_MOST}"
        ))),
    }
}

/// A number and its time. 0 means no limit, whatever the time.
fn rate<'a>(options: &mut Options<impl Words<'a>>, keyword: &str) -> Result<Option<Rate>, Error> {
    let picks = options.number(keyword, 0..=RATE_MAX)?;
    let least = u64::from(picks > 0);
    let millis = options.number(&format!("the time of {keyword}"), least..=SPAN_MAX)?;
    let burst = 1;
    let rate = Rate {
        picks,
        millis,
        burst,
    };
    Ok((picks > 0).then_some(rate))
}

fn with_burst(rate: Option<Rate>, burst: Option<u64>, usual: u64) -> Result<Option<Rate>, Error> {
    match (rate, burst) {
        (None, Some(_)) => Err(Error::burst_alone()),
        (rate, burst) => Ok(rate.map(|rate| Rate {
            burst: burst.unwrap_or(usual),
            ..rate
        })),
    }
}
