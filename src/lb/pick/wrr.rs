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
//!   computed. So the backends play a tournament: eight compete, their leader competes with seven other leaders,
//!   and so on. Each node knows its leader and the turn at which it must be played again. This is a kinetic
//!   tournament (Basch, Guibas and Hershberger, "Data structures for mobile data", 1997), with eight in place of two.
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

/// Credits saturate here. No sequence of picks gets near it; a pool from a crafted payload can start there.
pub const CREDIT_MAX: i64 = 1 << 60;
/// After this many turns the lines start anew from their present credits, long before `weight × turns` is large.
const TURNS_MAX: i64 = 1 << 40;

pub(super) struct WeightedRoundRobin;

impl Pick for WeightedRoundRobin {
    const NAME: &'static str = "wrr";
    const CODE: u8 = 2;
    const FORESIGHT: Foresight = Foresight::TakeBack {
        pick: |pool| {
            let lane = &mut pool.lane;
            let picked = lane
                .race
                .pick(&mut pool.backends, lane.tier, total(&lane.order));
            picked.map(|slot| (slot, 0))
        },
        take_back: |pool, slot, _| {
            let lane = &mut pool.lane;
            let total = total(&lane.order);
            lane.race.take_back(&mut pool.backends, slot, total);
        },
    };

    fn pick(pool: &mut Pool) -> Slot {
        let (lane, backends) = (&mut pool.lane, &mut pool.backends);
        let (race, tier, total) = (&mut lane.race, lane.tier, total(&lane.order));
        race.pick(backends, tier, total)
            .unwrap_or_else(|| race.pick_at_the_bounds(backends, tier, total))
    }
}

fn total(order: &Order) -> i64 {
    order.total().weight as i64
}

/// The tournament of the eligible backends of a tier.
#[derive(Clone, Debug, Default)]
pub struct Race {
    /// How many picks were made since the lines started.
    turns: i64,
    /// The nodes over eights of backends, over eights of those nodes, and so on until at most eight are left. Up
    /// to eight backends have none: they are simply compared.
    levels: Vec<Vec<Node>>,
}

/// The outcome among up to eight lines, which is the line of their leader.
#[derive(Clone, Copy, Debug)]
struct Node {
    start: i64,
    weight: u32,
    slot: u32,
    /// The turn for which it was played; it says nothing of earlier ones, to which only taking back returns.
    /// No node's is earlier than that of one below it.
    played: i64,
    /// From this turn on it must be played again. No node's is later than that of one below it.
    expires: i64,
}

/// It must be played again, whatever the turn.
const AT_ONCE: i64 = 0;
/// Behind the last turn that there is.
const NEVER: i64 = TURNS_MAX + 2;

/// Over backends of which none is eligible.
const EMPTY: Node = Node {
    start: 0,
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

/// A credit over the turns: `start + weight × turns`. With weight 0 nobody is there, or one of another tier.
trait Line {
    fn start(&self) -> i64;
    /// The weight, if it takes part in the running of that tier.
    fn weight(&self, tier: u8) -> Option<i64>;
}

impl Line for Backend {
    fn start(&self) -> i64 {
        self.credit
    }

    #[inline(always)]
    fn weight(&self, tier: u8) -> Option<i64> {
        self.part.weight_in(tier).map(i64::from)
    }
}

impl Line for Node {
    fn start(&self) -> i64 {
        self.start
    }

    #[inline(always)]
    fn weight(&self, _: u8) -> Option<i64> {
        Some(i64::from(self.weight)).filter(|weight| *weight > 0)
    }
}

impl Race {
    /// The race of those of these slots that are of a tier. The credits are plain numbers, also of the eligible ones.
    pub fn of(backends: &[Backend]) -> Race {
        let mut race = Race::default();
        let mut entries = backends.len();
        while entries > FAN {
            entries = entries.div_ceil(FAN);
            race.levels.push(vec![UNPLAYED; entries]);
        }
        race
    }

    /// Makes room for the slot that was added last, which is not eligible yet.
    pub fn added(&mut self, slots: usize) {
        let mut entries = slots;
        for level in &mut self.levels {
            entries = entries.div_ceil(FAN);
            if level.len() < entries {
                level.push(EMPTY);
            }
        }
        if entries > FAN {
            self.levels.push(vec![UNPLAYED, EMPTY]);
        }
    }

    /// The backend's credit as a plain number.
    pub fn credit(&self, backend: &Backend) -> i64 {
        backend.credit + i64::from(backend.live()) * self.turns
    }

    /// The backend takes part with another weight from now on, 0 = not at all, and with this credit.
    pub fn enter(&mut self, backends: &mut [Backend], slot: Slot, live: u16, credit: i64) {
        let backend = &mut backends[slot];
        backend.part = Part::of(live, backend.tier());
        backend.credit = credit - i64::from(live) * self.turns;
        self.expire(slot);
    }

    /// Lets the mover at all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.levels);
        for level in &mut self.levels {
            by.vec(level);
        }
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let levels = (self.levels.iter()).map(|level| level.capacity() * size_of::<Node>());
        let own = self.levels.capacity() * size_of::<Vec<Node>>();
        levels.chain([own]).map(allocated).sum()
    }

    /// The pick, unless a sum would go beyond its bounds.
    #[inline(always)]
    fn pick(&mut self, backends: &mut [Backend], tier: u8, total: i64) -> Option<Slot> {
        let turn = self.turns + 1;
        let (slot, credit) = match self.levels.is_empty() {
            true => leading(backends, turn, tier),
            false => self.winner(backends, tier, turn),
        };
        if credit > CREDIT_MAX || credit - total < -CREDIT_MAX || turn > TURNS_MAX {
            return None;
        }
        backends[slot].credit -= total;
        self.turns = turn;
        self.expire(slot);
        Some(slot)
    }

    fn take_back(&mut self, backends: &mut [Backend], slot: Slot, total: i64) {
        backends[slot].credit += total;
        self.turns -= 1;
        self.expire(slot);
    }

    /// The same pick with every sum saturating; the lines start anew. O(n).
    #[cold]
    fn pick_at_the_bounds(&mut self, backends: &mut [Backend], tier: u8, total: i64) -> Slot {
        let turn = self.turns + 1;
        for b in backends.iter_mut().filter(|b| b.live_in(tier) > 0) {
            b.credit = (b.credit + i64::from(b.live()) * turn).min(CREDIT_MAX);
        }
        let (slot, credit) = leading(backends, 0, tier);
        backends[slot].credit = (credit - total).max(-CREDIT_MAX);
        self.turns = 0;
        for node in self.levels.iter_mut().flatten() {
            *node = UNPLAYED;
        }
        slot
    }

    /// Something about that slot's line has changed.
    fn expire(&mut self, slot: Slot) {
        let mut at = slot;
        for level in &mut self.levels {
            at /= FAN;
            if level[at].expires == AT_ONCE {
                return;
            }
            level[at].expires = AT_ONCE;
        }
    }

    /// Who leads the tournament at that turn, and with how much credit.
    #[inline(never)]
    fn winner(&mut self, backends: &[Backend], tier: u8, turn: i64) -> (Slot, i64) {
        let finalists = play(&mut self.levels, 0, backends, turn, tier);
        let (at, credit) = leading(finalists, turn, tier);
        (finalists[at].slot as Slot, credit)
    }

    /// Panics where a node is out of order with those below it, or one that holds names another leader than its
    /// backends have. For the tests.
    pub fn check(&self, backends: &[Backend], tier: u8) {
        for (below, above) in self.levels.iter().zip(self.levels.iter().skip(1)) {
            for (at, node) in below.iter().enumerate() {
                let above = above[at / FAN];
                assert!(above.expires <= node.expires);
                assert!(above.expires == AT_ONCE || above.played >= node.played);
            }
        }
        for turn in [self.turns, self.turns + 1] {
            for (level, nodes) in self.levels.iter().enumerate() {
                let width = FAN.pow(level as u32 + 1);
                for (node, group) in nodes.iter().zip(backends.chunks(width)) {
                    if node.holds(turn) && group.iter().any(|b| b.live_in(tier) > 0) {
                        let (at, credit) = leading(group, turn, tier);
                        let own = node.start + i64::from(node.weight) * turn;
                        assert_eq!(own, credit, "level {level}, turn {turn}");
                        assert!(std::ptr::eq(&backends[node.slot as Slot], &group[at]));
                    } else if node.holds(turn) {
                        assert_eq!(node.weight, 0);
                    }
                }
            }
        }
    }
}

impl Node {
    fn holds(&self, turn: i64) -> bool {
        self.played <= turn && turn < self.expires
    }
}

/// The nodes of the topmost of these levels that compete in group `group`, all of them played for that turn.
fn play<'a>(
    levels: &'a mut [Vec<Node>],
    group: usize,
    backends: &[Backend],
    turn: i64,
    tier: u8,
) -> &'a [Node] {
    let Some((top, below)) = levels.split_last_mut() else {
        return &[];
    };
    let from = group * FAN;
    let to = top.len().min(from + FAN);
    for (at, node) in (from..to).zip(&mut top[from..to]) {
        if node.holds(turn) {
            continue;
        }
        *node = if below.is_empty() {
            let first = at * FAN;
            let group = &backends[first..backends.len().min(first + FAN)];
            let (leader, _) = leading(group, turn, tier);
            Node {
                start: group[leader].credit,
                weight: u32::from(group[leader].live_in(tier)),
                slot: (first + leader) as u32,
                played: turn,
                expires: overtaken(group, leader, NEVER, tier),
            }
        } else {
            let group = play(below, at, backends, turn, tier);
            let (leader, _) = leading(group, turn, tier);
            let expires = group.iter().fold(NEVER, |first, n| first.min(n.expires));
            Node {
                played: turn,
                expires: overtaken(group, leader, expires, tier),
                ..group[leader]
            }
        };
    }
    &top[from..to]
}

/// Which of these lines, in order of addition, is the highest at that turn, and what its credit is then.
#[inline(always)]
fn leading<L: Line>(lines: &[L], turn: i64, tier: u8) -> (usize, i64) {
    let (mut leader, mut highest) = (0, i64::MIN);
    for (at, line) in lines.iter().enumerate() {
        let Some(weight) = line.weight(tier) else {
            continue;
        };
        let credit = line.start() + weight * turn;
        if credit > highest {
            (leader, highest) = (at, credit);
        }
    }
    (leader, highest)
}

/// The first turn at which another of these lines leads than the one that leads now; `end` where that is none before.
#[inline(always)]
fn overtaken<L: Line>(lines: &[L], leader: usize, end: i64, tier: u8) -> i64 {
    let mut end = end;
    let (start, weight) = (
        lines[leader].start(),
        lines[leader].weight(tier).unwrap_or(0),
    );
    for (at, line) in lines.iter().enumerate() {
        let gain = line.weight(tier).map_or(0, |own| own - weight);
        if gain <= 0 {
            continue;
        }
        // At equal credit the one that was added first leads.
        let lead = start - line.start() - i64::from(at < leader);
        if gain * (end - 1) > lead {
            end = lead / gain + 1;
        }
    }
    end
}
