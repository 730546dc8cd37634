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

use std::ops::Range;

use super::{Foresight, Pick};
use crate::lb::Slot;
use crate::lb::allocated;
use crate::lb::backend::Backend;
use crate::lb::order::{FAN, Order};
use crate::lb::pool::Pool;

/// Credits saturate here. No sequence of picks gets near it; a pool from a crafted payload can start there.
pub const CREDIT_MAX: i64 = 1 << 60;
/// After this many turns the lines start anew from their present credits, long before `weight × turns` is large.
const TURNS_MAX: i64 = 1 << 40;

pub(super) struct WeightedRoundRobin;

impl Pick for WeightedRoundRobin {
    const NAME: &'static str = "wrr";
    const CODE: u8 = 2;
    const FORESIGHT: Foresight = Foresight::TakeBack {
        pick: |pool| pool.race.pick(&mut pool.backends, total(&pool.order)),
        take_back: |pool, slot| {
            pool.race
                .take_back(&mut pool.backends, slot, total(&pool.order))
        },
    };

    fn pick(pool: &mut Pool) -> Slot {
        let total = total(&pool.order);
        let (race, backends) = (&mut pool.race, &mut pool.backends);
        race.pick(backends, total)
            .unwrap_or_else(|| race.pick_at_the_bounds(backends, total))
    }
}

fn total(order: &Order) -> i64 {
    order.total().weight as i64
}

/// The tournament of the eligible backends.
#[derive(Clone, Debug, Default)]
pub struct Race {
    /// How many picks were made since the lines started.
    turns: i64,
    /// The nodes over eights of backends, over eights of those nodes, and so on until at most eight are left. Up
    /// to eight backends have none: they are simply compared.
    levels: Vec<Vec<Node>>,
}

/// A backend's credit over the turns: `start + weight × turns`. With weight 0 nobody is there.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    start: i64,
    weight: u32,
    slot: u32,
}

/// The outcome among up to eight lines.
#[derive(Clone, Copy, Debug)]
struct Node {
    leader: Line,
    /// The turn for which it was played; it says nothing of earlier ones, to which only taking back returns.
    /// No node's is earlier than that of one below it.
    played: i64,
    /// From this turn on it must be played again. No node's is later than that of one below it.
    expires: i64,
}

/// It must be played again, whatever the turn.
const AT_ONCE: i64 = 0;

const UNPLAYED: Node = Node {
    leader: NOBODY,
    played: 0,
    expires: AT_ONCE,
};

/// Over backends of which none is eligible. Not unplayed: a node may only be that if those above it are too.
const EMPTY: Node = Node {
    leader: NOBODY,
    played: 0,
    expires: i64::MAX,
};

const NOBODY: Line = Line {
    start: 0,
    weight: 0,
    slot: u32::MAX,
};

impl Race {
    /// The race of these slots, whose credits are plain numbers, also of the eligible ones.
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
        backend.credit + i64::from(backend.live) * self.turns
    }

    /// The backend takes part with another weight from now on, 0 = not at all, and with this credit.
    pub fn enter(&mut self, backends: &mut [Backend], slot: Slot, live: u16, credit: i64) {
        let backend = &mut backends[slot];
        backend.live = live;
        backend.credit = credit - i64::from(live) * self.turns;
        self.replay(slot);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let levels = self
            .levels
            .iter()
            .map(|level| level.capacity() * size_of::<Node>());
        let own = self.levels.capacity() * size_of::<Vec<Node>>();
        levels.chain([own]).map(allocated).sum()
    }

    /// The pick, unless a sum would go beyond its bounds.
    #[inline(always)]
    fn pick(&mut self, backends: &mut [Backend], total: i64) -> Option<Slot> {
        let turn = self.turns + 1;
        let (slot, credit) = self.leader(backends, turn);
        if credit > CREDIT_MAX || credit - total < -CREDIT_MAX || turn > TURNS_MAX {
            return None;
        }
        backends[slot].credit -= total;
        self.turns = turn;
        self.replay(slot);
        Some(slot)
    }

    fn take_back(&mut self, backends: &mut [Backend], slot: Slot, total: i64) {
        backends[slot].credit += total;
        self.turns -= 1;
        self.replay(slot);
    }

    /// The same pick with every sum saturating; the lines start anew. O(n).
    #[cold]
    fn pick_at_the_bounds(&mut self, backends: &mut [Backend], total: i64) -> Slot {
        let turn = self.turns + 1;
        for b in backends.iter_mut().filter(|b| b.live > 0) {
            b.credit = (b.credit + i64::from(b.live) * turn).min(CREDIT_MAX);
        }
        let (slot, credit) = leading(starts(backends), 0);
        backends[slot].credit = (credit - total).max(-CREDIT_MAX);
        self.turns = 0;
        self.unplay();
        slot
    }

    fn unplay(&mut self) {
        for node in self.levels.iter_mut().flatten() {
            *node = UNPLAYED;
        }
    }

    /// Something about that slot's line has changed.
    fn replay(&mut self, slot: Slot) {
        let mut at = slot;
        for level in &mut self.levels {
            at /= FAN;
            if level[at].expires == AT_ONCE {
                return;
            }
            level[at].expires = AT_ONCE;
        }
    }

    /// Who has the highest credit at that turn, and how much. There is an eligible backend.
    #[inline(always)]
    fn leader(&mut self, backends: &[Backend], turn: i64) -> (Slot, i64) {
        match self.levels.len().checked_sub(1) {
            None => leading(starts(backends), turn),
            Some(top) => self.winner(backends, top, turn),
        }
    }

    /// Who of the top level's nodes leads.
    #[inline(never)]
    fn winner(&mut self, backends: &[Backend], top: usize, turn: i64) -> (Slot, i64) {
        self.replay_expired(backends, top, 0..self.levels[top].len(), turn);
        let nodes = &self.levels[top];
        let (at, credit) = leading(
            nodes
                .iter()
                .map(|node| (node.leader.start, node.leader.weight)),
            turn,
        );
        (nodes[at].leader.slot as Slot, credit)
    }

    /// Plays again those of these nodes whose outcome has expired.
    fn replay_expired(
        &mut self,
        backends: &[Backend],
        level: usize,
        nodes: Range<usize>,
        turn: i64,
    ) {
        for at in nodes {
            if !self.levels[level][at].holds(turn) {
                self.levels[level][at] = self.play(backends, level, at, turn);
            }
        }
    }

    /// The outcome, at that turn, among the eight that node `at` of `level` stands for.
    fn play(&mut self, backends: &[Backend], level: usize, at: usize, turn: i64) -> Node {
        let from = at * FAN;
        let Some(below) = level.checked_sub(1) else {
            let to = backends.len().min(from + FAN);
            return Node::of(lines(&backends[from..to], from), turn);
        };
        let to = self.levels[below].len().min(from + FAN);
        self.replay_expired(backends, below, from..to, turn);
        let nodes = &self.levels[below][from..to];
        let mut node = Node::of(nodes.iter().map(|node| node.leader), turn);
        for below in nodes {
            node.expires = node.expires.min(below.expires);
        }
        node
    }

    /// Panics where a node is out of order with those below it, or one that holds names another leader than its entries do. For the tests.
    pub fn check(&self, backends: &[Backend]) {
        for (below, above) in self.levels.iter().zip(self.levels.iter().skip(1)) {
            for (at, node) in below.iter().enumerate() {
                let above = above[at / FAN];
                assert!(above.expires <= node.expires, "node {at}");
                assert!(
                    above.expires == AT_ONCE || above.played >= node.played,
                    "node {at}"
                );
            }
        }
        for turn in [self.turns, self.turns + 1] {
            for (level, nodes) in self.levels.iter().enumerate() {
                for (at, node) in nodes.iter().enumerate().filter(|(_, n)| n.holds(turn)) {
                    let width = FAN.pow(level as u32 + 1);
                    let slots = at * width..backends.len().min((at + 1) * width);
                    let (leader, credit) = leading(starts(&backends[slots]), turn);
                    let found = (
                        node.leader.slot as usize,
                        node.leader.start + i64::from(node.leader.weight) * turn,
                    );
                    if node.leader.weight > 0 || credit > i64::MIN {
                        assert_eq!(
                            found,
                            (at * width + leader, credit),
                            "level {level}, turn {turn}"
                        );
                    }
                }
            }
        }
    }
}

impl Node {
    fn of(lines: impl Iterator<Item = Line> + Clone, turn: i64) -> Node {
        let (leader, _) = leading(lines.clone().map(|line| (line.start, line.weight)), turn);
        let leader = lines.clone().nth(leader).expect("no node is over nothing");
        let overtaken = lines.map(|line| leader.overtaken_by(line)).min();
        Node {
            leader,
            played: turn,
            expires: overtaken.unwrap_or(i64::MAX),
        }
    }

    fn holds(&self, turn: i64) -> bool {
        self.played <= turn && turn < self.expires
    }
}

/// The lines of these backends, the first of which is in that slot.
fn lines(backends: &[Backend], from: Slot) -> impl Iterator<Item = Line> + Clone {
    (from..).zip(backends).map(|(slot, backend)| Line {
        start: backend.credit,
        weight: u32::from(backend.live),
        slot: slot as u32,
    })
}

/// Which of these lines (start and weight), in order of addition, is the highest at that turn, and what its credit is then.
fn leading(lines: impl Iterator<Item = (i64, u32)>, turn: i64) -> (usize, i64) {
    let (mut leader, mut highest) = (0, i64::MIN);
    for (at, (start, weight)) in lines.enumerate() {
        if weight == 0 {
            continue;
        }
        let credit = start + i64::from(weight) * turn;
        if credit > highest {
            (leader, highest) = (at, credit);
        }
    }
    (leader, highest)
}

/// What [`leading`] looks at.
fn starts(backends: &[Backend]) -> impl Iterator<Item = (i64, u32)> {
    backends.iter().map(|b| (b.credit, u32::from(b.live)))
}

impl Line {
    /// The first turn at which the other one leads, where this one does now.
    fn overtaken_by(self, other: Line) -> i64 {
        if other.weight <= self.weight {
            return i64::MAX;
        }
        // At equal credit the one that was added first leads.
        let lead = self.start - other.start - i64::from(other.slot < self.slot);
        lead / i64::from(other.weight - self.weight) + 1
    }
}
