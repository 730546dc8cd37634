//! LB.LIMIT: limits the leases and picks of a backend, or of the pool.

use super::arguments::{Options, is_keyword, name};
use crate::lb::{LEASES_MAX, Limits, Pool, RATE_MAX, Rate, SPAN_MAX, Slot, TIERS_MAX};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Reply, Spec};

/// LB.LIMIT
pub struct Limit;

impl Command for Limit {
    const SPEC: Spec = Spec {
        name: "LB.LIMIT",
        summary: "Limits a backend, or the pool as a whole: MAX leases at once, RATE picks in a time (0 = no limit), TIER of a backend. Without a limit it returns the present limits.",
        complexity: "O(log N), with N the number of backends in the pool; O(N) for a TIER that no eligible backend has",
        since: "0.2.0",
        arity: -2,
        // Not deny-oom: to read limits, or to remove one, takes no memory.
        flags: "write",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::BACKEND.token("BACKEND").optional(),
            Arg::new("max", Kind::Integer).token("MAX").optional(),
            Arg::new(
                "rate",
                Kind::Block(&[
                    Arg::new("picks", Kind::Integer).token("RATE"),
                    Arg::MILLISECONDS,
                    Arg::new("burst", Kind::Integer).token("BURST").optional(),
                ]),
            )
            .optional(),
            Arg::new("tier", Kind::Integer).token("TIER").optional(),
        ],
    };

    type Order<'a> = LimitWords<'a>;

    fn read(call: &Call) -> Result<LimitWords<'_>, Error> {
        let words = limit_words(call)?;
        match !words.limits.only_frees() && call.is_out_of_memory() {
            true => Err(Error::out_of_memory()),
            false => Ok(words),
        }
    }

    fn access(words: &LimitWords) -> Access {
        match words.limits {
            _ if words.only_asks() => Access::Look,
            // A token bucket begins to fill now. (A key that is missing here is missing on replicas too, and there LB.TICK would find
            // no pool. So the clock of a new pool begins with the next command.)
            Limits {
                rate: Some(Some(_)),
                ..
            } => Access::FromNow,
            _ => Access::Now,
        }
    }

    fn check(words: &LimitWords, key: &mut Key) -> Result<(), Error> {
        if words.only_asks() {
            return Ok(());
        }
        if let Some(backend) = words.backend
            && key.pool().is_none_or(|pool| pool.slot(backend).is_none())
        {
            return Err(Error::no_backend(backend));
        }
        if let (Some(pool), Some(tier)) = (key.pool(), words.limits.tier)
            && !pool.has_room_for_tier(tier)
        {
            return Err(Error::new(format!(
                "ERR a pool has at most {TIERS_MAX} different tiers, 0 among them"
            )));
        }
        Ok(())
    }

    fn run(words: LimitWords, key: &mut Key, call: &Call) -> Effect {
        let LimitWords { backend, limits } = &words;
        if words.only_asks() {
            answer(call.reply(), key.pool(), *backend);
            return Effect::None;
        }
        let is_nothing = key.pool().is_none() && !limits.is_any();
        let changed = !is_nothing && key.pool_or_new().set_limits(*backend, limits);
        call.reply().ok();
        Effect::events([(c"lb.limit", usize::from(changed))])
    }
}

/// The arguments behind the key in LB.LIMIT.
pub struct LimitWords<'a> {
    backend: Option<&'a [u8]>,
    limits: Limits,
}

impl LimitWords<'_> {
    /// Whether it sets nothing.
    fn only_asks(&self) -> bool {
        self.limits == Limits::default()
    }
}

fn limit_words<'a>(call: &'a Call) -> Result<LimitWords<'a>, Error> {
    let (mut backend, mut limits, mut burst) = (None, Limits::default(), None);
    let mut options = Options::of(call.args(2));
    while let Some(word) = options.keyword() {
        let is_repeated = if is_keyword(word, b"BACKEND") {
            let named = name(options.value("BACKEND")?)?;
            backend.replace(named).is_some()
        } else if is_keyword(word, b"MAX") {
            let max = options.number("MAX", 0..=u64::from(LEASES_MAX))?;
            limits.max.replace(max as u32).is_some()
        } else if is_keyword(word, b"RATE") {
            let picks = options.number("RATE", 0..=RATE_MAX)?;
            // `RATE 0` means no limit, whatever the time.
            let least = u64::from(picks > 0);
            let millis = options.number("the time of RATE", least..=SPAN_MAX)?;
            let burst = 1;
            let rate = Rate {
                picks,
                millis,
                burst,
            };
            limits
                .rate
                .replace(Some(rate).filter(|r| r.picks > 0))
                .is_some()
        } else if is_keyword(word, b"BURST") {
            burst
                .replace(options.number("BURST", 1..=RATE_MAX)?)
                .is_some()
        } else if is_keyword(word, b"TIER") {
            let tier = options.number("TIER", 0..=u64::from(u8::MAX))?;
            limits.tier.replace(tier as u8).is_some()
        } else {
            let words = "BACKEND backend, MAX n, RATE n ms, BURST b or TIER t";
            return Err(Error::not_one_of("keyword", word, words));
        };
        if is_repeated {
            return Err(Error::repeated(word));
        }
    }
    match (burst, &mut limits.rate) {
        (Some(burst), Some(Some(rate))) => rate.burst = burst,
        (Some(_), _) => {
            return Err(Error::new(
                "ERR BURST needs RATE: it is the number of its picks that can come at once".into(),
            ));
        }
        (None, _) => {}
    }
    if limits.tier.is_some() && backend.is_none() {
        return Err(Error::new(
            "ERR TIER needs BACKEND: the pool as a whole has no tier".into(),
        ));
    }
    Ok(LimitWords { backend, limits })
}

/// Replies with a map of the limits that are set.
fn answer(reply: Reply, pool: Option<&Pool>, backend: Option<&[u8]>) {
    let slot = backend.map(|name| pool.and_then(|pool| pool.slot(name)));
    if slot == Some(None) {
        return reply.nil();
    }
    let slot = slot.flatten();
    let limits = pool.map_or(Limits::default(), |pool| pool.limits(slot));
    let tier = limits.tier.map(u64::from);
    let fields = fields(&limits).into_iter().chain([("tier", tier)]);
    let set = fields.filter_map(|(field, value)| Some((field, value?)));
    reply.map(set.clone().count());
    for (field, value) in set {
        reply.field(field, value as usize);
    }
}

/// The limits that a backend and the pool as a whole both can have.
fn fields(limits: &Limits) -> [(&'static str, Option<u64>); 4] {
    let rate = limits.rate.flatten();
    [
        ("max", limits.max.map(u64::from)),
        ("rate", rate.map(|rate| rate.picks)),
        ("rate-ms", rate.map(|rate| rate.millis)),
        ("burst", rate.map(|rate| rate.burst)),
    ]
}

/// The limits of the backend in that slot, or of the pool as a whole, and the remaining tokens. Every field is present; it is 0
/// if the limit is not set.
pub(super) fn standing(pool: &Pool, slot: Option<Slot>) -> [(&'static str, u64); 5] {
    let [max, rate, millis, burst] = fields(&pool.limits(slot));
    [max, rate, millis, burst, ("tokens", pool.tokens(slot))]
        .map(|(field, value)| (field, value.unwrap_or(0)))
}
