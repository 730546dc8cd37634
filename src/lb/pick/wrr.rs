//! Smooth weighted round robin, as nginx does it (`ngx_http_upstream_get_peer`, since nginx 1.3.1, 2012).
//!
//! Each pick adds to every eligible backend's credit its weight, takes the one with the highest credit (the
//! earliest added wins a tie), and subtracts from that one the sum of the weights. Weights 5, 1, 1 give
//! `a a b a c a a`, not `a a a a a b c`.
//!
//! Done so, a pick costs O(n). Here it costs about O(log n), by two ideas:
//!
//! - A credit grows by the weight in each pick, so it is a line over the number of picks ("turns"). What is stored
//!   is where the line starts, `credit - weight × turns`, and only the backend that is picked needs a change.
//! - Who leads among some lines stays the leader until another line crosses its own, at a turn that can be
//!   computed. So the backends play a tournament: eight compete, their leader meets that of eight others, the winners
//!   meet, and so on. Each node knows its leader and the turn at which it must be played again. This is a kinetic
//!   tournament (Basch, Guibas and Hershberger, "Data structures for mobile data", 1997) over eights.
//!
//! Eights below, so that there are only two nodes for eight backends, and duels above, so that the way from the backend
//! that was picked last up to the final looks at one other node a level. What a pick takes with 100,000 backends of
//! weights 1 to 100, in instructions: 1,350. Rejected: four or eight in place of two (1,450 and 1,690); marking that
//! way and playing it from the final down, eights all over (2,420); a branch on who wins (1,260, but it cannot be
//! predicted: twice the time).
//!
//! Rejected: one heap for each different weight (all credits inside a class grow alike). It is O(number of different
//! weights) a pick, so it needs such a tournament over the classes anyway, and one over all backends is simpler.
//!
//! Backends that are not eligible take no part: their credit stands still, as a plain number.

use super::{Foresight, Pick};
use crate::lb::Slot;
use crate::lb::backend::{Backend, Part};
use crate::lb::order::{FAN, Order};
use crate::lb::pool::Pool;
use crate::lb::{Mover, allocated};

/// Credits stay within it. No sequence of picks gets near it; a pool from a crafted payload can start there. Where a pick
/// would pass it, all that run in the tier move together: see `pick_anew`.
pub const CREDIT_MAX: i64 = 1 << 60;
/// After this many turns the lines start anew from their present credits, so that a turn fits into 32 bits.
const TURNS_MAX: i64 = NEVER as i64 - 2;

pub(super) struct WeightedRoundRobin;

impl Pick for WeightedRoundRobin {
    const NAME: &'static str = "wrr";
    const CODE: u8 = 2;
    const FORESIGHT: Foresight = Foresight::TakeBack {
        pick: |pool| {
            let lane = &mut pool.lane;
            let picked = (lane.race).pick(&mut pool.backends, lane.tier, &lane.order);
            picked.map(|slot| (slot, 0))
        },
        take_back: |pool, slot, _| {
            let lane = &mut pool.lane;
            lane.race.take_back(&mut pool.backends, slot, &lane.order);
        },
    };

    fn pick(pool: &mut Pool) -> Slot {
        let lane = &mut pool.lane;
        let picked = (lane.race).pick(&mut pool.backends, lane.tier, &lane.order);
        picked.unwrap_or_else(|| pick_anew(pool))
    }
}

#[cold]
#[inline(never)]
fn pick_anew(pool: &mut Pool) -> Slot {
    let lane = &mut pool.lane;
    (lane.race).pick_anew(&mut pool.backends, lane.tier, &lane.order)
}

fn total(order: &Order) -> i64 {
    order.total().weight as i64
}

/// The tournament of the eligible backends of a tier.
#[derive(Clone, Debug, Default)]
pub struct Race {
    /// How many picks were made since the lines started.
    turns: i64,
    /// The latest turn for which nodes were played: ahead of the present one after taking back.
    played: u32,
    /// The slot whose line changed last. The nodes above it are played with the next pick, whatever they say now.
    changed: u32,
    /// Nodes 2i and 2i + 1 meet in duel i, whose outcome is node i; duel 1 is the final. The nodes that are no duel's
    /// outcome are over the eights of backends in order, the last ones over none yet. Up to eight backends have no
    /// duels: they are simply compared.
    duels: Vec<[Node; 2]>,
}

/// The outcome among some lines, which is the line of their leader.
#[derive(Clone, Copy, Debug)]
struct Node {
    start: i64,
    weight: u32,
    slot: u32,
    /// The turn for which it was played; it says nothing of earlier ones, to which only taking back returns.
    /// No node's is earlier than that of one below it.
    played: u32,
    /// From this turn on it must be played again. No node's is later than that of one below it.
    expires: u32,
}

/// It must be played again, whatever the turn.
const AT_ONCE: u32 = 0;
/// Behind the last turn that there is.
const NEVER: u32 = u32::MAX;

/// Over backends of which none is eligible: it loses to any that is.
const EMPTY: Node = Node {
    start: -4 * CREDIT_MAX,
    weight: 0,
    slot: u32::MAX,
    played: 0,
    expires: NEVER,
};

/// A node may only be that if those above it are too.
const UNPLAYED: Node = Node {
    expires: AT_ONCE,
    ..EMPTY
};

impl Race {
    /// The race of those of these slots that are of a tier. The credits are plain numbers, also of the eligible ones.
    pub fn of(backends: &[Backend]) -> Race {
        let mut race = Race::default();
        race.make_room(backends.len().div_ceil(FAN));
        race
    }

    /// Makes room for the slot that was added last, which is not eligible yet.
    pub fn added(&mut self, slots: usize) {
        let eights = slots.div_ceil(FAN);
        if eights > self.duels.len() {
            self.make_room(eights + eights / 8);
        }
    }

    fn make_room(&mut self, eights: usize) {
        if eights > 1 {
            self.duels = vec![[UNPLAYED; 2]; eights];
        }
    }

    /// The backend's credit as a plain number.
    pub fn credit(&self, backend: &Backend) -> i64 {
        backend.at(self.turns)
    }

    /// The backend takes part with another weight from now on, 0 = not at all, and with this credit.
    pub fn enter(&mut self, backends: &mut [Backend], slot: Slot, live: u16, credit: i64) {
        let backend = &mut backends[slot];
        backend.part = Part::of(live, backend.tier());
        backend.credit = credit - i64::from(live) * self.turns;
        self.change(slot);
    }

    /// Lets the mover at all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.duels);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        allocated(self.duels.capacity() * size_of::<[Node; 2]>())
    }

    /// The pick, unless a sum would go beyond its bounds.
    #[inline(always)]
    fn pick(&mut self, backends: &mut [Backend], tier: u8, order: &Order) -> Option<Slot> {
        match self.duels.is_empty() {
            true => self.advance(leading(backends, tier, self.turns + 1), backends, order),
            false => self.pick_of_many(backends, tier, order),
        }
    }

    /// Apart from the rest, which so needs no registers to be saved.
    #[inline(never)]
    fn pick_of_many(&mut self, backends: &mut [Backend], tier: u8, order: &Order) -> Option<Slot> {
        let winner = self.winner(backends, tier, self.turns + 1);
        self.advance(winner, backends, order)
    }

    /// That one leads at the next turn, with so much credit, which it pays.
    #[inline(always)]
    fn advance(
        &mut self,
        (slot, credit): (Slot, i64),
        backends: &mut [Backend],
        order: &Order,
    ) -> Option<Slot> {
        let total = total(order);
        if credit > CREDIT_MAX || credit - total < -CREDIT_MAX || self.turns >= TURNS_MAX {
            return None;
        }
        backends[slot].credit -= total;
        self.turns += 1;
        // Whatever had changed before was played just now.
        self.changed = slot as u32;
        Some(slot)
    }

    fn take_back(&mut self, backends: &mut [Backend], slot: Slot, order: &Order) {
        backends[slot].credit += total(order);
        self.turns -= 1;
        self.change(slot);
    }

    /// The same pick, for which the lines start anew. Where a sum would pass its bounds, all credits first move by one
    /// amount, so that the leader stands at 0 when it is picked: their order stays, save among those that would fall below
    /// the lower bound, where they stop. O(n), but it comes once in 2^20 picks at most as long as nobody joins: of all that
    /// run then none is above 0, and a pick lowers the leader by 2^40 at most. Rejected: that each sum saturates. Where all
    /// stand at a bound the next pick would pass it again, and each pick is O(n).
    fn pick_anew(&mut self, backends: &mut [Backend], tier: u8, order: &Order) -> Slot {
        let turn = self.turns + 1;
        let (slot, highest) = leading(backends, tier, turn);
        let is_within = highest <= CREDIT_MAX && highest - total(order) >= -CREDIT_MAX;
        let shift = if is_within { 0 } else { highest };
        for b in backends.iter_mut().filter(|b| b.live_in(tier) > 0) {
            b.credit = (b.at(turn) - shift).max(-CREDIT_MAX);
        }
        backends[slot].credit -= total(order);
        self.turns = 0;
        self.duels.fill([UNPLAYED; 2]);
        slot
    }

    /// That slot's line has changed. The nodes above the one that changed before it are marked in its stead.
    fn change(&mut self, slot: Slot) {
        let mut at = self.over(self.changed as Slot);
        while at > 1 && self.node(at).expires != AT_ONCE {
            self.node(at).expires = AT_ONCE;
            at /= 2;
        }
        self.changed = slot as u32;
    }

    /// Who leads the tournament at that turn, and with how much credit. All that does not hold is played on the way
    /// from the slot that changed last up to the final.
    #[inline(always)]
    fn winner(&mut self, backends: &[Backend], tier: u8, turn: i64) -> (Slot, i64) {
        if i64::from(self.played) > turn {
            self.forget(1, turn);
        }
        self.played = turn as u32;
        let mut at = self.over(self.changed as Slot);
        let mut node = Node::of_eight(at - self.duels.len(), backends, tier, turn);
        while at > 1 {
            let duel = &mut self.duels[at / 2];
            duel[at % 2] = node;
            if !duel[1 - at % 2].holds(turn) {
                self.play(at ^ 1, backends, tier, turn);
            }
            at /= 2;
            node = Node::of_duel(&self.duels[at], turn);
        }
        (node.slot as Slot, node.at(turn))
    }

    /// Plays a node for that turn, after those below it that do not hold.
    fn play(&mut self, at: usize, backends: &[Backend], tier: u8, turn: i64) {
        *self.node(at) = match at.checked_sub(self.duels.len()) {
            Some(eight) => Node::of_eight(eight, backends, tier, turn),
            None => {
                for below in [2 * at, 2 * at + 1] {
                    if !self.node(below).holds(turn) {
                        self.play(below, backends, tier, turn);
                    }
                }
                Node::of_duel(&self.duels[at], turn)
            }
        };
    }

    /// Forgets what was played for later turns than that one below duel `at`.
    fn forget(&mut self, at: usize, turn: i64) {
        for below in [2 * at, 2 * at + 1] {
            if i64::from(self.node(below).played) > turn {
                *self.node(below) = UNPLAYED;
                if below < self.duels.len() {
                    self.forget(below, turn);
                }
            }
        }
    }

    /// The node over that slot's eight, or 0 where there are no nodes.
    fn over(&self, slot: Slot) -> usize {
        self.duels.len() + slot / FAN
    }

    fn node(&mut self, at: usize) -> &mut Node {
        &mut self.duels[at / 2][at % 2]
    }

    /// Panics where a node is out of order with those below it, or one that holds names another leader than its
    /// backends have. For the tests.
    pub fn check(&self, backends: &[Backend], tier: u8) {
        let eights = self.duels.len();
        assert!(backends.len() <= FAN * eights.max(1));
        let changed = self.over(self.changed as Slot);
        let is_above_changed = |at: usize| (0..usize::BITS).any(|levels| changed >> levels == at);
        let mut slots: Vec<Vec<Slot>> = vec![Vec::new(); 2 * eights];
        for at in (2..2 * eights).rev() {
            slots[at] = match at.checked_sub(eights) {
                Some(eight) => (0..backends.len()).skip(eight * FAN).take(FAN).collect(),
                None => [&slots[2 * at][..], &slots[2 * at + 1]].concat(),
            };
            slots[at].sort();
            if is_above_changed(at) {
                continue;
            }
            let node = self.duels[at / 2][at % 2];
            assert!(node.played <= self.played);
            for below in self.duels.get(at).into_iter().flatten() {
                assert!(node.expires <= below.expires);
                assert!(node.expires == AT_ONCE || node.played >= below.played);
            }
            let group: Vec<Backend> = slots[at].iter().map(|s| backends[*s].clone()).collect();
            for turn in [self.turns, self.turns + 1] {
                if i64::from(node.played) > turn || !node.holds(turn) {
                    continue;
                }
                let (leader, credit) = leading(&group, tier, turn);
                match group.iter().any(|b| b.live_in(tier) > 0) {
                    true => assert_eq!(
                        (node.slot as Slot, node.at(turn)),
                        (slots[at][leader], credit)
                    ),
                    false => assert_eq!(node.weight, 0),
                }
            }
        }
    }
}

impl Node {
    /// The outcome among eight backends.
    #[inline(always)]
    fn of_eight(eight: usize, backends: &[Backend], tier: u8, turn: i64) -> Node {
        let played = turn as u32;
        let group = backends.chunks(FAN).nth(eight).unwrap_or_default();
        let (leader, highest) = leading(group, tier, turn);
        if highest == i64::MIN {
            return Node { played, ..EMPTY };
        }
        Node {
            start: group[leader].credit,
            weight: u32::from(group[leader].live()),
            slot: (eight * FAN + leader) as u32,
            played,
            expires: overtaken(group, tier, leader),
        }
    }

    /// The outcome of a duel of nodes that hold.
    #[inline(always)]
    fn of_duel(duel: &[Node; 2], turn: i64) -> Node {
        let [a, b] = duel;
        // At equal credit the one that was added first leads. An index in place of a branch: see the head.
        let leader = usize::from(b.at(turn) > a.at(turn) - i64::from(b.slot < a.slot));
        let (leader, second) = (&duel[leader], &duel[1 - leader]);
        let mut expires = a.expires.min(b.expires);
        // Where there is nothing to gain, the lead is never lost: the test below says so without a branch of its own.
        let gain = i64::from(second.weight) - i64::from(leader.weight);
        let lead = leader.start - second.start - i64::from(second.slot < leader.slot);
        if gain * i64::from(expires - 1) > lead {
            expires = (lead / gain) as u32 + 1;
        }
        Node {
            played: turn as u32,
            expires,
            ..*leader
        }
    }

    fn holds(&self, turn: i64) -> bool {
        turn < i64::from(self.expires)
    }

    /// The leader's credit at that turn.
    fn at(&self, turn: i64) -> i64 {
        self.start + i64::from(self.weight) * turn
    }
}

impl Backend {
    /// The credit of an eligible one at that turn; of another, what it is at any.
    fn at(&self, turn: i64) -> i64 {
        self.credit + i64::from(self.live()) * turn
    }
}

/// Which of these backends, as far as they are of that tier, is the highest at that turn, and what its credit is then.
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "with an iterator the loop takes a fifth more instructions"
)]
fn leading(backends: &[Backend], tier: u8, turn: i64) -> (usize, i64) {
    let (mut leader, mut highest) = (0, i64::MIN);
    for at in 0..backends.len() {
        if let Some(weight) = backends[at].part.weight_in(tier) {
            let credit = backends[at].credit + i64::from(weight) * turn;
            if credit > highest {
                (leader, highest) = (at, credit);
            }
        }
    }
    (leader, highest)
}

/// The first turn at which another of these backends leads than the one that leads now.
#[inline(always)]
fn overtaken(backends: &[Backend], tier: u8, leader: usize) -> u32 {
    let mut end = i64::from(NEVER);
    let (start, weight) = (backends[leader].credit, i64::from(backends[leader].live()));
    for (at, b) in backends.iter().enumerate() {
        let gain = (b.part.weight_in(tier)).map_or(0, |own| i64::from(own) - weight);
        if gain <= 0 {
            continue;
        }
        // At equal credit the one that was added first leads.
        let lead = start - b.credit - i64::from(at < leader);
        if gain * (end - 1) > lead {
            end = lead / gain + 1;
        }
    }
    end as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::{Limits, Request, State, codec};

    /// The credit that a payload gives to the backend of that number.
    type Side = fn(usize) -> i64;

    const SIDES: [(&str, Side); 5] = [
        ("high", |_| CREDIT_MAX),
        ("low", |_| -CREDIT_MAX),
        ("either", |i| CREDIT_MAX * if i % 2 == 0 { 1 } else { -1 }),
        ("one high", |i| CREDIT_MAX * if i == 0 { 1 } else { -1 }),
        ("stairs", |i| CREDIT_MAX - (i as i64) * (CREDIT_MAX / 100)),
    ];

    const TIERS: usize = 2;

    fn at_the_bounds(side: fn(usize) -> i64) -> Pool {
        let mut pool = Pool::new();
        for i in 0..200usize {
            let name = i.to_be_bytes();
            pool.add(&name, Some(65_535 - i as u16));
            let tier = Some((i % 4 / 2 % TIERS) as u8);
            let limits = Limits {
                tier,
                ..Limits::default()
            };
            pool.set_limits(Some(&name), &limits);
            pool.set_credit(&name, side(i));
        }
        pool
    }

    /// Counts how often the lines of the serving tier started anew, which is what costs O(n).
    fn starts_during(pool: &mut Pool, mut pick: impl FnMut(&mut Pool), picks: usize) -> usize {
        let mut starts = 0;
        for _ in 0..picks {
            let (tier, turns) = (pool.lane.tier, pool.lane.race.turns);
            pick(pool);
            starts += usize::from(pool.lane.tier == tier && pool.lane.race.turns <= turns);
            starts += usize::from(pool.lane.tier != tier && pool.lane.race.turns == 0);
        }
        starts
    }

    #[test]
    fn few_picks_of_a_pool_at_the_bounds_look_at_all_backends() {
        for (side, credit) in SIDES {
            let mut pool = at_the_bounds(credit);
            let starts = starts_during(&mut pool, |pool| _ = pool.pick(None), 10_000);
            assert!(starts <= 1, "{side}: {starts} in 10,000 picks");

            // Each one that was picked stands aside, as in DISTINCT and at a limit, till all of each tier have.
            let mut pool = at_the_bounds(credit);
            let aside = |pool: &mut Pool| {
                let name = pool.pick(None).unwrap().name().to_vec();
                pool.set_state(&name, State::Drain);
            };
            let starts = starts_during(&mut pool, aside, 200);
            assert!(starts <= 2 * TIERS, "{side}: {starts} in 200 picks");
            pool.check();

            // And they come back, by whom those who ran on may be far behind.
            for i in 0..200usize {
                pool.set_state(&i.to_be_bytes(), State::Up);
            }
            let starts = starts_during(&mut pool, |pool| _ = pool.pick(None), 10_000);
            assert!(starts <= 2, "{side}: {starts} in 10,000 picks");
            pool.check();
        }
    }

    #[test]
    fn a_look_ahead_at_the_bounds_leaves_no_trace_and_is_right() {
        for (_, credit) in SIDES {
            for distinct in [false, true] {
                let mut pool = at_the_bounds(credit);
                let request = Request {
                    algorithm: None,
                    count: 500,
                    distinct,
                    exclude: vec![],
                    terms: None,
                };
                let bytes = codec::encode(&pool);
                let foreseen = pool.peek(&request);
                assert_eq!(codec::encode(&pool), bytes);
                assert_eq!(foreseen, Some(pool.picks(&request).slots));
            }
        }
    }

    /// No test can make so many picks, so the lines of one pool are laid as if it had.
    #[test]
    fn that_the_lines_start_anew_is_not_seen() {
        for size in [3, 20, 200u32] {
            let mut early = Pool::new();
            for i in 0..size {
                early.add(
                    format!("{i}").as_bytes(),
                    Some((1 + i * 7919 % 1000) as u16),
                );
            }
            let mut late = early.clone();
            late.lane.race.turns = TURNS_MAX - 50;
            for b in &mut late.backends {
                b.credit -= i64::from(b.live()) * late.lane.race.turns;
            }
            let request = Request {
                algorithm: None,
                count: 5,
                distinct: false,
                exclude: vec![],
                terms: None,
            };
            for _ in 0..100 {
                assert_eq!(late.peek(&request), early.peek(&request));
                assert_eq!(
                    late.pick(None).unwrap().name(),
                    early.pick(None).unwrap().name()
                );
                late.check();
            }
            assert!(late.lane.race.turns < 100);
        }
    }
}
