//! A pool in the plainest form: one list, walked from end to end by every command.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use redis_lb::lb::{
    Added, Algorithm, LeaseId, Limits, Millis, Rate, Replaced, Report, State, When,
};

/// How far from 0 a credit can be.
pub const CREDIT_MAX: i128 = 1 << 60;

#[derive(Clone, Debug)]
pub struct Member {
    pub name: Vec<u8>,
    pub weight: u16,
    pub state: State,
    pub credit: i128,
    pub picks: u64,
    pub limit: Limit,
    pub tier: u8,
    /// When least connections picked it last.
    last: u64,
    /// Done, failed, expired, and the sum of the latencies.
    pub ended: [u64; 4],
}

/// A limit of a member or of the pool.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    pub max: u32,
    rate: Option<Rate>,
    /// In parts of a token.
    level: u128,
    at: Millis,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub id: LeaseId,
    pub name: Vec<u8>,
    pub owner: Option<Vec<u8>>,
    pub granted: Millis,
    pub deadline: Millis,
}

#[derive(Clone, Debug)]
pub struct Naive {
    pub members: Vec<Member>,
    pub policy: Algorithm,
    /// How many picks it ever answered.
    pub picks: u64,
    /// How many members stand before the cursor of round robin.
    rr: usize,
    chance: Option<Xoshiro256PlusPlus>,
    pub clock: Millis,
    pub leases: Vec<Lease>,
    pub limit: Limit,
    epoch: u64,
    next: u64,
    turns: u64,
}

#[derive(Clone, Debug)]
pub struct Wanted {
    pub algorithm: Option<Algorithm>,
    pub count: usize,
    pub distinct: bool,
    pub exclude: Vec<Vec<u8>>,
    pub lease: Option<(Millis, Option<Vec<u8>>)>,
}

impl Naive {
    pub fn new() -> Naive {
        Naive {
            members: vec![],
            policy: Algorithm::WRR,
            picks: 0,
            rr: 0,
            chance: None,
            clock: 0,
            leases: vec![],
            limit: Limit::default(),
            epoch: 0,
            next: 0,
            turns: 0,
        }
    }

    pub fn find(&mut self, name: &[u8]) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.name == name)
    }

    pub fn add(&mut self, name: &[u8], weight: Option<u16>) -> Added {
        if let Some(member) = self.find(name) {
            return match member.reweight(weight.unwrap_or(member.weight)) {
                true => Added::Reweighted,
                false => Added::Unchanged,
            };
        }
        self.members.push(Member {
            name: name.to_vec(),
            weight: weight.unwrap_or(1),
            state: State::Up,
            credit: 0,
            picks: 0,
            limit: Limit::default(),
            tier: 0,
            last: 0,
            ended: [0; 4],
        });
        Added::New
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(at) = self.members.iter().position(|m| m.name == name) else {
            return false;
        };
        self.members.remove(at);
        self.leases.retain(|lease| lease.name != name);
        if at < self.rr {
            self.rr -= 1;
        }
        true
    }

    pub fn set(&mut self, list: &[(Vec<u8>, u16)]) -> Replaced {
        let gone: Vec<Vec<u8>> = (self.members.iter())
            .map(|m| m.name.clone())
            .filter(|name| list.iter().all(|(n, _)| n != name))
            .collect();
        gone.iter().for_each(|name| {
            self.remove(name);
        });
        let added: Vec<Added> = list
            .iter()
            .map(|(name, weight)| self.add(name, Some(*weight)))
            .collect();
        let count = |what| added.iter().filter(|a| **a == what).count();
        Replaced {
            added: count(Added::New),
            removed: gone.len(),
            reweighted: count(Added::Reweighted),
        }
    }

    pub fn seed(&mut self, seed: u64) {
        self.chance = Some(Xoshiro256PlusPlus::seed_from_u64(seed));
    }

    pub fn set_state(&mut self, name: &[u8], state: State) -> Option<bool> {
        let member = self.find(name)?;
        let changed = member.state != state;
        member.state = state;
        if state == State::Down {
            self.leases.retain(|lease| lease.name != name);
        }
        Some(changed)
    }

    pub fn tick(&mut self, clock: Millis) -> bool {
        if clock <= self.clock {
            return false;
        }
        self.clock = clock;
        let (over, open) = (self.leases.drain(..)).partition(|lease| lease.deadline <= clock);
        self.leases = open;
        for lease in over as Vec<Lease> {
            self.find(&lease.name).unwrap().ended[2] += 1;
        }
        true
    }

    pub fn open_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    pub fn done(&mut self, id: LeaseId, report: &Report) -> bool {
        let Some(at) = self.leases.iter().position(|lease| lease.id == id) else {
            return false;
        };
        let lease = self.leases.remove(at);
        let ended = &mut self.find(&lease.name).unwrap().ended;
        ended[0] += 1;
        ended[1] += u64::from(report.failed);
        ended[3] += report.latency.unwrap_or(0);
        true
    }

    pub fn renew(&mut self, id: LeaseId, span: Millis) -> bool {
        let deadline = (self.clock + span + 10).div_ceil(10) * 10;
        let found = self.leases.iter_mut().find(|lease| lease.id == id);
        found.map(|lease| lease.deadline = deadline).is_some()
    }

    pub fn release(&mut self, owner: &[u8]) -> usize {
        let before = self.leases.len();
        self.leases
            .retain(|lease| lease.owner.as_deref() != Some(owner));
        before - self.leases.len()
    }

    /// Whether that changed anything.
    pub fn set_limits(&mut self, name: Option<&[u8]>, limits: &Limits) -> bool {
        let clock = self.clock;
        let mut changed = false;
        let limit = match name {
            None => &mut self.limit,
            Some(name) => {
                let Some(member) = self.find(name) else {
                    return false;
                };
                if let Some(tier) = limits.tier.filter(|tier| *tier != member.tier) {
                    member.tier = tier;
                    member.credit = 0;
                    changed = true;
                }
                &mut member.limit
            }
        };
        if let Some(max) = limits.max {
            changed |= max != limit.max;
            limit.max = max;
        }
        if let Some(rate) = limits.rate.filter(|rate| *rate != limit.rate) {
            changed = true;
            limit.level = match (limit.rate, rate) {
                (_, None) => 0,
                (None, Some(rate)) => u128::from(rate.burst * rate.millis),
                (Some(old), Some(rate)) => {
                    let scaled = limit.level_at(clock) * u128::from(rate.millis);
                    (scaled / u128::from(old.millis)).min(u128::from(rate.burst * rate.millis))
                }
            };
            limit.at = clock;
            limit.rate = rate;
        }
        changed
    }

    /// How many leases are open on that member.
    pub fn leases_on(&self, name: &[u8]) -> u32 {
        self.leases
            .iter()
            .filter(|lease| lease.name == name)
            .count() as u32
    }

    pub fn is_available(&self, m: &Member) -> bool {
        let here = m.limit.allows(self.leases_on(&m.name), self.clock);
        let pool = self.limit.allows(self.leases.len() as u32, self.clock);
        m.weight > 0 && m.state == State::Up && here && pool
    }

    /// By looking at each time at which anything changes by itself. The clock may show it with its next step only.
    pub fn when(&self) -> When {
        if self.members.iter().any(|m| self.is_available(m)) {
            return When::Available;
        }
        let mut times: Vec<Millis> = self.leases.iter().map(|lease| lease.deadline).collect();
        let limits = self.members.iter().map(|m| &m.limit).chain([&self.limit]);
        times.extend(limits.filter_map(Limit::refill));
        times.sort_unstable();
        for time in times {
            let mut then = self.clone();
            if then.tick(time) && then.members.iter().any(|m| then.is_available(m)) {
                return When::Limited(time.div_ceil(10) * 10 - self.clock);
            }
        }
        match &self.members[..] {
            [] => When::Empty,
            all if all.iter().any(|m| m.state == State::Drain) => When::Drained,
            all if all.iter().any(|m| m.state == State::Down) => When::Down,
            _ => When::Quiesced,
        }
    }

    /// The picked members, and the id of the first one's lease.
    pub fn picks(&mut self, wanted: &Wanted) -> (Vec<Vec<u8>>, Option<LeaseId>) {
        let mut first = None;
        let mut out = wanted.exclude.clone();
        let mut picked = vec![];
        for _ in 0..wanted.count {
            let Some(name) = self.pick(wanted.algorithm.unwrap_or(self.policy), &out) else {
                break;
            };
            self.limit.take(self.clock);
            let clock = self.clock;
            self.find(&name).unwrap().limit.take(clock);
            if let Some((span, owner)) = &wanted.lease {
                let (epoch, number) = (self.epoch, self.next);
                self.next += 1;
                self.leases.push(Lease {
                    id: LeaseId { epoch, number },
                    name: name.clone(),
                    owner: owner.clone(),
                    granted: clock,
                    deadline: (clock + span + 10).div_ceil(10) * 10,
                });
                first = first.or(Some(LeaseId { epoch, number }));
            }
            if wanted.distinct {
                out.push(name.clone());
            }
            picked.push(name);
        }
        (picked, first)
    }

    fn pick(&mut self, algorithm: Algorithm, out: &[Vec<u8>]) -> Option<Vec<u8>> {
        let eligible: Vec<usize> = (self.members.iter().enumerate())
            .filter(|(_, m)| self.is_available(m) && !out.contains(&m.name))
            .map(|(i, _)| i)
            .collect();
        let tier = eligible.iter().map(|&i| self.members[i].tier).min()?;
        let of_tier = |i: &usize| self.members[*i].tier == tier;
        let eligible: Vec<usize> = eligible.into_iter().filter(of_tier).collect();
        let weights: u64 = eligible
            .iter()
            .map(|&i| u64::from(self.members[i].weight))
            .sum();
        let at = match algorithm.name() {
            "rr" => {
                let after = eligible.iter().find(|&&i| i >= self.rr);
                let at = *after.unwrap_or(&eligible[0]);
                self.rr = at + 1;
                at
            }
            "wrr" => {
                let mut best = eligible[0];
                for &i in &eligible {
                    let m = &mut self.members[i];
                    m.credit += i128::from(m.weight);
                    if m.credit > self.members[best].credit {
                        best = i;
                    }
                }
                let highest = self.members[best].credit;
                if highest > CREDIT_MAX || highest - i128::from(weights) < -CREDIT_MAX {
                    for &i in &eligible {
                        let m = &mut self.members[i];
                        m.credit = (m.credit - highest).max(-CREDIT_MAX);
                    }
                }
                self.members[best].credit -= i128::from(weights);
                best
            }
            "random" => eligible[self.below(eligible.len() as u64) as usize],
            "wrandom" => {
                let mut left = self.below(weights);
                *(eligible.iter())
                    .find(|&&i| {
                        let weight = u64::from(self.members[i].weight);
                        let here = left < weight;
                        left = left.wrapping_sub(weight);
                        here
                    })
                    .unwrap()
            }
            "lc" => {
                let mut best = eligible[0];
                for &i in &eligible[1..] {
                    let last = |i: usize| self.members[i].last;
                    let (here, there) = (self.load(i, best), self.load(best, i));
                    if here < there || here == there && last(i) < last(best) {
                        best = i;
                    }
                }
                self.turns += 1;
                self.members[best].last = self.turns;
                best
            }
            "p2c" => {
                let n = eligible.len() as u64;
                let a = self.below(n) as usize;
                if n == 1 {
                    eligible[a]
                } else {
                    let b = self.below(n - 1) as usize;
                    let (a, b) = (eligible[a], eligible[if b < a { b } else { b + 1 }]);
                    if self.load(b, a) < self.load(a, b) {
                        b
                    } else {
                        a
                    }
                }
            }
            other => panic!("the naive pool does not know {other}"),
        };
        self.picks += 1;
        self.members[at].picks += 1;
        Some(self.members[at].name.clone())
    }

    /// (leases + 1) / weight, times the weight of both.
    fn load(&self, i: usize, other: usize) -> u64 {
        let leases = u64::from(self.leases_on(&self.members[i].name));
        (leases + 1) * u64::from(self.members[other].weight)
    }

    /// Lemire's way, by rejection, with 128-bit arithmetic throughout.
    fn below(&mut self, n: u64) -> u64 {
        let chance = self
            .chance
            .get_or_insert_with(|| Xoshiro256PlusPlus::seed_from_u64(0));
        loop {
            let product = u128::from(chance.next_u64()) * u128::from(n);
            if product % (1 << 64) >= (1 << 64) % u128::from(n) {
                return (product >> 64) as u64;
            }
        }
    }
}

impl Member {
    /// Whether that changed anything.
    pub fn reweight(&mut self, weight: u16) -> bool {
        if weight == self.weight {
            return false;
        }
        self.credit = match self.weight {
            0 => 0,
            old => self.credit * i128::from(weight) / i128::from(old),
        };
        self.credit = self.credit.clamp(-CREDIT_MAX, CREDIT_MAX);
        self.weight = weight;
        true
    }
}

impl Limit {
    fn level_at(&self, clock: Millis) -> u128 {
        let Some(rate) = self.rate else {
            return 0;
        };
        let brought = u128::from(clock - self.at) * u128::from(rate.picks);
        (self.level + brought).min(u128::from(rate.burst * rate.millis))
    }

    fn allows(&self, leases: u32, clock: Millis) -> bool {
        let has_token = |rate: Rate| self.level_at(clock) >= u128::from(rate.millis);
        (self.max == 0 || leases < self.max) && self.rate.is_none_or(has_token)
    }

    /// When the bucket has a token, if it has none now.
    fn refill(&self) -> Option<Millis> {
        let rate = self.rate?;
        let lacks = u128::from(rate.millis).checked_sub(self.level)?;
        Some(self.at + lacks.div_ceil(u128::from(rate.picks)) as u64)
    }

    fn take(&mut self, clock: Millis) {
        if let Some(rate) = self.rate {
            self.level = self.level_at(clock) - u128::from(rate.millis);
            self.at = clock;
        }
    }

    pub fn is_set(&self) -> bool {
        self.max > 0 || self.rate.is_some()
    }
}
