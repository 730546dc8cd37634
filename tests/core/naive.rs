//! A pool in the plainest form: one list, walked from end to end by every command.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use redis_lb::lb::{
    Added, Algorithm, Availability, HealthSettings, LeaseId, Limits, Millis, Outcome,
    QueueSettings, Rate, Replaced, Report, State,
};

use twox_hash::XxHash3_64;

use crate::naive_health::{Health, Settings, Stage};

/// How far from 0 a credit can be.
pub const CREDIT_MAX: i128 = 1 << 60;

#[derive(Clone, Debug)]
pub struct Member {
    /// No other member has it, also none of the same name that was there before or comes later.
    serial: u64,
    pub name: Vec<u8>,
    pub weight: u16,
    pub state: State,
    pub credit: i128,
    pub picks: u64,
    pub limit: Limit,
    pub tier: u8,
    /// When least connections picked it last.
    last: u64,
    /// When least latency picked it last.
    last_by_latency: u64,
    /// Done, failed, expired, and the sum of the latencies.
    pub ended: [u64; 4],
}

/// A limit of a member or of the pool.
#[derive(Clone, Debug, Default)]
pub struct Limit {
    pub max: u32,
    rate: Option<Rate>,
    /// What was set for it alone.
    pub own: (u32, Option<Rate>),
    /// By name, in the order of the alphabet.
    pub costs: BTreeMap<Vec<u8>, CostBucket>,
    /// In parts of a token.
    level: u128,
    at: Millis,
    /// When the empty bucket has a token again. A tick clears it.
    refill: Option<Millis>,
}

/// The bucket of a cost.
#[derive(Clone, Debug)]
pub struct CostBucket {
    /// No other bucket has it, also none that was there before.
    serial: u64,
    pub is_own: bool,
    pub rate: Rate,
    /// In parts of a token.
    level: i128,
    at: Millis,
}

/// What holds for each member that has nothing of its own.
#[derive(Clone, Debug, Default)]
pub struct Each {
    pub max: u32,
    pub rate: Option<Rate>,
    pub costs: BTreeMap<Vec<u8>, Rate>,
}

impl Each {
    pub fn is_set(&self) -> bool {
        self.max > 0 || self.rate.is_some() || !self.costs.is_empty()
    }
}

/// Names of costs, with amounts.
pub type Costs = Vec<(Vec<u8>, u64)>;

/// The leases of one owner or one member that are over, whatever their deadlines: those with lower numbers.
#[derive(Clone, Debug)]
struct Mark {
    of: Of,
    below: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Of {
    Owner(Vec<u8>),
    Member(u64),
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub id: LeaseId,
    member: u64,
    pub name: Vec<u8>,
    pub owner: Option<Vec<u8>>,
    pub granted: Millis,
    pub deadline: Millis,
    /// The buckets that its pick took something out of, by their serials.
    took: BTreeMap<u64, u64>,
}

/// A session, and the member that it sticks to.
#[derive(Clone, Debug)]
struct Session {
    name: Vec<u8>,
    member: u64,
    deadline: Millis,
    /// How many picks for sessions came before its last one, and before the one that pinned it.
    picked: u64,
    pinned: u64,
}

/// The session of a pick.
#[derive(Clone, Debug)]
pub struct Sticky {
    pub session: Vec<u8>,
    pub span: Millis,
    pub is_strict: bool,
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
    pub each: Each,
    /// Over, whatever their deadlines, in the order in which they were marked.
    marks: Vec<Mark>,
    pub rules: u8,
    epoch: u64,
    next: u64,
    turns: u64,
    turns_by_latency: u64,
    serial: u64,
    /// In percent.
    pub balance: u16,
    /// Of each member, in the same order.
    pub health: Health,
    /// Whether reports move latencies.
    heeds_latencies: bool,
    sessions: Vec<Session>,
    /// How many picks for sessions there were.
    session_picks: u64,
    /// The members that are gone, in that order.
    gone: Vec<u64>,
    pub queue: QueueSettings,
}

#[derive(Clone, Debug)]
pub struct Wanted {
    pub algorithm: Option<Algorithm>,
    pub item: Vec<u8>,
    pub count: usize,
    pub distinct: bool,
    pub exclude: Vec<Vec<u8>>,
    pub lease: Option<(Millis, Option<Vec<u8>>)>,
    pub costs: Costs,
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
            each: Each::default(),
            marks: vec![],
            rules: 1,
            epoch: 0,
            next: 0,
            turns: 0,
            turns_by_latency: 0,
            serial: 0,
            balance: 0,
            health: Health::default(),
            heeds_latencies: false,
            sessions: vec![],
            session_picks: 0,
            gone: vec![],
            queue: QueueSettings::default(),
        }
    }

    pub fn find(&mut self, name: &[u8]) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.name == name)
    }

    pub fn add(&mut self, name: &[u8], weight: Option<u16>) -> Added {
        let starts = self.starts(weight.unwrap_or(1).into());
        self.add_as(name, weight, starts)
    }

    fn starts(&self, newcomers: u64) -> bool {
        self.picks > 0 && self.health.slows(newcomers)
    }

    fn add_as(&mut self, name: &[u8], weight: Option<u16>, starts: bool) -> Added {
        if let Some(member) = self.find(name) {
            let weight = weight.unwrap_or(member.weight);
            return match self.reweight(name, weight) {
                true => Added::Reweighted,
                false => Added::Unchanged,
            };
        }
        self.health.add(weight.unwrap_or(1), starts);
        let mut limit = Limit::default();
        limit.inherit(&self.each, self.clock, &mut self.serial);
        self.members.push(Member {
            serial: {
                self.serial += 1;
                self.serial
            },
            name: name.to_vec(),
            weight: weight.unwrap_or(1),
            state: State::Up,
            credit: 0,
            picks: 0,
            limit,
            tier: 0,
            last: 0,
            last_by_latency: 0,
            ended: [0; 4],
        });
        Added::New
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(at) = self.members.iter().position(|m| m.name == name) else {
            return false;
        };
        let serial = self.members.remove(at).serial;
        self.health.backends.remove(at);
        self.gone.push(serial);
        self.mark(Of::Member(serial));
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
        let mut newcomers = 0;
        for (name, weight) in list {
            if self.find(name).is_none() {
                newcomers += u64::from(*weight);
            }
        }
        let starts = self.starts(newcomers);
        let added: Vec<Added> = list
            .iter()
            .map(|(name, weight)| self.add_as(name, Some(*weight), starts))
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
        let serial = member.serial;
        let at = self.at(name);
        self.follow(at);
        let is_restored = state == State::Up && self.health.restore(at, self.next);
        if state == State::Down {
            self.mark(Of::Member(serial));
        }
        Some(changed || is_restored)
    }

    fn at(&self, name: &[u8]) -> usize {
        let at = self.members.iter().position(|m| m.name == name);
        at.expect("it is there")
    }

    /// The weight or the state of that member has changed.
    fn follow(&mut self, at: usize) {
        let member = &self.members[at];
        let is_up = member.state == State::Up;
        let weight = if is_up { member.weight } else { 0 };
        self.health.set_weight(at, weight);
    }

    /// Whether that changed anything.
    pub fn reweight(&mut self, name: &[u8], weight: u16) -> bool {
        let at = self.at(name);
        let changed = self.members[at].reweight(weight);
        self.follow(at);
        changed
    }

    pub fn set_policy(&mut self, policy: Algorithm) -> bool {
        self.heed_latencies_for(policy);
        std::mem::replace(&mut self.policy, policy) != policy
    }

    fn heed_latencies_for(&mut self, algorithm: Algorithm) {
        if algorithm.name() == "ewma" && !self.heeds_latencies {
            self.heeds_latencies = true;
            self.health.heed_latencies();
        }
    }

    /// Whether that changed anything.
    pub fn set_health(&mut self, settings: &HealthSettings) -> bool {
        let HealthSettings {
            fails,
            failrate,
            min,
            window,
            eject,
            max_eject,
            slow_start,
            adapt,
        } = *settings;
        let settings = Settings {
            fails,
            failrate,
            min,
            window,
            eject,
            max_eject,
            slow_start,
            adapt,
        };
        if settings == self.health.settings {
            return false;
        }
        let had_fractions = self.health.has_fractions;
        self.health.set(settings, self.next);
        if self.health.has_fractions && !had_fractions {
            for member in &mut self.members {
                member.credit = (member.credit * 240).clamp(-CREDIT_MAX, CREDIT_MAX);
            }
        }
        if self.rules == 1 {
            self.health.look_again();
        }
        true
    }

    /// With a budget the ticks end leases and refills only: there is no health in such a sequence.
    pub fn pass(&mut self, clock: Millis) -> bool {
        let moves = clock > self.clock;
        let clears = self.is_any_over();
        while self.clock < clock {
            self.clock += 1;
            self.clear(usize::MAX);
            self.health.pass();
        }
        if clears {
            self.clear(usize::MAX);
            self.health.look_again();
        }
        self.clear_sessions(usize::MAX);
        moves || clears
    }

    /// Whether it was evidence, ejected the backend, brought it back, made it cool.
    fn heed(&mut self, at: usize, lease: Option<u64>, report: &Report) -> [bool; 4] {
        let failed = report.outcome.map(|outcome| outcome == Outcome::Fail);
        let counts = self.health.backends[at].counts(lease);
        if let Some(failed) = failed.filter(|_| counts && self.heeds_latencies) {
            let leases = self.leases.len() as u64;
            self.health.latency(at, failed, report.latency, leases);
        }
        let load = report.load.map(u64::from);
        self.health
            .report(at, lease, failed, load, report.cool, self.next)
    }

    /// What followed from it, if the member is there.
    pub fn report(&mut self, name: &[u8], report: &Report) -> Option<[bool; 4]> {
        let member = self.find(name)?;
        if *report == Report::default() {
            return Some([false; 4]);
        }
        member.ended[1] += u64::from(report.failed());
        member.ended[3] += report.latency.unwrap_or(0);
        let at = self.at(name);
        Some(self.heed(at, None, report))
    }

    /// By version 1 of the rules the budget is of no matter: all that is over is cleared at once.
    pub fn tick(&mut self, clock: Millis, budget: usize) -> bool {
        let moves = clock > self.clock;
        self.clock = clock.max(self.clock);
        self.health.clock = self.clock;
        let clears = clock == self.clock && self.is_any_over();
        if clears {
            let cleared = self.clear(if self.rules == 1 { usize::MAX } else { budget });
            self.clear_sessions(budget.saturating_sub(cleared));
        }
        moves || clears
    }

    /// Sessions that are over keep nobody out.
    fn clear_sessions(&mut self, budget: usize) {
        for _ in 0..budget {
            let due = self.sessions.iter().filter(|s| s.deadline <= self.clock);
            let due = due.min_by_key(|s| (s.deadline, s.picked));
            let turn = |s: &Session| self.gone.iter().position(|serial| *serial == s.member);
            let orphans = self.sessions.iter().filter(|s| turn(s).is_some());
            let orphan = orphans.min_by_key(|s| (turn(s), s.pinned));
            let Some(first) = due.or(orphan).map(|s| s.name.clone()) else {
                return;
            };
            self.sessions.retain(|s| s.name != first);
        }
    }

    /// Answers how many things it cleared, sessions aside.
    fn clear(&mut self, budget: usize) -> usize {
        for cleared in 0..budget {
            let due = self.leases.iter().filter(|l| l.deadline <= self.clock);
            let due = due.min_by_key(|l| (l.deadline, l.id.number));
            if let Some(lease) = due.cloned() {
                self.untold(&lease);
                if !self.is_marked(&lease)
                    && let Some(member) = self.members.iter_mut().find(|m| m.serial == lease.member)
                {
                    member.ended[2] += 1;
                }
                self.drop_lease(lease.id);
                continue;
            }
            let limits = self.members.iter_mut().map(|m| &mut m.limit);
            let limits = limits.chain([&mut self.limit]);
            let overdue = limits.filter(|l| l.refill.is_some_and(|t| t <= self.clock));
            if let Some(limit) = overdue.min_by_key(|l| l.refill) {
                limit.refill = None;
                continue;
            }
            let Some(mark) = self.marks.first() else {
                return cleared;
            };
            let first = self
                .leases
                .iter()
                .find(|l| l.is_under(mark))
                .expect("it is not over")
                .clone();
            self.untold(&first);
            self.drop_lease(first.id);
        }
        budget
    }

    /// A lease ended, and nobody told how its request went.
    fn untold(&mut self, lease: &Lease) {
        let at = self.members.iter().position(|m| m.serial == lease.member);
        if let Some(at) = at {
            self.health.lease_ended(at, lease.id.number);
        }
    }

    fn drop_lease(&mut self, id: LeaseId) -> Lease {
        let at = self.leases.iter().position(|lease| lease.id == id).unwrap();
        let lease = self.leases.remove(at);
        let leases = &self.leases;
        self.marks
            .retain(|mark| leases.iter().any(|l| l.is_under(mark)));
        lease
    }

    /// From now on these leases are over; how many were not.
    fn mark(&mut self, of: Of) -> usize {
        let below = self.next;
        let old = self.marks.iter_mut().find(|mark| mark.of == of);
        let before = old.as_ref().map_or(0, |mark| mark.below);
        let new = (self.leases.iter())
            .filter(|l| l.is_of(&of) && l.id.number >= before)
            .count();
        match old {
            _ if new == 0 => {}
            Some(mark) => mark.below = below,
            None => self.marks.push(Mark { of, below }),
        }
        if self.rules == 1 {
            self.clear(usize::MAX);
        }
        new
    }

    fn is_marked(&self, lease: &Lease) -> bool {
        self.marks.iter().any(|mark| lease.is_under(mark))
    }

    fn is_over(&self, lease: &Lease) -> bool {
        lease.deadline <= self.clock || self.is_marked(lease)
    }

    pub fn is_any_over(&self) -> bool {
        let is_gone = |session: &Session| self.gone.contains(&session.member);
        let mut sessions = self.sessions.iter();
        self.is_any_over_but_sessions() || sessions.any(|s| s.deadline <= self.clock || is_gone(s))
    }

    fn is_any_over_but_sessions(&self) -> bool {
        let mut limits = self.members.iter().map(|m| &m.limit).chain([&self.limit]);
        self.leases.iter().any(|lease| self.is_over(lease))
            || limits.any(|limit| limit.refill.is_some_and(|refill| refill <= self.clock))
            || self.health.is_any_over()
    }

    /// Those that LB.LEASES lists.
    pub fn listed(&self) -> Vec<&Lease> {
        let is_there = |lease: &&Lease| self.members.iter().any(|m| m.serial == lease.member);
        self.leases.iter().filter(is_there).collect()
    }

    pub fn open_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    pub fn done(&mut self, id: LeaseId, report: &Report) -> Option<[bool; 4]> {
        if !self
            .leases
            .iter()
            .any(|lease| lease.id == id && !self.is_over(lease))
        {
            return None;
        }
        let lease = self.drop_lease(id);
        let ended = &mut self.find(&lease.name).unwrap().ended;
        ended[0] += 1;
        ended[1] += u64::from(report.failed());
        ended[3] += report.latency.unwrap_or(0);
        let at = self.at(&lease.name);
        Some(self.heed(at, Some(id.number), report))
    }

    pub fn renew(&mut self, id: LeaseId, span: Millis) -> bool {
        let deadline = (self.clock + span + 10).div_ceil(10) * 10;
        let is_it = |lease: &Lease| lease.id == id && !self.is_over(lease);
        let found = self.leases.iter().position(is_it);
        found
            .map(|at| self.leases[at].deadline = deadline)
            .is_some()
    }

    pub fn release(&mut self, owner: &[u8]) -> usize {
        self.mark(Of::Owner(owner.to_vec()))
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
            changed |= max != limit.own.0;
            limit.own.0 = max;
        }
        if let Some(rate) = limits.rate {
            changed |= rate != limit.own.1;
            limit.own.1 = rate;
        }
        match name {
            None => self.limit.inherit(&Each::default(), clock, &mut 0),
            Some(_) => self.inherit_all(),
        }
        changed
    }

    /// Whether that changed anything.
    pub fn set_each(&mut self, limits: &Limits) -> bool {
        let before = (self.each.max, self.each.rate);
        self.each.max = limits.max.unwrap_or(before.0);
        self.each.rate = limits.rate.unwrap_or(before.1);
        self.inherit_all();
        before != (self.each.max, self.each.rate)
    }

    fn inherit_all(&mut self) {
        for member in &mut self.members {
            (member.limit).inherit(&self.each, self.clock, &mut self.serial);
        }
    }

    /// The names of all costs that are limited anywhere.
    pub fn known_costs(&self) -> BTreeSet<Vec<u8>> {
        let limits = self.members.iter().map(|m| &m.limit).chain([&self.limit]);
        let names = limits.flat_map(|limit| limit.costs.keys());
        names.chain(self.each.costs.keys()).cloned().collect()
    }

    /// Whether that changed anything.
    pub fn set_cost(&mut self, limited: &Whose, name: &[u8], rate: Option<Rate>) -> bool {
        let (clock, name) = (self.clock, name.to_vec());
        if let Whose::Each = limited {
            let before = self.each.costs.get(&name).copied();
            match rate {
                Some(rate) => _ = self.each.costs.insert(name, rate),
                None => _ = self.each.costs.remove(&name),
            }
            self.inherit_all();
            return before != rate;
        }
        let (each, mut serial) = (self.each.clone(), self.serial);
        let (limit, each) = match limited {
            Whose::Member(member) => match self.find(member) {
                Some(member) => (&mut member.limit, each),
                None => return false,
            },
            _ => (&mut self.limit, Each::default()),
        };
        let own = limit.costs.get(&name).filter(|bucket| bucket.is_own);
        let changed = own.map(|bucket| bucket.rate) != rate;
        match rate {
            Some(rate) => limit.hold(&name, rate, true, clock, &mut serial),
            None => {
                _ = limit
                    .costs
                    .get_mut(&name)
                    .map(|bucket| bucket.is_own = false)
            }
        }
        limit.inherit_costs(&each, clock, &mut serial);
        self.serial = serial;
        changed
    }

    /// How much is left of a cost, at most that.
    pub fn lower(&mut self, name: &[u8], cost: &[u8], left: u64) -> bool {
        let clock = self.clock;
        let member = self.find(name);
        let bucket = member.and_then(|member| member.limit.costs.get_mut(cost));
        bucket.is_some_and(|bucket| {
            let most = i128::from(left) * i128::from(bucket.rate.millis);
            let before = bucket.level_at(clock);
            bucket.put(before.min(most), clock);
            before > most
        })
    }

    /// What the lease really cost; it is about to end.
    pub fn settle(&mut self, id: LeaseId, costs: &Costs) {
        let clock = self.clock;
        let is_it = |lease: &&Lease| lease.id == id && !self.is_over(lease);
        let Some(lease) = self.leases.iter().find(is_it).cloned() else {
            return;
        };
        for (name, real) in costs {
            let member = self.members.iter_mut().find(|m| m.serial == lease.member);
            let limits = member.map(|member| &mut member.limit);
            for limit in limits.into_iter().chain([&mut self.limit]) {
                if let Some(bucket) = limit.costs.get_mut(name) {
                    let took = lease.took.get(&bucket.serial).copied().unwrap_or(0);
                    let difference = i128::from(took) - i128::from(*real);
                    let back = difference * i128::from(bucket.rate.millis);
                    bucket.put(bucket.level_at(clock) + back, clock);
                }
            }
        }
    }

    /// How many leases are on that member.
    pub fn leases_on(&self, member: &Member) -> u32 {
        let leases = self.leases.iter();
        leases.filter(|lease| lease.member == member.serial).count() as u32
    }

    pub fn is_available(&self, at: usize) -> bool {
        self.is_open() && self.would_be_available(at)
    }

    fn would_serve(&self, at: usize, costs: &Costs) -> bool {
        self.would_be_available(at) && self.members[at].limit.affords(costs, self.clock)
    }

    /// Those that can be picked by a request for these costs.
    fn available_for(&self, costs: &Costs) -> Vec<usize> {
        let is_affordable = self.limit.affords(costs, self.clock);
        let all = self.available().into_iter().filter(|_| is_affordable);
        all.filter(|at| self.would_serve(*at, costs)).collect()
    }

    /// The weight that a member runs with, in parts of the unit.
    pub fn running_weight(&self, at: usize) -> u64 {
        self.health.running_weight(at) as u64
    }

    pub fn unit(&self) -> u64 {
        if self.health.has_fractions { 240 } else { 1 }
    }

    /// Whether no limit of the pool as a whole is reached.
    fn is_open(&self) -> bool {
        self.limit.allows(self.leases.len() as u32)
    }

    fn would_be_available(&self, at: usize) -> bool {
        let m = &self.members[at];
        let is_willing = m.weight > 0 && m.state == State::Up;
        let is_fit = self.health.backends[at].is_in() || self.is_probe_due(at);
        is_willing && is_fit && m.limit.allows(self.leases_on(m))
    }

    fn is_probe_due(&self, at: usize) -> bool {
        let outage = self.health.backends[at].outage.as_ref();
        matches!(outage.map(|outage| outage.stage), Some(Stage::Due(_)))
    }

    /// Those that can be picked.
    pub fn available(&self) -> Vec<usize> {
        let all = 0..self.members.len();
        all.filter(|at| self.is_available(*at)).collect()
    }

    /// By looking at each time at which anything changes by itself. The clock may show it with its next step only.
    pub fn availability(&self) -> Availability {
        self.availability_for(&vec![])
    }

    /// The same of a request for these costs.
    pub fn availability_for(&self, costs: &Costs) -> Availability {
        if !self.available_for(costs).is_empty() {
            return Availability::Available;
        }
        let is_willing = |m: &Member| m.weight > 0 && m.state == State::Up;
        if self.is_any_over_but_sessions() && self.members.iter().any(is_willing) {
            return Availability::Limited((self.clock + 1).div_ceil(10) * 10 - self.clock);
        }
        let mut times: Vec<Millis> = self.leases.iter().map(|lease| lease.deadline).collect();
        let limits = self.members.iter().map(|m| &m.limit).chain([&self.limit]);
        times.extend(limits.filter_map(|limit| limit.refill));
        times.extend(self.health.backends.iter().filter_map(|b| b.wakes()));
        // A probe whose lease ends is due again when its backend has cooled.
        times.extend(self.health.backends.iter().map(|b| b.cool));
        let limits = self.members.iter().map(|m| &m.limit).chain([&self.limit]);
        times.extend(limits.map(|limit| limit.affords_from(costs, self.clock)));
        times.retain(|time| *time > self.clock);
        times.sort_unstable();
        times.dedup();
        let mut then = self.clone();
        let mut all = 0..self.members.len();
        let mut was_only_closed = all.any(|at| self.would_serve(at, costs));
        for time in times {
            then.pass(time);
            let back = then.available_for(costs);
            if !back.is_empty() {
                let millis = time.div_ceil(10) * 10 - self.clock;
                let health = |at: &usize| &self.health.backends[*at];
                let is_limited = |at: &usize| health(at).is_in() || self.is_probe_due(*at);
                return match back {
                    _ if was_only_closed => Availability::Limited(millis),
                    back if back.iter().any(is_limited) => Availability::Limited(millis),
                    back if back.iter().any(|at| health(at).outage.is_none()) => {
                        Availability::Cooling(millis)
                    }
                    _ => Availability::Ejected(millis),
                };
            }
            let mut all = 0..self.members.len();
            was_only_closed |= all.any(|at| then.would_serve(at, costs));
        }
        match &self.members[..] {
            [] => Availability::Empty,
            all if all.iter().any(|m| m.state == State::Drain) => Availability::Drained,
            all if all.iter().any(|m| m.state == State::Down) => Availability::Down,
            _ => Availability::Quiesced,
        }
    }

    /// The picked members, and the id of the first one's lease.
    pub fn picks(&mut self, wanted: &Wanted) -> (Vec<Vec<u8>>, Option<LeaseId>) {
        let mut first = None;
        let chance = self.chance.clone();
        let mut out = wanted.exclude.clone();
        let mut picked = vec![];
        for _ in 0..wanted.count {
            let algorithm = wanted.algorithm.unwrap_or(self.policy);
            let Some(name) = self.pick_for(algorithm, &wanted.item, &mut out, &wanted.costs) else {
                break;
            };
            let lease = self.take(&name, wanted);
            first = first.or(lease);
            if wanted.distinct {
                out.push(name.clone());
            }
            picked.push(name);
        }
        if picked.is_empty() {
            self.chance = chance;
        }
        (picked, first)
    }

    /// Picks one that holds these amounts. Those that the algorithm would pick before, and that do not, are passed over like excluded ones.
    fn pick_for(
        &mut self,
        algorithm: Algorithm,
        item: &[u8],
        out: &mut Vec<Vec<u8>>,
        costs: &Costs,
    ) -> Option<Vec<u8>> {
        if costs.is_empty() {
            return self.pick(algorithm, item, out);
        }
        if !self.limit.affords(costs, self.clock) {
            return None;
        }
        loop {
            let mut then = self.clone();
            let name = then.pick(algorithm, item, out)?;
            if self.find(&name)?.limit.affords(costs, then.clock) {
                *self = then;
                return Some(name);
            }
            self.chance = then.chance;
            out.push(name);
        }
    }

    /// A member was picked. Answers the id of its lease.
    fn take(&mut self, name: &[u8], wanted: &Wanted) -> Option<LeaseId> {
        self.heed_latencies_for(wanted.algorithm.unwrap_or(self.policy));
        self.limit.take(self.clock);
        let clock = self.clock;
        self.find(name).unwrap().limit.take(clock);
        let mut took = BTreeMap::new();
        let at = self.at(name);
        for limit in [&mut self.members[at].limit, &mut self.limit] {
            took.extend(limit.pay(&wanted.costs, clock));
        }
        let mut id = None;
        if let Some((span, owner)) = &wanted.lease {
            let (epoch, number) = (self.epoch, self.next);
            self.next += 1;
            let member = self.find(name).unwrap().serial;
            self.leases.push(Lease {
                id: LeaseId { epoch, number },
                member,
                name: name.to_vec(),
                owner: owner.clone(),
                granted: clock,
                deadline: (clock + span + 10).div_ceil(10) * 10,
                took,
            });
            id = Some(LeaseId { epoch, number });
        }
        if self.is_probe_due(at) {
            let lease = wanted.lease.as_ref().map(|_| self.next - 1);
            self.health.take_probe(at, lease);
        }
        id
    }

    /// The member that a session sticks to.
    fn pinned(&self, session: &[u8]) -> Option<usize> {
        let is_it = |s: &&Session| s.name == session && s.deadline > self.clock;
        let session = self.sessions.iter().find(is_it)?;
        self.members.iter().position(|m| m.serial == session.member)
    }

    /// The picked member, as [`Naive::picks`].
    pub fn pick_for_session(
        &mut self,
        wanted: &Wanted,
        sticky: &Sticky,
    ) -> (Vec<Vec<u8>>, Option<LeaseId>) {
        let pinned = self.pinned(&sticky.session).filter(|at| {
            let member = &self.members[*at];
            member.weight > 0 && member.state != State::Down
        });
        let Some(at) = pinned else {
            return self.pin_anew(wanted, sticky);
        };
        let member = self.members[at].clone();
        let is_fit = self.health.backends[at].is_fit();
        let is_kept_out = wanted.exclude.contains(&member.name)
            || !member.limit.allows(self.leases_on(&member))
            || !self.is_open()
            || !member.limit.affords(&wanted.costs, self.clock)
            || !self.limit.affords(&wanted.costs, self.clock);
        let can_probe = member.state == State::Up && self.is_probe_due(at);
        match (is_fit, is_kept_out) {
            (true, true) if sticky.is_strict => (vec![], None),
            (true, true) => {
                let picked = self.picks(wanted);
                if !picked.0.is_empty() {
                    self.pin(sticky, member.serial);
                }
                picked
            }
            (true, false) => {
                let picked = self.pick_this(at, wanted);
                self.pin(sticky, member.serial);
                picked
            }
            (false, false) if can_probe => self.pick_this(at, wanted),
            (false, _) => self.pin_anew(wanted, sticky),
        }
    }

    fn pick_this(&mut self, at: usize, wanted: &Wanted) -> (Vec<Vec<u8>>, Option<LeaseId>) {
        self.picks += 1;
        self.members[at].picks += 1;
        let name = self.members[at].name.clone();
        let lease = self.take(&name, wanted);
        (vec![name], lease)
    }

    fn pin_anew(&mut self, wanted: &Wanted, sticky: &Sticky) -> (Vec<Vec<u8>>, Option<LeaseId>) {
        let picked = self.picks(wanted);
        if let Some(name) = picked.0.first() {
            let at = self.at(name);
            if self.health.backends[at].is_fit() {
                self.pin(sticky, self.members[at].serial);
            }
        }
        picked
    }

    fn pin(&mut self, sticky: &Sticky, member: u64) {
        let picked = self.session_picks;
        self.session_picks += 1;
        let deadline = (self.clock + sticky.span + 10).div_ceil(10) * 10;
        let mut sessions = self.sessions.iter_mut();
        match sessions.find(|s| s.name == sticky.session) {
            Some(session) => {
                if session.member != member {
                    (session.member, session.pinned) = (member, picked);
                }
                (session.deadline, session.picked) = (deadline, picked);
            }
            None => self.sessions.push(Session {
                name: sticky.session.clone(),
                member,
                deadline,
                picked,
                pinned: picked,
            }),
        }
    }

    /// Whether it was pinned.
    pub fn forget_session(&mut self, session: &[u8]) -> bool {
        let is_pinned = self.pinned(session).is_some();
        if is_pinned {
            self.sessions.retain(|s| s.name != session);
        }
        is_pinned
    }

    /// How many sessions stick to that member, or are not cleared yet.
    pub fn sessions_on(&self, member: &Member) -> u32 {
        let sessions = self.sessions.iter();
        sessions.filter(|s| s.member == member.serial).count() as u32
    }

    fn pick(&mut self, algorithm: Algorithm, item: &[u8], out: &[Vec<u8>]) -> Option<Vec<u8>> {
        let eligible: Vec<usize> = (self.available().into_iter())
            .filter(|at| !out.contains(&self.members[*at].name))
            .collect();
        let tier = eligible.iter().map(|&i| self.members[i].tier).min()?;
        let of_tier = |i: &usize| self.members[*i].tier == tier;
        let eligible: Vec<usize> = eligible.into_iter().filter(of_tier).collect();
        let probes = self.health.probes();
        if let Some(&at) = probes.iter().find(|at| eligible.contains(at))
            && algorithm != Algorithm::HASH
        {
            self.picks += 1;
            self.members[at].picks += 1;
            return Some(self.members[at].name.clone());
        }
        let running: Vec<u64> = (0..self.members.len())
            .map(|i| self.health.running_weight(i) as u64)
            .collect();
        let weights: u64 = eligible.iter().map(|&i| running[i]).sum();
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
                    m.credit += i128::from(running[i]);
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
                        let weight = running[i];
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
            "ewma" => {
                let leases = |i: usize| u128::from(self.leases_on(&self.members[i])) + 1;
                let square = |n: u128| n * n;
                // latency × (leases + 1)² / weight², times the weight² of the other.
                let measure = |i: usize, other: usize| {
                    let latency = match self.heeds_latencies {
                        true => u128::from(self.health.level(i)),
                        false => 1,
                    };
                    latency * square(leases(i)) * square(running[other].into())
                };
                let mut best = eligible[0];
                for &i in &eligible[1..] {
                    let last = |i: usize| self.members[i].last_by_latency;
                    let (here, there) = (measure(i, best), measure(best, i));
                    if here < there || here == there && last(i) < last(best) {
                        best = i;
                    }
                }
                self.turns_by_latency += 1;
                self.members[best].last_by_latency = self.turns_by_latency;
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
            "hash" => *(eligible.iter())
                .filter(|at| self.is_balanced(**at, &eligible))
                .min_by(|&&i, &&j| {
                    let (one, other) = (&self.members[i], &self.members[j]);
                    let time = |m: &Member| exponential(XxHash3_64::oneshot(item), &m.name);
                    let product = |m: &Member, n: &Member| time(m) * u128::from(n.weight);
                    let times = product(one, other).cmp(&product(other, one));
                    times.then(one.name.cmp(&other.name))
                })
                .expect("one is eligible"),
            other => panic!("the naive pool does not know {other}"),
        };
        self.picks += 1;
        self.members[at].picks += 1;
        Some(self.members[at].name.clone())
    }

    /// Whether one lease more leaves a member at ⌈(all leases + 1) × percent / 100 × its share⌉ or below.
    pub fn is_balanced(&self, at: usize, eligible: &[usize]) -> bool {
        let weight = |at: usize| u128::from(self.members[at].weight);
        let weights: u128 = eligible.iter().map(|at| weight(*at)).sum();
        let all = self.leases.len() as u128 + 1;
        let most = (all * u128::from(self.balance) * weight(at)).div_ceil(100 * weights);
        self.balance == 0 || u128::from(self.leases_on(&self.members[at])) < most
    }

    /// (leases + 1) / weight, times the weight of both.
    fn load(&self, i: usize, other: usize) -> u64 {
        let leases = u64::from(self.leases_on(&self.members[i]));
        (leases + 1) * self.health.running_weight(other) as u64
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

/// The exponential time that a backend of that name draws for an item of that hash: von Neumann's, with all numbers written down.
pub fn exponential(item: u64, name: &[u8]) -> u128 {
    let product = u128::from(item) * u128::from(XxHash3_64::oneshot(name));
    let first = (product >> 64) as u64 ^ product as u64;
    let mut numbers = (1u64..).map(|n| {
        let mut z = first.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    let mut run = vec![first];
    for trial in 0.. {
        let end = loop {
            let number = numbers.next().expect("they go on");
            if number >= run[run.len() - 1] {
                break number;
            }
            run.push(number);
        };
        assert!(end >= run[run.len() - 1]);
        if run.len() % 2 == 1 {
            return (trial << 64) + u128::from(run[0]);
        }
        run = vec![numbers.next().expect("they go on")];
    }
    unreachable!("a run ends")
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

/// Whom a limit is for.
#[derive(Clone, Debug)]
pub enum Whose {
    Pool,
    Each,
    Member(Vec<u8>),
}

impl CostBucket {
    fn level_at(&self, clock: Millis) -> i128 {
        let brought = i128::from(clock - self.at) * i128::from(self.rate.picks);
        (self.level + brought).min(self.full())
    }

    fn full(&self) -> i128 {
        i128::from(self.rate.burst) * i128::from(self.rate.millis)
    }

    fn put(&mut self, level: i128, clock: Millis) {
        (self.level, self.at) = (level.min(self.full()), clock);
    }

    pub fn left(&self, clock: Millis) -> i64 {
        self.level_at(clock).div_euclid(self.rate.millis.into()) as i64
    }

    fn holds(&self, amount: u64, clock: Millis) -> bool {
        let level = self.level_at(clock);
        level == self.full() || level >= i128::from(amount) * i128::from(self.rate.millis)
    }
}

impl Limit {
    /// Takes over what holds for each, where it has nothing of its own.
    fn inherit(&mut self, each: &Each, clock: Millis, serial: &mut u64) {
        self.max = if self.own.0 > 0 { self.own.0 } else { each.max };
        let rate = self.own.1.or(each.rate);
        if rate != self.rate {
            self.level = match (self.rate, rate) {
                (_, None) => 0,
                (None, Some(rate)) => u128::from(rate.burst * rate.millis),
                (Some(old), Some(rate)) => {
                    let scaled = self.level_at(clock) * u128::from(rate.millis);
                    (scaled / u128::from(old.millis)).min(u128::from(rate.burst * rate.millis))
                }
            };
            (self.at, self.rate) = (clock, rate);
        }
        self.changed(clock);
        self.inherit_costs(each, clock, serial);
    }

    fn inherit_costs(&mut self, each: &Each, clock: Millis, serial: &mut u64) {
        let is_held = |name: &Vec<u8>| each.costs.contains_key(name);
        self.costs.retain(|name, b| b.is_own || is_held(name));
        for (name, rate) in &each.costs {
            if self.costs.get(name).is_none_or(|bucket| !bucket.is_own) {
                self.hold(name, *rate, false, clock, serial);
            }
        }
    }

    fn hold(&mut self, name: &[u8], rate: Rate, is_own: bool, clock: Millis, serial: &mut u64) {
        match self.costs.get_mut(name) {
            Some(bucket) => {
                bucket.is_own = is_own;
                if bucket.rate != rate {
                    let millis = i128::from(rate.millis);
                    let scaled = bucket.level_at(clock) * millis;
                    let scaled = scaled.div_euclid(bucket.rate.millis.into());
                    bucket.rate = rate;
                    bucket.put(scaled, clock);
                }
            }
            None => {
                *serial += 1;
                let level = i128::from(rate.burst) * i128::from(rate.millis);
                let bucket = CostBucket {
                    serial: *serial,
                    is_own,
                    rate,
                    level,
                    at: clock,
                };
                self.costs.insert(name.to_vec(), bucket);
            }
        }
    }

    fn affords(&self, costs: &Costs, clock: Millis) -> bool {
        let held = |(name, amount): &(Vec<u8>, u64)| {
            let bucket = self.costs.get(name);
            bucket.is_none_or(|bucket| bucket.holds(*amount, clock))
        };
        costs.iter().all(held)
    }

    /// By halving the time in which it must come.
    fn affords_from(&self, costs: &Costs, clock: Millis) -> Millis {
        let (mut too_early, mut enough) = (clock, clock + (1 << 40));
        if self.affords(costs, clock) {
            return clock;
        }
        while enough - too_early > 1 {
            let middle = (too_early + enough) / 2;
            match self.affords(costs, middle) {
                true => enough = middle,
                false => too_early = middle,
            }
        }
        enough
    }

    /// Takes the amounts; answers which bucket gave how much.
    fn pay(&mut self, costs: &Costs, clock: Millis) -> Vec<(u64, u64)> {
        let mut gave = vec![];
        for (name, amount) in costs {
            if let Some(bucket) = self.costs.get_mut(name) {
                let parts = i128::from(*amount) * i128::from(bucket.rate.millis);
                bucket.put(bucket.level_at(clock) - parts, clock);
                gave.push((bucket.serial, *amount));
            }
        }
        gave
    }

    fn level_at(&self, clock: Millis) -> u128 {
        let Some(rate) = self.rate else {
            return 0;
        };
        let brought = u128::from(clock - self.at) * u128::from(rate.picks);
        (self.level + brought).min(u128::from(rate.burst * rate.millis))
    }

    fn allows(&self, leases: u32) -> bool {
        (self.max == 0 || leases < self.max) && self.refill.is_none()
    }

    /// The bucket has changed: notes when it has a token, if it has none now. It keeps a refill that no tick has cleared.
    fn changed(&mut self, clock: Millis) {
        self.refill = self.rate.and_then(|rate| {
            let lacks = u128::from(rate.millis).saturating_sub(self.level);
            let next = self.at + lacks.div_ceil(u128::from(rate.picks)) as u64;
            (next > clock || self.refill == Some(next)).then_some(next)
        });
    }

    fn take(&mut self, clock: Millis) {
        if let Some(rate) = self.rate {
            self.level = self.level_at(clock) - u128::from(rate.millis);
            self.at = clock;
            self.changed(clock);
        }
    }

    pub fn is_set(&self) -> bool {
        self.max > 0 || self.rate.is_some() || !self.costs.is_empty()
    }
}

impl Lease {
    fn is_of(&self, of: &Of) -> bool {
        match of {
            Of::Owner(name) => self.owner.as_ref() == Some(name),
            Of::Member(serial) => self.member == *serial,
        }
    }

    fn is_under(&self, mark: &Mark) -> bool {
        self.is_of(&mark.of) && self.id.number < mark.below
    }
}
