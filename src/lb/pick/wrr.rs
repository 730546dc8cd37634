//! Smooth weighted round robin, as nginx does it (`ngx_http_upstream_get_peer`, since nginx 1.3.1, 2012).
//!
//! Each pick adds to every eligible backend's credit its weight, takes the one with the highest credit (the
//! earliest added wins a tie), and subtracts from that one the sum of the weights. Weights 5, 1, 1 give
//! `a a b a c a a`, not `a a a a a b c`.
//!
//! Done so, a pick costs O(n). Here it costs about O(log n), by two ideas:
//!
//! - A credit grows by the weight in each pick, so it is a line over the number of picks ("turns"). The start of the line
//!   is stored, `credit - weight × turns`, and only the backend that is picked needs a change.
//! - The leader among some lines leads until another line crosses its own. The turn of that crossing can be
//!   computed. So the backends play a tournament: eight compete, their leader meets that of eight others, the winners
//!   meet, and so on. Each node knows its leader and the turn at which it must be played again. This is a kinetic
//!   tournament (Basch, Guibas and Hershberger, "Data structures for mobile data", 1997) over eights.
//!
//! Eights below, so that there are only two nodes for eight backends, and duels above, so that the way from the backend
//! that was picked last up to the final looks at one other node a level. With 100,000 backends of
//! weights 1 to 100 a pick takes 1,350 instructions. Rejected: four or eight in place of two (1,450 and 1,690); marking that
//! way and playing it from the final down, eights all over (2,420); a branch on the winner (1,260, but it cannot be
//! predicted: twice the time).
//!
//! Rejected: one heap for each different weight (all credits inside a class grow alike). It is O(number of different
//! weights) a pick, so it needs such a tournament over the classes anyway, and one over all backends is simpler.
//!
//! Backends that are not eligible take no part: their credit stands still, as a plain number.

use super::by_tier::ByTier;
use super::own::{Before, Own, Pick};
use super::view::View;
use crate::lb::field::{FAN, Field, Seat};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, buffer};
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};

/// Credits stay within it. No sequence of picks gets near it; a pool from a crafted payload can start there. Where a pick
/// would pass it, all that run in the tier move together: see `pick_anew`.
pub const CREDIT_MAX: i64 = 1 << 60;
/// After this many turns the lines start anew from their present credits, so that a turn fits into 32 bits.
const TURNS_MAX: i64 = NEVER as i64 - 2;

pub struct WeightedRoundRobin;

impl Pick for WeightedRoundRobin {
    const NAME: &'static str = "wrr";
    const CODE: u8 = 2;
    type Own = Credits;

    #[inline(always)]
    fn pick(own: &mut Credits, see: View<'_>, _: &mut Chance) -> Slot {
        match own.tournaments.at_hand(see.tier()) {
            Some(tournament) if tournament.duels.is_empty() => {
                match tournament.pick_of_few(see, &mut own.starts) {
                    Some(slot) => slot,
                    None => pick_anew(own, see),
                }
            }
            _ => pick_of_many(own, see),
        }
    }

    fn pick_ahead(own: &mut Credits, see: View<'_>) -> Option<(Slot, Before)> {
        let (tournament, starts) = own.serving(see);
        tournament.pick(see, starts).map(|slot| (slot, 0))
    }

    fn take_back(own: &mut Credits, see: View<'_>, slot: Slot, _: Before) {
        let (tournament, starts) = own.serving(see);
        starts[slot] += total(see);
        tournament.turns -= 1;
        tournament.change(slot);
    }
}

/// Apart from the pick of a few, which so needs no registers to be saved.
#[inline(never)]
fn pick_of_many(own: &mut Credits, see: View<'_>) -> Slot {
    let (tournament, starts) = own.serving(see);
    match tournament.pick(see, starts) {
        Some(slot) => slot,
        None => pick_anew(own, see),
    }
}

#[cold]
#[inline(never)]
fn pick_anew(own: &mut Credits, see: View<'_>) -> Slot {
    let (tournament, starts) = own.serving(see);
    tournament.pick_anew(see, starts)
}

#[inline(always)]
fn total(see: View<'_>) -> i64 {
    see.total_weight() as i64
}

/// The credits of all backends.
#[derive(Clone, Debug, Default)]
pub struct Credits {
    /// For each slot where its line starts. That is its credit where it takes no part, or where no tournament of its tier was
    /// played yet.
    starts: Vec<i64>,
    tournaments: ByTier<CreditTournament>,
}

impl Credits {
    /// The credit of a backend.
    pub fn of(&self, field: &Field, slot: Slot) -> i64 {
        let seat = &field.seats()[slot];
        let turns = self.tournaments.get(seat.tier()).map_or(0, |t| t.turns);
        at(seat, self.starts[slot], turns)
    }

    /// Gives a backend that takes no part a credit.
    pub fn set(&mut self, slot: Slot, credit: i64) {
        self.starts[slot] = credit;
    }

    /// Multiplies the credit of a backend that takes no part, because all running weights are multiplied.
    pub fn scale(&mut self, slot: Slot, by: i64) {
        let credit = self.starts[slot].saturating_mul(by);
        self.starts[slot] = credit.clamp(-CREDIT_MAX, CREDIT_MAX);
    }

    /// Writes the credit of a backend.
    pub fn save(&self, field: &Field, slot: Slot, to: &mut Writer) {
        to.put(&self.of(field, slot));
    }

    /// Reads the credit of a backend, which is a newcomer.
    pub fn load(from: &mut Reader) -> Result<i64, Malformed> {
        let credit: i64 = from.get()?;
        let credits = -CREDIT_MAX..=CREDIT_MAX;
        checked("backend's credit", credit, credits.contains(&credit))
    }

    #[inline(always)]
    fn serving(&mut self, see: View<'_>) -> (&mut CreditTournament, &mut [i64]) {
        let seats = see.seats();
        let make = || CreditTournament::of(seats.len());
        let tournament = self.tournaments.serving(see.tier(), seats, make);
        (tournament, &mut self.starts)
    }
}

impl Own for Credits {
    /// Makes the credit a plain number. A backend without weight has a flat line, so for it that is all.
    fn weight_changes(&mut self, field: &Field, slot: Slot) {
        self.starts[slot] = self.of(field, slot);
    }

    fn weight_changed(&mut self, see: View<'_>, slot: Slot) {
        let seat = &see.seats()[slot];
        if let Some(tournament) = self.tournaments.get_mut(seat.tier()) {
            self.starts[slot] -= i64::from(seat.running_weight()) * tournament.turns;
            tournament.change(slot);
        }
    }

    /// The credit keeps its proportion to the weight.
    fn reweighted(&mut self, slot: Slot, from: u16, to: u16) {
        self.starts[slot] = match (from, to) {
            (0, _) | (_, 0) => 0,
            _ => scaled(self.starts[slot], to, from),
        };
    }

    /// In the other tier it starts neutral.
    fn moved(&mut self, slot: Slot) {
        self.starts[slot] = 0;
    }

    /// Makes all credits plain numbers.
    fn gaps_close(&mut self, field: &Field) {
        for slot in 0..self.starts.len() {
            self.starts[slot] = self.of(field, slot);
        }
        self.tournaments = ByTier::default();
    }

    fn check(&self, see: View<'_>) {
        let turns = |tier| self.tournaments.get(tier).map_or(0, |t| t.turns);
        for (seat, start) in see.seats().iter().zip(&self.starts) {
            assert!(at(seat, *start, turns(seat.tier())).abs() <= CREDIT_MAX);
        }
        for (tier, tournament) in self.tournaments.all() {
            tournament.check(see.seats(), &self.starts, *tier);
        }
    }
}

impl Kept for Credits {
    fn grown(&mut self, slots: usize) {
        self.starts.resize(slots, 0);
        let all = self.tournaments.all_mut();
        all.for_each(|(_, tournament)| tournament.grown(slots));
    }

    fn forget(&mut self, slot: Slot) {
        self.starts[slot] = 0;
    }

    fn renumber(&mut self, gaps: &Gaps) {
        gaps.close(&mut self.starts);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.starts);
        (self.tournaments).relocate(by, |tournament, by| by.vec(&mut tournament.duels));
    }

    fn heap_bytes(&self) -> usize {
        buffer(&self.starts) + self.tournaments.heap_bytes(|t| buffer(&t.duels))
    }
}

/// A credit times new / old, toward zero.
fn scaled(credit: i64, new: u16, old: u16) -> i64 {
    let exact = i128::from(credit) * i128::from(new) / i128::from(old);
    exact.clamp(i128::from(-CREDIT_MAX), i128::from(CREDIT_MAX)) as i64
}

/// The tournament of the eligible backends of a tier.
#[derive(Clone, Debug, Default)]
struct CreditTournament {
    /// How many picks were made since the lines started.
    turns: i64,
    /// The latest turn for which nodes were played: ahead of the present one after taking back.
    played: u32,
    /// The slot of the line that changed last. The next pick plays the nodes above it, whatever they say now.
    changed: u32,
    /// Nodes 2i and 2i + 1 meet in duel i, whose outcome is node i; duel 1 is the final. The other
    /// nodes are over the eights of backends in order, the last ones over none yet. Up to eight backends have no
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

/// Over backends without an eligible one: it loses to any other node.
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

impl CreditTournament {
    /// A tournament over this number of slots. The credits of its backends are plain numbers.
    fn of(slots: usize) -> CreditTournament {
        let mut tournament = CreditTournament::default();
        tournament.make_room(slots.div_ceil(FAN));
        tournament
    }

    /// Makes room for the slot that was added last, which is not eligible yet.
    fn grown(&mut self, slots: usize) {
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

    /// The pick, unless a sum would go beyond its bounds.
    fn pick(&mut self, see: View<'_>, starts: &mut [i64]) -> Option<Slot> {
        if self.duels.is_empty() {
            return self.pick_of_few(see, starts);
        }
        let leader = self.winner(see.seats(), starts, see.tier(), self.turns + 1);
        self.advance(leader, starts, total(see))
    }

    /// The same where there are no duels.
    #[inline(always)]
    fn pick_of_few(&mut self, see: View<'_>, starts: &mut [i64]) -> Option<Slot> {
        let leader = leading(see.seats(), starts, see.tier(), self.turns + 1);
        self.advance(leader, starts, total(see))
    }

    /// The leader at the next turn, with that credit, pays for it.
    #[inline(always)]
    fn advance(
        &mut self,
        (slot, credit): (Slot, i64),
        starts: &mut [i64],
        total: i64,
    ) -> Option<Slot> {
        if credit > CREDIT_MAX || credit - total < -CREDIT_MAX || self.turns >= TURNS_MAX {
            return None;
        }
        starts[slot] -= total;
        self.turns += 1;
        // Whatever had changed before was played just now.
        self.changed = slot as u32;
        Some(slot)
    }

    /// The same pick, for which the lines start anew. Where a sum would pass its bounds, all credits first move by one
    /// amount, so that the leader stands at 0 when it is picked: their order stays, save among those that would fall below
    /// the lower bound, where they stop. O(n), but it comes once in 2^20 picks at most as long as no backend joins: then no credit
    /// is above 0, and a pick lowers the leader by 2^40 at most. (With running weights in units of 1/256 it is
    /// once in 2^12.) Rejected: that each sum saturates. Where all stand at a bound the next pick would pass it again, and
    /// each pick is O(n).
    fn pick_anew(&mut self, see: View<'_>, starts: &mut [i64]) -> Slot {
        let (seats, tier, total, turn) = (see.seats(), see.tier(), total(see), self.turns + 1);
        let (slot, highest) = leading(seats, starts, tier, turn);
        let is_within = highest <= CREDIT_MAX && highest - total >= -CREDIT_MAX;
        let shift = if is_within { 0 } else { highest };
        for (seat, start) in seats.iter().zip(starts.iter_mut()) {
            if seat.running_in(tier).is_some() {
                *start = (at(seat, *start, turn) - shift).max(-CREDIT_MAX);
            }
        }
        starts[slot] -= total;
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

    /// The leader of the tournament at that turn, and its credit. Nodes that do not hold are played on the way from the slot
    /// that changed last up to the final.
    #[inline(always)]
    fn winner(&mut self, seats: &[Seat], starts: &[i64], tier: u8, turn: i64) -> (Slot, i64) {
        if i64::from(self.played) > turn {
            self.forget(1, turn);
        }
        self.played = turn as u32;
        let mut at = self.over(self.changed as Slot);
        let mut node = Node::of_eight(at - self.duels.len(), seats, starts, tier, turn);
        while at > 1 {
            let duel = &mut self.duels[at / 2];
            duel[at % 2] = node;
            if !duel[1 - at % 2].holds(turn) {
                self.play(at ^ 1, seats, starts, tier, turn);
            }
            at /= 2;
            node = Node::of_duel(&self.duels[at], turn);
        }
        (node.slot as Slot, node.at(turn))
    }

    /// Plays a node for that turn, after those below it that do not hold.
    fn play(&mut self, at: usize, seats: &[Seat], starts: &[i64], tier: u8, turn: i64) {
        *self.node(at) = match at.checked_sub(self.duels.len()) {
            Some(eight) => Node::of_eight(eight, seats, starts, tier, turn),
            None => {
                for below in [2 * at, 2 * at + 1] {
                    if !self.node(below).holds(turn) {
                        self.play(below, seats, starts, tier, turn);
                    }
                }
                Node::of_duel(&self.duels[at], turn)
            }
        };
    }

    /// Forgets the nodes below duel `at` that were played for later turns.
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
    fn check(&self, seats: &[Seat], starts: &[i64], tier: u8) {
        let eights = self.duels.len();
        assert!(seats.len() <= FAN * eights.max(1));
        let changed = self.over(self.changed as Slot);
        let is_above_changed = |at: usize| (0..usize::BITS).any(|levels| changed >> levels == at);
        let mut slots: Vec<Vec<Slot>> = vec![Vec::new(); 2 * eights];
        for at in (2..2 * eights).rev() {
            slots[at] = match at.checked_sub(eights) {
                Some(eight) => (0..seats.len()).skip(eight * FAN).take(FAN).collect(),
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
            let group: Vec<Seat> = slots[at].iter().map(|slot| seats[*slot]).collect();
            let lines: Vec<i64> = slots[at].iter().map(|slot| starts[*slot]).collect();
            for turn in [self.turns, self.turns + 1] {
                if i64::from(node.played) > turn || !node.holds(turn) {
                    continue;
                }
                let (leader, credit) = leading(&group, &lines, tier, turn);
                match group.iter().any(|seat| seat.running_in(tier).is_some()) {
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
    fn of_eight(eight: usize, seats: &[Seat], starts: &[i64], tier: u8, turn: i64) -> Node {
        let played = turn as u32;
        let seats = seats.chunks(FAN).nth(eight).unwrap_or_default();
        let starts = starts.chunks(FAN).nth(eight).unwrap_or_default();
        let (leader, highest) = leading(seats, starts, tier, turn);
        if highest == i64::MIN {
            return Node { played, ..EMPTY };
        }
        Node {
            start: starts[leader],
            weight: seats[leader].running_weight(),
            slot: (eight * FAN + leader) as u32,
            played,
            expires: overtaken(seats, starts, tier, leader),
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

/// The credit of a backend at that turn. One that takes no part has the same credit at all turns.
#[inline(always)]
fn at(seat: &Seat, start: i64, turn: i64) -> i64 {
    start + i64::from(seat.running_weight()) * turn
}

/// The backend of that tier with the highest credit at that turn, and this credit.
#[inline(always)]
fn leading(seats: &[Seat], starts: &[i64], tier: u8, turn: i64) -> (usize, i64) {
    let (mut leader, mut highest) = (0, i64::MIN);
    let starts = &starts[..seats.len()];
    for at in 0..seats.len() {
        if let Some(weight) = seats[at].running_in(tier) {
            let credit = starts[at] + i64::from(weight) * turn;
            if credit > highest {
                (leader, highest) = (at, credit);
            }
        }
    }
    (leader, highest)
}

/// The first turn at which another of these backends leads than the one that leads now.
#[inline(always)]
fn overtaken(seats: &[Seat], starts: &[i64], tier: u8, leader: usize) -> u32 {
    let mut end = i64::from(NEVER);
    let (start, weight) = (starts[leader], i64::from(seats[leader].running_weight()));
    for (at, (seat, other)) in seats.iter().zip(starts).enumerate() {
        let gain = (seat.running_in(tier)).map_or(0, |own| i64::from(own) - weight);
        if gain <= 0 {
            continue;
        }
        // At equal credit the one that was added first leads.
        let lead = start - other - i64::from(at < leader);
        if gain * (end - 1) > lead {
            end = lead / gain + 1;
        }
    }
    end as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The algorithm without a pool: backends of these weights.
    #[derive(Clone)]
    struct Alone {
        field: Field,
        own: Credits,
    }

    impl Alone {
        fn of(weights: impl Iterator<Item = u16>) -> Alone {
            let (mut field, mut own) = (Field::default(), Credits::default());
            for (slot, weight) in weights.enumerate() {
                field.add(Seat::new(weight));
                own.grown(slot + 1);
            }
            let mut alone = Alone { field, own };
            (0..alone.slots()).for_each(|slot| alone.run(slot, alone.weight(slot)));
            alone
        }

        fn slots(&self) -> usize {
            self.field.seats().len()
        }

        fn weight(&self, slot: Slot) -> u32 {
            self.field.seats()[slot].weight.into()
        }

        fn see(&self) -> View<'_> {
            View::of(&self.field, None)
        }

        fn run(&mut self, slot: Slot, weight: u32) {
            self.own.weight_changes(&self.field, slot);
            self.field.run(slot, weight);
            self.own.weight_changed(View::of(&self.field, None), slot);
        }

        fn turns(&self, tier: u8) -> i64 {
            self.own.tournaments.get(tier).map_or(0, |t| t.turns)
        }

        fn pick(&mut self) -> Slot {
            let see = View::of(&self.field, None);
            WeightedRoundRobin::pick(&mut self.own, see, &mut Chance::default())
        }

        fn peek(&mut self, count: usize) -> Vec<Slot> {
            let see = View::of(&self.field, None);
            let ahead = |_| WeightedRoundRobin::pick_ahead(&mut self.own, see);
            let made: Vec<_> = (0..count).map_while(ahead).collect();
            for (slot, before) in made.iter().rev() {
                WeightedRoundRobin::take_back(&mut self.own, see, *slot, *before);
            }
            match made.len() == count {
                true => made.into_iter().map(|(slot, _)| slot).collect(),
                false => {
                    let mut copy = self.clone();
                    (0..count).map(|_| copy.pick()).collect()
                }
            }
        }
    }

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

    fn at_the_bounds(side: Side) -> Alone {
        let mut alone = Alone::of((0..200).map(|i| 65_535 - i));
        for slot in 0..alone.slots() {
            alone.run(slot, 0);
            alone.field.move_to_tier(slot, (slot % 4 / 2 % TIERS) as u8);
            alone.own.set(slot, side(slot));
            alone.run(slot, alone.weight(slot));
        }
        alone
    }

    /// Counts how often the lines of the serving tier started anew. Each time costs O(n).
    fn starts_during(alone: &mut Alone, mut pick: impl FnMut(&mut Alone), picks: usize) -> usize {
        let mut starts = 0;
        for _ in 0..picks {
            let tier = alone.field.serving();
            let turns = alone.turns(tier);
            pick(alone);
            starts += usize::from(alone.turns(tier) <= turns);
        }
        starts
    }

    #[test]
    fn few_picks_at_the_bounds_look_at_all_backends() {
        for (side, credit) in SIDES {
            let mut alone = at_the_bounds(credit);
            let starts = starts_during(&mut alone, |alone| _ = alone.pick(), 10_000);
            assert!(starts <= 1, "{side}: {starts} in 10,000 picks");

            // Each backend that was picked stands aside, as in DISTINCT and at a limit, till all of each tier have.
            let mut alone = at_the_bounds(credit);
            let aside = |alone: &mut Alone| {
                let slot = alone.pick();
                alone.run(slot, 0);
            };
            let starts = starts_during(&mut alone, aside, 200);
            assert!(starts <= 2 * TIERS, "{side}: {starts} in 200 picks");
            alone.own.check(alone.see());

            // And they come back. Backends that ran on may be far behind them.
            (0..alone.slots()).for_each(|slot| alone.run(slot, alone.weight(slot)));
            let starts = starts_during(&mut alone, |alone| _ = alone.pick(), 10_000);
            assert!(starts <= 2, "{side}: {starts} in 10,000 picks");
            alone.own.check(alone.see());
        }
    }

    #[test]
    fn a_look_ahead_at_the_bounds_leaves_no_trace_and_is_right() {
        for (_, credit) in SIDES {
            let mut alone = at_the_bounds(credit);
            let credits = |alone: &Alone| -> Vec<i64> {
                let slots = 0..alone.slots();
                slots.map(|slot| alone.own.of(&alone.field, slot)).collect()
            };
            let before = credits(&alone);
            let foreseen = alone.peek(500);
            assert_eq!(credits(&alone), before);
            let picked: Vec<Slot> = (0..500).map(|_| alone.pick()).collect();
            assert_eq!(foreseen, picked);
        }
    }

    /// The lines start anew after more picks than a test can make. So the lines of one pool are laid as if it had made them.
    #[test]
    fn that_the_lines_start_anew_is_not_seen() {
        for size in [3, 20, 200u32] {
            let weight = |i: u32| (1 + i * 7919 % 1000) as u16;
            let mut early = Alone::of((0..size).map(weight));
            let mut late = early.clone();
            let turns = TURNS_MAX - 50;
            late.own.serving(View::of(&late.field, None)).0.turns = turns;
            for (seat, start) in late.field.seats().iter().zip(&mut late.own.starts) {
                *start -= i64::from(seat.running_weight()) * turns;
            }
            for _ in 0..100 {
                assert_eq!(late.peek(5), early.peek(5));
                assert_eq!(late.pick(), early.pick());
                late.own.check(View::of(&late.field, None));
            }
            assert!(late.own.serving(View::of(&late.field, None)).0.turns < 100);
        }
    }

    /// So running weights can be fractions in some pools one day, while all others stay as they are.
    #[test]
    fn a_smaller_unit_of_weights_changes_no_sequence() {
        let weights = || (0..50u32).map(|i| (1 + i * 7919 % 60_000) as u16);
        let mut whole = Alone::of(weights());
        let mut fine = Alone::of(weights());
        for (slot, weight) in weights().enumerate() {
            fine.run(slot, u32::from(weight) << 8);
        }
        for _ in 0..1000 {
            assert_eq!(fine.pick(), whole.pick());
        }
    }
}
