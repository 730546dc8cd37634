//! A kinetic tournament: which of many lines is highest at a turn that only moves on, save for steps back.
//!
//! The leader among some lines leads until another line crosses its own. The turn of that crossing can be
//! computed. So the lines play a tournament: eight compete, their leader meets that of eight others, the winners
//! meet, and so on. Each node knows its leader and the turn at which it must be played again (Basch, Guibas and
//! Hershberger, "Data structures for mobile data", 1997).
//!
//! Eights below, so that there are only two nodes for eight lines, and duels above, so that the way from the line
//! that changed last up to the final looks at one other node a level. Among 100,000 lines of weights 1 to 100 a pick
//! takes 1,330 instructions more than among three. Rejected: four or eight in place of two (7 and 25 % more); marking that
//! way and playing it from the final down, eights all over (80 % more); a branch on the winner (7 % less, but it cannot be
//! predicted: twice the time).

use std::hint::black_box;

use crate::lb::field::{FAN, Seat};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::memory::{Mover, buffer};

/// A line: its height at a turn is its start and the turn times its weight. There is one at each place.
pub trait Line: Clone {
    /// Whether lines of earlier places are those of backends that were added earlier.
    const ARE_IN_ORDER: bool;

    /// Its height at turn 0.
    fn start(&self) -> i64;

    /// Its weight, 0 where it takes no part.
    fn weight(&self) -> u32;

    /// Its weight beyond that one, if it takes part in that tier with more.
    fn gain_in(&self, tier: u8, weight: u32) -> Option<u32>;

    /// The slot of its backend. The line is at that place.
    fn slot(&self, place: usize) -> Slot;
}

/// The lines of all backends, at their slots.
impl Line for Seat {
    const ARE_IN_ORDER: bool = true;

    #[inline(always)]
    fn start(&self) -> i64 {
        self.credit()
    }

    #[inline(always)]
    fn weight(&self) -> u32 {
        self.running_weight()
    }

    #[inline(always)]
    fn gain_in(&self, tier: u8, weight: u32) -> Option<u32> {
        Seat::gain_in(self, tier, weight)
    }

    #[inline(always)]
    fn slot(&self, place: usize) -> Slot {
        place
    }
}

/// The duels between lines.
#[derive(Clone, Debug, Default)]
pub struct Duels {
    /// The latest turn for which nodes were played: ahead of the present one after taking back.
    played: u32,
    /// The place of the line that changed last. The next pick plays the nodes above it, whatever they say now.
    changed: u32,
    /// Nodes 2i and 2i + 1 meet in duel i, whose outcome is node i; duel 1 is the final, and node 1 its outcome. The other
    /// nodes are over the eights of lines in order, the last ones over none yet.
    duels: Vec<[Node; 2]>,
}

/// The outcome among some lines, which is the line of their leader.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub start: i64,
    pub weight: u32,
    pub slot: u32,
    /// The turn for which it was played; it says nothing of earlier ones, to which only taking back returns.
    /// No node's is earlier than that of one below it.
    played: u32,
    /// From this turn on it must be played again. No node's is later than that of one below it.
    expires: u32,
}

/// It must be played again, whatever the turn.
const AT_ONCE: u32 = 0;
/// Behind the last turn that there is.
pub const NEVER: u32 = u32::MAX;

/// Below every line, at every turn. Sums with heights fit.
const LOWEST: i64 = -(1 << 62);

/// Over lines that take no part: it loses to any other node.
const EMPTY: Node = Node {
    start: LOWEST,
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

impl Duels {
    /// Whether there is no room for any line.
    #[inline(always)]
    pub fn are_none(&self) -> bool {
        self.duels.is_empty()
    }

    /// For how many lines there is room.
    pub fn room(&self) -> usize {
        self.duels.len() * FAN
    }

    /// Duels that were never played, with room for this number of lines.
    pub fn with_room(lines: usize) -> Duels {
        Duels {
            duels: vec![[UNPLAYED; 2]; lines.div_ceil(FAN).max(1)],
            ..Duels::default()
        }
    }

    /// The line at that place has changed. The nodes above the one that changed before it are marked in its stead.
    pub fn change(&mut self, place: usize) {
        let mut at = self.over(self.changed as usize);
        while at > 1 && self.node(at).expires != AT_ONCE {
            self.node(at).expires = AT_ONCE;
            at /= 2;
        }
        self.changed = place as u32;
    }

    /// As [`Duels::change`], just after the winner of this turn was asked for: whatever had changed before was played.
    #[inline(always)]
    pub fn winner_changes(&mut self, place: usize) {
        self.changed = place as u32;
    }

    /// The leader of all at that turn. Nodes that do not hold are played on the way from the line
    /// that changed last up to the final.
    #[inline(always)]
    pub fn winner<L: Line>(&mut self, lines: &[L], tier: u8, turn: i64) -> Node {
        if i64::from(self.played) > turn {
            self.forget(1, turn);
        }
        self.played = turn as u32;
        let mut at = self.over(self.changed as usize);
        self.fetch(at);
        *self.node(at) = Node::of_eight(at - self.duels.len(), lines, tier, turn);
        while at > 1 {
            at /= 2;
            // One of them was just played and holds.
            if !Node::do_both_hold(&self.duels[at], turn) {
                self.play_below(at, lines, tier, turn);
            }
            let node = Node::of_duel(&self.duels[at], turn);
            *self.node(at) = node;
        }
        *self.node(1)
    }

    /// Reads the duels from that node up to the final, whose places are known beforehand. So those that lie in no cache come all at
    /// once, and not one after the other. It takes 8 instructions a level.
    #[inline(always)]
    fn fetch(&self, at: usize) {
        let (mut duel, mut all) = (at / 2, 0);
        while duel > 0 {
            // Something at its beginning and at its end: a duel can lie in two cache lines.
            let [one, other] = &self.duels[duel];
            all ^= one.weight ^ other.expires;
            duel /= 2;
        }
        black_box(all);
    }

    /// Plays a node for that turn, after those below it that do not hold.
    fn play<L: Line>(&mut self, at: usize, lines: &[L], tier: u8, turn: i64) {
        *self.node(at) = match at.checked_sub(self.duels.len()) {
            Some(eight) => Node::of_eight(eight, lines, tier, turn),
            None => {
                self.play_below(at, lines, tier, turn);
                Node::of_duel(&self.duels[at], turn)
            }
        };
    }

    /// Plays those of the nodes of duel `at` that do not hold.
    #[cold]
    fn play_below<L: Line>(&mut self, at: usize, lines: &[L], tier: u8, turn: i64) {
        for below in [2 * at, 2 * at + 1] {
            if !self.node(below).holds(turn) {
                self.play(below, lines, tier, turn);
            }
        }
    }

    /// Forgets the nodes below duel `at` that were played for later turns.
    fn forget(&mut self, at: usize, turn: i64) {
        if at >= self.duels.len() {
            return;
        }
        for below in [2 * at, 2 * at + 1] {
            if i64::from(self.node(below).played) > turn {
                *self.node(below) = UNPLAYED;
                self.forget(below, turn);
            }
        }
    }

    /// The node over the eight of that place.
    fn over(&self, place: usize) -> usize {
        self.duels.len() + place / FAN
    }

    #[inline(always)]
    fn node(&mut self, at: usize) -> &mut Node {
        &mut self.duels.as_flattened_mut()[at]
    }

    /// Lets the mover move all that is on the heap.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.duels);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        buffer(&self.duels)
    }

    /// Panics where a node is out of order with those below it, or one that holds at one of these turns names another leader than
    /// its lines have. For the tests.
    pub fn check<L: Line>(&self, lines: &[L], tier: u8, turns: [i64; 2]) {
        let eights = self.duels.len();
        assert!(lines.len() <= self.room());
        let changed = self.over(self.changed as usize);
        let is_above_changed = |at: usize| (0..usize::BITS).any(|levels| changed >> levels == at);
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); 2 * eights];
        for at in (2..2 * eights).rev() {
            places[at] = match at.checked_sub(eights) {
                Some(eight) => (0..lines.len()).skip(eight * FAN).take(FAN).collect(),
                None => [&places[2 * at][..], &places[2 * at + 1]].concat(),
            };
            places[at].sort();
            if is_above_changed(at) {
                continue;
            }
            let node = self.duels[at / 2][at % 2];
            assert!(node.played <= self.played);
            for below in self.duels.get(at).into_iter().flatten() {
                assert!(node.expires <= below.expires);
                assert!(node.expires == AT_ONCE || node.played >= below.played);
            }
            let group = places[at].iter().map(|place| lines[*place].clone());
            let group: Vec<L> = group.collect();
            for turn in turns {
                if i64::from(node.played) > turn || !node.holds(turn) {
                    continue;
                }
                let (leader, height) = leading(&group, tier, turn);
                match group.iter().any(|line| line.gain_in(tier, 0).is_some()) {
                    true => {
                        let slot = group[leader].slot(places[at][leader]);
                        assert_eq!((node.slot as Slot, node.at(turn)), (slot, height));
                    }
                    false => assert_eq!(node.weight, 0),
                }
            }
        }
    }
}

impl Node {
    /// The outcome among eight lines. Apart, so that it has all registers.
    #[inline(never)]
    fn of_eight<L: Line>(eight: usize, lines: &[L], tier: u8, turn: i64) -> Node {
        let lines = lines.get(eight * FAN..).unwrap_or_default();
        match lines.first_chunk::<FAN>() {
            // All but the last are full, and for a known number of lines the compiler needs no loops.
            Some(lines) => Node::of(lines, eight * FAN, tier, turn),
            None => Node::of(lines, eight * FAN, tier, turn),
        }
    }

    /// The outcome among lines, which are those from that place on.
    #[inline(always)]
    fn of<L: Line>(lines: &[L], place: usize, tier: u8, turn: i64) -> Node {
        let played = turn as u32;
        let (leader, highest) = leading(lines, tier, turn);
        if highest == i64::MIN {
            return Node { played, ..EMPTY };
        }
        let line = &lines[leader];
        Node {
            start: line.start(),
            weight: line.weight(),
            slot: line.slot(place + leader) as u32,
            played,
            expires: overtaken(lines, tier, leader),
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
            expires = whole(lead, gain) as u32 + 1;
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

    /// Whether both nodes of a duel do. [`Node::of_duel`] takes the same minimum.
    #[inline(always)]
    fn do_both_hold([a, b]: &[Node; 2], turn: i64) -> bool {
        turn < i64::from(a.expires.min(b.expires))
    }

    /// The leader's height at that turn.
    pub fn at(&self, turn: i64) -> i64 {
        self.start + i64::from(self.weight) * turn
    }
}

/// The place of the highest of these lines at that turn, and its height.
#[inline(always)]
fn leading<L: Line>(lines: &[L], tier: u8, turn: i64) -> (usize, i64) {
    let (mut leader, mut highest) = (0, i64::MIN);
    for at in 0..lines.len() {
        if let Some(weight) = lines[at].gain_in(tier, 0) {
            let height = lines[at].start() + i64::from(weight) * turn;
            let is_earlier = || lines[at].slot(at) < lines[leader].slot(leader);
            if height > highest || !L::ARE_IN_ORDER && height == highest && is_earlier() {
                (leader, highest) = (at, height);
            }
        }
    }
    (leader, highest)
}

/// For how many whole turns a lead lasts. Neither is below zero, which spares a check.
#[inline(always)]
fn whole(lead: i64, gain: i64) -> i64 {
    (lead as u64 / gain as u64) as i64
}

/// The first turn at which another of these lines leads than the one that leads now.
#[inline(always)]
fn overtaken<L: Line>(lines: &[L], tier: u8, leader: usize) -> u32 {
    let mut end = i64::from(NEVER);
    let (start, weight, slot) = (
        lines[leader].start(),
        lines[leader].weight(),
        lines[leader].slot(leader),
    );
    for (at, line) in lines.iter().enumerate() {
        if let Some(gain) = line.gain_in(tier, weight).map(i64::from) {
            // At equal height the backend that was added first leads.
            let lead = start - line.start() - i64::from(line.slot(at) < slot);
            if gain * (end - 1) > lead {
                end = whole(lead, gain) + 1;
            }
        }
    }
    end as u32
}
