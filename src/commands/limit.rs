//! LB.LIMIT: limits the leases, picks and costs of a backend, of each backend, or of the pool.

use super::limit_words::{LimitWords, limit_words};
use crate::lb::{COSTS_MAX, CostLimit, Limited, Limits, Pool, Rate, Slot, TIERS_MAX};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Reply, Spec};

/// LB.LIMIT
pub struct Limit;

impl Command for Limit {
    const SPEC: Spec = Spec {
        name: "LB.LIMIT",
        summary: "Limits a backend, EACH backend that has no limit of its own, or the pool as a whole: MAX leases at once, RATE picks in a time, COST an amount in a time (0 = no limit), TIER of a backend, BALANCE of the pool: the most percent of its share that hash gives a backend. Without a limit it returns the present limits.",
        complexity: "O(log N), with N the number of backends in the pool; O(N log N) for EACH; O(N) for a TIER that no eligible backend has",
        since: "0.2.0",
        arity: -2,
        // Not deny-oom: to read limits, or to remove one, takes no memory.
        flags: "write",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::new(
                "whose",
                Kind::OneOf(&[Arg::BACKEND.token("BACKEND"), Arg::token_alone("EACH")]),
            )
            .optional(),
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
            Arg::new(
                "cost",
                Kind::Block(&[
                    Arg::new("name", Kind::Text).token("COST"),
                    Arg::new("amount", Kind::Integer),
                    Arg::MILLISECONDS,
                    Arg::new("burst", Kind::Integer).token("BURST").optional(),
                ]),
            )
            .optional()
            .multiple(),
            Arg::new("tier", Kind::Integer).token("TIER").optional(),
            Arg::new("percent", Kind::Integer)
                .token("BALANCE")
                .optional(),
        ],
    };

    type Order<'a> = LimitWords<'a>;

    fn read(call: &Call) -> Result<LimitWords<'_>, Error> {
        let words = limit_words(call.args(2))?;
        match !words.only_frees() && call.is_out_of_memory() {
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
            _ if words.rated_costs().next().is_some() => Access::FromNow,
            _ => Access::Now,
        }
    }

    fn check(words: &mut LimitWords, key: &mut Key) -> Result<(), Error> {
        if words.only_asks() {
            return Ok(());
        }
        if let Limited::Backend(backend) = words.limited
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
        let has_room = match key.pool() {
            Some(pool) => pool.has_room_for_costs(words.rated_costs()),
            None => words.rated_costs().count() <= COSTS_MAX,
        };
        match has_room {
            true => Ok(()),
            false => Err(Error::new(format!(
                "ERR a pool has at most {COSTS_MAX} different costs: COST name 0 0 takes one away"
            ))),
        }
    }

    fn run(words: LimitWords, key: &mut Key, call: &Call) -> Effect {
        if words.only_asks() {
            answer(call.reply(), key.pool(), words.limited);
            return Effect::None;
        }
        let is_nothing = key.pool().is_none() && !words.is_any();
        let changed = !is_nothing && set(key.pool_or_new(), &words);
        call.reply().ok();
        Effect::events([(c"lb.limit", usize::from(changed))])
    }
}

/// Whether that changed anything.
fn set(pool: &mut Pool, words: &LimitWords) -> bool {
    let limits = &words.limits;
    let changed = match words.limited {
        Limited::Pool => pool.set_limits(None, limits),
        Limited::Each => pool.set_limits_of_each(limits),
        Limited::Backend(backend) => pool.set_limits(Some(backend), limits),
    };
    let rebalanced = words
        .balance
        .is_some_and(|percent| pool.set_balance(percent));
    pool.set_costs(words.limited, &words.costs) || rebalanced || changed
}

/// Replies with a map of the limits that are set.
fn answer(reply: Reply, pool: Option<&Pool>, limited: Limited) {
    let slot = match limited {
        Limited::Backend(name) => match pool.and_then(|pool| pool.slot(name)) {
            Some(slot) => Some(slot),
            None => return reply.nil(),
        },
        Limited::Pool | Limited::Each => None,
    };
    let (limits, costs): (Limits, Vec<(&[u8], Rate)>) = match (pool, limited) {
        (None, _) => (Limits::default(), Vec::new()),
        (Some(pool), Limited::Each) => (pool.limits_of_each(), pool.costs_of_each().collect()),
        (Some(pool), _) => {
            let own = pool.costs(slot).filter(|cost| !cost.inherits);
            let own = own.map(|cost| (cost.name, cost.rate));
            (pool.own_limits(slot), own.collect())
        }
    };
    let tier = limits.tier.map(u64::from);
    let balance = pool.filter(|_| limited == Limited::Pool).map(Pool::balance);
    let balance = balance.filter(|percent| *percent > 0).map(u64::from);
    let fields = fields(&limits).into_iter();
    let fields = fields.chain([("tier", tier), ("balance", balance)]);
    let set = fields.filter_map(|(field, value)| Some((field, value?)));
    reply.map(set.clone().count() + usize::from(!costs.is_empty()));
    for (field, value) in set {
        reply.field(field, value as usize);
    }
    if !costs.is_empty() {
        reply.bulk(b"costs");
        reply.map(costs.len());
        for (name, rate) in costs {
            reply.bulk(name);
            reply.map(3);
            rate_fields(reply, &rate);
        }
    }
}

fn rate_fields(reply: Reply, rate: &Rate) {
    reply.field("rate", rate.picks as usize);
    reply.field("rate-ms", rate.millis as usize);
    reply.field("burst", rate.burst as usize);
}

/// The costs that are limited for the backend in that slot, or for the pool as a whole, and how much is left. The field is
/// present only where one is limited: it is a map, and clients that know no costs read numbers and words.
pub(super) struct StandingCosts<'a>(Vec<CostLimit<'a>>);

impl<'a> StandingCosts<'a> {
    pub fn of(pool: &'a Pool, slot: Option<Slot>) -> StandingCosts<'a> {
        StandingCosts(pool.costs(slot).collect())
    }

    /// The number of fields: one or none.
    pub fn fields(&self) -> usize {
        usize::from(!self.0.is_empty())
    }

    pub fn reply(&self, reply: Reply) {
        if self.0.is_empty() {
            return;
        }
        reply.bulk(b"costs");
        reply.map(self.0.len());
        for cost in &self.0 {
            reply.bulk(cost.name);
            reply.map(4);
            rate_fields(reply, &cost.rate);
            reply.bulk(b"left");
            reply.signed(cost.left);
        }
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
