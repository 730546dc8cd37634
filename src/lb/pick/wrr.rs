//! Smooth weighted round robin, as nginx does it (`ngx_http_upstream_get_peer`, since nginx 1.3.1, 2012).
//!
//! Each pick adds to every eligible backend's credit its weight, takes the one with the highest credit (the
//! earliest added wins a tie), and subtracts from that one the sum of the weights. Weights 5, 1, 1 give
//! `a a b a c a a`, not `a a a a a b c`.
//!
//! Done so, a pick costs O(n). Here it costs about O(log n), by three ideas:
//!
//! - A credit grows by the weight in each pick, so it is a line over the number of picks ("turns"). The start of the line
//!   is stored, `credit - weight × turns`, and only the backend that is picked needs a change.
//! - The leader among some lines leads until another line crosses its own: see [`duels`](super::duels).
//! - Where many backends have few different weights, those of equal weight stand in a queue, and only the heads of the queues
//!   compete: see [`queues`](super::queues).
//!
//! With 100,000 backends of weights 1 to 100 a pick takes 770 instructions more than with three, and without queues 1,330. Where
//! nearly all weights differ, queues would take more memory than they save, and all backends compete.
//!
//! Whether there are queues is decided where all is played anew anyway: in the first pick, and when a pool has grown by an eighth.
//! They are given up once, in O(n), when too many weights have come.
//!
//! Backends that are not eligible take no part: their credit stands still, as a plain number.

use super::by_tier::ByTier;
use super::duels::{Duels, NEVER, Node};
use super::own::{Before, Own, Pick};
use super::queues::Queues;
use super::view::View;
use crate::lb::field::{FAN, Field, Seat};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::Kept;
use crate::lb::ground::memory::{Mover, allocated};
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

    fn pick(own: &mut Credits, see: View<'_>, chance: &mut Chance) -> Slot {
        let picked = WeightedRoundRobin::pick_if_any(own, see, chance);
        picked.expect("there is at least one")
    }

    fn pick_if_any(own: &mut Credits, see: View<'_>, _: &mut Chance) -> Option<Slot> {
        pick(own, see)
    }

    fn pick_ahead(own: &mut Credits, see: View<'_>) -> Option<(Slot, Before)> {
        if !are_few(see) {
            return own.serving(see).pick::<true>(see).map(|slot| (slot, 0));
        }
        let (leader, highest, total) = rise(see.seats(), see.tier(), 1);
        if !is_within(highest, total) {
            fall(see);
            return None;
        }
        let seat = &see.seats()[leader];
        seat.set_credit(highest - total);
        Some((leader, 0))
    }

    fn take_back(own: &mut Credits, see: View<'_>, slot: Slot, _: Before) {
        let seat = &see.seats()[slot];
        if are_few(see) {
            let total = fall(see);
            seat.set_credit(seat.credit() + total);
            return;
        }
        let tournament = own.serving(see);
        tournament.turns -= 1;
        tournament.line_changes(see.seats(), slot);
        seat.set_credit(seat.credit() + total(see));
        tournament.line_changed(see.seats(), slot);
    }
}

/// The pick, if there is an eligible backend. It only leads to the one that does the work, and so needs no registers.
#[inline(never)]
pub fn pick(own: &mut Credits, see: View<'_>) -> Option<Slot> {
    match are_few(see) {
        true => pick_of_eight(see),
        false if see.has_eligible() => own.serving(see).pick::<false>(see),
        false => None,
    }
}

#[inline(never)]
fn pick_of_eight(see: View<'_>) -> Option<Slot> {
    pick_anew(see.seats(), see.tier(), 1)
}

/// Up to eight backends play no tournament: they are simply compared, and their lines start anew with each pick.
#[inline(always)]
fn are_few(see: View<'_>) -> bool {
    see.seats().len() <= FAN
}

/// The pick of backends of tier 0 that are few, if there is an eligible one.
#[inline(always)]
pub fn pick_of_few(seats: &[Seat]) -> Option<Slot> {
    pick_anew(seats, 0, 1)
}

/// The pick at that turn, if there is an eligible backend. The lines start anew.
#[inline(always)]
fn pick_anew(seats: &[Seat], tier: u8, turn: i64) -> Option<Slot> {
    let (leader, highest, total) = rise(seats, tier, turn);
    if !is_far_within(highest) && !bounded(seats, tier, highest, total) {
        return None;
    }
    let leading = &seats[leader];
    leading.set_credit(leading.credit() - total);
    Some(leader)
}

/// Whether a credit stays within the bounds in a pick, whatever the weights are.
#[inline(always)]
fn is_far_within(credit: i64) -> bool {
    const HALF: i64 = CREDIT_MAX / 2;
    (-HALF..HALF).contains(&credit)
}

/// Where a sum would pass its bounds, all credits move by one amount, so that the leader stands at 0 when it is picked: their order
/// stays, save among those that would fall below the lower bound, where they stop. Answers whether there is a leader.
///
/// O(n), but among many it comes once in 2^20 picks at most as long as no backend joins: then no credit is above 0, and a
/// pick lowers the leader by 2^40 at most. (With running weights in units of 1/256 it is once in 2^12.) Rejected: that each sum
/// saturates. Where all stand at a bound the next pick would pass it again, and each pick is O(n).
#[cold]
fn bounded(seats: &[Seat], tier: u8, highest: i64, total: i64) -> bool {
    if highest > i64::MIN && !is_within(highest, total) {
        lower(seats, tier, highest);
    }
    highest > i64::MIN
}

/// Makes the credits of those that run plain numbers, those at that turn. Answers the leader, its credit, and the sum of the weights.
#[inline(always)]
fn rise(seats: &[Seat], tier: u8, turn: i64) -> (Slot, i64, i64) {
    let (mut leader, mut highest, mut total) = (0, i64::MIN, 0);
    for (slot, seat) in seats.iter().enumerate() {
        if let Some(weight) = seat.running_in(tier) {
            let credit = seat.credit() + i64::from(weight) * turn;
            seat.set_credit(credit);
            total += i64::from(weight);
            if credit > highest {
                (leader, highest) = (slot, credit);
            }
        }
    }
    (leader, highest, total)
}

/// Takes back the rise of one turn. Answers the sum of the weights.
fn fall(see: View<'_>) -> i64 {
    let (seats, tier) = (see.seats(), see.tier());
    let mut total = 0;
    for seat in seats {
        if let Some(weight) = seat.running_in(tier) {
            seat.set_credit(seat.credit() - i64::from(weight));
            total += i64::from(weight);
        }
    }
    total
}

fn lower(seats: &[Seat], tier: u8, by: i64) {
    for seat in seats.iter().filter(|seat| seat.running_in(tier).is_some()) {
        seat.set_credit((seat.credit() - by).max(-CREDIT_MAX));
    }
}

/// Whether a leader with that credit stays within the bounds when it pays the sum of the weights.
#[inline(always)]
fn is_within(credit: i64, total: i64) -> bool {
    credit <= CREDIT_MAX && credit - total >= -CREDIT_MAX
}

#[inline(always)]
fn total(see: View<'_>) -> i64 {
    see.total_weight() as i64
}

/// The tournaments of the tiers. Each seat keeps where the line of its backend starts. That is its credit where it takes no part,
/// or where no tournament of its tier was played yet.
#[derive(Clone, Debug, Default)]
pub struct Credits(Option<Box<ByTier<CreditTournament>>>);

impl Credits {
    /// The credit of a backend.
    pub fn of(&self, field: &Field, slot: Slot) -> i64 {
        let seat = &field.seats()[slot];
        at(seat, self.get(seat.tier()).map_or(0, |t| t.turns))
    }

    /// Multiplies the credit of a backend, which is a plain number, because all running weights are multiplied.
    pub fn scale(field: &Field, slot: Slot, by: i64) {
        let seat = &field.seats()[slot];
        let credit = seat.credit().saturating_mul(by);
        seat.set_credit(credit.clamp(-CREDIT_MAX, CREDIT_MAX));
    }

    /// Writes the credit of a backend.
    pub fn save(&self, field: &Field, slot: Slot, to: &mut Writer) {
        to.put(&self.of(field, slot));
    }

    /// Reads the credit of a backend, which is a newcomer.
    pub fn load(from: &mut Reader) -> Result<i64, Malformed> {
        let credit = from.signed()?;
        let credits = -CREDIT_MAX..=CREDIT_MAX;
        checked("backend's credit", credit, credits.contains(&credit))
    }

    fn get(&self, tier: u8) -> Option<&CreditTournament> {
        self.0.as_ref()?.get(tier)
    }

    fn get_mut(&mut self, tier: u8) -> Option<&mut CreditTournament> {
        self.0.as_mut()?.get_mut(tier)
    }

    fn all(&self) -> impl Iterator<Item = &(u8, CreditTournament)> {
        self.0.iter().flat_map(|tournaments| tournaments.all())
    }

    /// The tournament of the tier that serves. There are many backends.
    #[inline(always)]
    fn serving(&mut self, see: View<'_>) -> &mut CreditTournament {
        let seats = see.seats();
        let tournaments = self.0.get_or_insert_default();
        tournaments.serving(see.tier(), seats, CreditTournament::default)
    }
}

impl Own for Credits {
    /// Makes the credit a plain number. A backend without weight has a flat line, so for it that is all.
    fn weight_changes(&mut self, field: &Field, slot: Slot) {
        let seats = field.seats();
        if let Some(tournament) = self.get_mut(seats[slot].tier()) {
            let credit = at(&seats[slot], tournament.turns);
            tournament.line_changes(seats, slot);
            seats[slot].set_credit(credit);
        }
    }

    fn weight_changed(&mut self, see: View<'_>, slot: Slot) {
        let seat = &see.seats()[slot];
        if let Some(tournament) = self.get_mut(seat.tier()) {
            let grown = i64::from(seat.running_weight()) * tournament.turns;
            seat.set_credit(seat.credit() - grown);
            tournament.line_changed(see.seats(), slot);
        }
    }

    /// The credit keeps its proportion to the weight.
    fn reweighted(&mut self, field: &Field, slot: Slot, from: u16, to: u16) {
        let seat = &field.seats()[slot];
        seat.set_credit(match (from, to) {
            (0, _) | (_, 0) => 0,
            _ => scaled(seat.credit(), to, from),
        });
    }

    /// In the other tier it starts neutral.
    fn moved(&mut self, field: &Field, slot: Slot) {
        field.seats()[slot].set_credit(0);
    }

    /// Makes all credits plain numbers.
    fn start_anew(&mut self, field: &Field) {
        for (slot, seat) in field.seats().iter().enumerate() {
            seat.set_credit(self.of(field, slot));
        }
        self.0 = None;
    }

    fn check(&self, see: View<'_>) {
        let turns = |tier| self.get(tier).map_or(0, |t| t.turns);
        for seat in see.seats() {
            assert!(at(seat, turns(seat.tier())).abs() <= CREDIT_MAX);
        }
        assert!(self.0.is_none() || !are_few(see));
        for (tier, tournament) in self.all() {
            tournament.check(see.seats(), *tier);
        }
    }
}

impl Kept for Credits {
    #[inline(always)]
    fn grown(&mut self, slots: usize) {
        if let Some(tournaments) = &mut self.0 {
            grown(tournaments, slots);
        }
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        if let Some(tournaments) = &mut self.0 {
            tournaments.relocate(by, CreditTournament::relocate);
        }
    }

    fn heap_bytes(&self) -> usize {
        (self.0.as_ref()).map_or(0, |tournaments| {
            allocated(size_of::<ByTier<CreditTournament>>())
                + tournaments.heap_bytes(CreditTournament::heap_bytes)
        })
    }
}

#[inline(never)]
fn grown(tournaments: &mut ByTier<CreditTournament>, slots: usize) {
    let all = tournaments.all_mut();
    all.for_each(|(_, tournament)| tournament.grown(slots));
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
    /// None before the next pick makes them.
    duels: Duels,
    /// Where there are queues, the lines of their heads compete, else the lines of all backends.
    queues: Option<Box<Queues>>,
    /// For how many backends there is room where all compete.
    room: usize,
}

impl CreditTournament {
    /// Makes room for the slot that was added last, which is not eligible yet.
    fn grown(&mut self, slots: usize) {
        if self.queues.is_none() && slots > self.room {
            self.room = slots + slots / 8;
            self.duels = Duels::default();
        }
    }

    /// Decides on the lines that compete.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, seats: &[Seat], tier: u8) {
        self.queues = Queues::of(seats, tier).map(Box::new);
        self.duels = Duels::with_room(match &self.queues {
            Some(queues) => queues.heads().len(),
            None => {
                self.room = self.room.max(seats.len());
                self.room
            }
        });
    }

    /// The pick. Where a sum would go beyond its bounds, the lines start anew for it; not for one ahead, which must be taken back: there
    /// is none then.
    #[inline(always)]
    fn pick<const IS_AHEAD: bool>(&mut self, see: View<'_>) -> Option<Slot> {
        if self.duels.are_none() {
            self.begin(see.seats(), see.tier());
        }
        match self.queues.is_some() {
            true => self.pick_of_queues::<IS_AHEAD>(see),
            false => self.pick_of_all::<IS_AHEAD>(see),
        }
    }

    #[inline(never)]
    fn pick_of_all<const IS_AHEAD: bool>(&mut self, see: View<'_>) -> Option<Slot> {
        let seats = see.seats();
        let winner = self.duels.winner(seats, see.tier(), self.turns + 1);
        let Some(start) = self.lowered(see, winner) else {
            return if IS_AHEAD { None } else { self.pick_anew(see) };
        };
        let slot = winner.slot as Slot;
        seats[slot].set_credit(start);
        self.duels.winner_changes(slot);
        Some(slot)
    }

    #[inline(never)]
    fn pick_of_queues<const IS_AHEAD: bool>(&mut self, see: View<'_>) -> Option<Slot> {
        let queues = self.queues.as_mut()?;
        let winner = (self.duels).winner(queues.heads(), see.tier(), self.turns + 1);
        let Some(start) = self.lowered(see, winner) else {
            return if IS_AHEAD { None } else { self.pick_anew(see) };
        };
        let (slot, queues) = (winner.slot as Slot, self.queues.as_mut()?);
        let place = queues.picked(see.seats(), winner.weight, slot, start);
        self.duels.winner_changes(place);
        Some(slot)
    }

    /// Begins the next turn. Answers where the line of its winner starts then, unless that is beyond the bounds.
    #[inline(always)]
    fn lowered(&mut self, see: View<'_>, winner: Node) -> Option<i64> {
        let (turn, total) = (self.turns + 1, total(see));
        let credit = winner.at(turn);
        let is_bounded = is_far_within(credit) || is_within(credit, total);
        if !is_bounded || turn > TURNS_MAX {
            return None;
        }
        self.turns = turn;
        Some(winner.start - total)
    }

    /// The same pick, for which the lines start anew.
    #[cold]
    #[inline(never)]
    fn pick_anew(&mut self, see: View<'_>) -> Option<Slot> {
        let slot = pick_anew(see.seats(), see.tier(), self.turns + 1);
        self.turns = 0;
        self.duels = Duels::default();
        self.queues = None;
        slot
    }

    /// A backend's line is about to change.
    fn line_changes(&mut self, seats: &[Seat], slot: Slot) {
        if let Some(queues) = &mut self.queues
            && seats[slot].running_weight() > 0
        {
            self.duels.change(queues.leave(seats, slot));
        }
    }

    /// A backend's line has changed.
    fn line_changed(&mut self, seats: &[Seat], slot: Slot) {
        if self.duels.are_none() {
            return;
        }
        let Some(queues) = &mut self.queues else {
            self.duels.change(slot);
            return;
        };
        if seats[slot].running_weight() == 0 {
            return;
        }
        let place = queues.enter(seats, slot);
        if queues.are_many(seats.len()) {
            self.queues = None;
            self.duels = Duels::default();
        } else if place >= self.duels.room() {
            self.duels = Duels::with_room(place + place / 8 + 1);
        } else {
            self.duels.change(place);
        }
    }

    fn heap_bytes(&self) -> usize {
        let queues = |queues: &Queues| allocated(size_of::<Queues>()) + queues.heap_bytes();
        self.duels.heap_bytes() + self.queues.as_deref().map_or(0, queues)
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.duels.relocate(by);
        if let Some(queues) = &mut self.queues {
            queues.relocate(by);
        }
    }

    /// Panics where the queues or the duels are not sound. For the tests.
    fn check(&self, seats: &[Seat], tier: u8) {
        let turns = [self.turns, self.turns + 1];
        match &self.queues {
            _ if self.duels.are_none() => {}
            None => self.duels.check(seats, tier, turns),
            Some(queues) => {
                queues.check(seats, tier);
                self.duels.check(queues.heads(), tier, turns);
            }
        }
    }
}

/// The credit of a backend at that turn. One that takes no part has the same credit at all turns.
#[inline(always)]
fn at(seat: &Seat, turn: i64) -> i64 {
    seat.credit() + i64::from(seat.running_weight()) * turn
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

        fn credits(&self) -> Vec<i64> {
            let slots = 0..self.slots();
            slots.map(|slot| self.own.of(&self.field, slot)).collect()
        }

        fn turns(&self, tier: u8) -> i64 {
            self.own.get(tier).map_or(0, |t| t.turns)
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
        ("stairs", |i| {
            CREDIT_MAX - (i % 200) as i64 * (CREDIT_MAX / 100)
        }),
    ];

    const TIERS: usize = 2;

    /// Many weights, so that all backends compete; and few, so that there are queues.
    const KINDS: [(u16, u16); 2] = [(200, 200), (1200, 2)];

    fn at_the_bounds(side: Side, (backends, weights): (u16, u16)) -> Alone {
        let mut alone = Alone::of((0..backends).map(|i| 65_535 - i % weights));
        for slot in 0..alone.slots() {
            alone.run(slot, 0);
            alone.field.move_to_tier(slot, (slot % 4 / 2 % TIERS) as u8);
            alone.field.seats()[slot].set_credit(side(slot));
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
        for (kind, (side, credit)) in KINDS.into_iter().flat_map(|k| SIDES.map(|side| (k, side))) {
            let mut alone = at_the_bounds(credit, kind);
            let starts = starts_during(&mut alone, |alone| _ = alone.pick(), 10_000);
            assert!(starts <= 1, "{side}: {starts} in 10,000 picks");

            // Each backend that was picked stands aside, as in DISTINCT and at a limit, till all of each tier have.
            let mut alone = at_the_bounds(credit, kind);
            let aside = |alone: &mut Alone| {
                let slot = alone.pick();
                alone.run(slot, 0);
            };
            let all = alone.slots();
            let starts = starts_during(&mut alone, aside, all);
            assert!(starts <= 2 * TIERS, "{side}: {starts} in {all} picks");
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
        for (kind, (_, credit)) in KINDS.into_iter().flat_map(|k| SIDES.map(|side| (k, side))) {
            let mut alone = at_the_bounds(credit, kind);
            let before = alone.credits();
            let foreseen = alone.peek(500);
            assert_eq!(alone.credits(), before);
            let picked: Vec<Slot> = (0..500).map(|_| alone.pick()).collect();
            assert_eq!(foreseen, picked);
        }
    }

    /// The lines start anew after more picks than a test can make. So the lines of one pool are laid as if it had made them.
    #[test]
    fn that_the_lines_start_anew_is_not_seen() {
        for (size, weights) in [(20, 1000), (200, 1000), (600, 2u32)] {
            let weight = |i: u32| (1 + i * 7919 % weights) as u16;
            let mut early = Alone::of((0..size).map(weight));
            let mut late = early.clone();
            let turns = TURNS_MAX - 50;
            late.own.serving(View::of(&late.field, None)).turns = turns;
            for seat in late.field.seats() {
                seat.set_credit(seat.credit() - i64::from(seat.running_weight()) * turns);
            }
            for _ in 0..100 {
                assert_eq!(late.peek(5), early.peek(5));
                assert_eq!(late.pick(), early.pick());
                late.own.check(View::of(&late.field, None));
            }
            assert!(late.own.serving(View::of(&late.field, None)).turns < 100);
        }
    }

    /// The oracle is the same pool without queues.
    #[test]
    fn queues_change_no_sequence() {
        let mut chance = Chance::seeded(7);
        for (weights, heavier) in [(1, 0), (2, 3000), (3, 7)] {
            let weight = |slot: Slot| 1 + heavier * (slot as u32 % weights);
            let mut queued = Alone::of((0..900).map(|slot| weight(slot) as u16));
            let mut all = queued.clone();
            let slots = all.slots();
            let see = View::of(&all.field, None);
            all.own.serving(see).duels = Duels::with_room(slots);
            queued.pick();
            all.pick();
            let has_queues = |alone: &Alone| alone.own.all().all(|(_, t)| t.queues.is_some());
            assert!(has_queues(&queued) && !has_queues(&all));

            // Half of them go at some time and come back, so that some come before others that waited longer.
            let mut away = 0;
            for round in 0..6000 {
                let slot = chance.below(slots as u64) as Slot;
                let running = match (chance.below(12), round / 1000 % 2) {
                    (0..4, 0) | (0..2, _) => Some(0),
                    (4, _) if round > 5000 => Some(1 + round / 100),
                    (2..6, _) => Some(weight(slot)),
                    _ => None,
                };
                for alone in [&mut queued, &mut all] {
                    if let Some(running) = running {
                        alone.run(slot, running);
                    }
                    if round % 97 == 0 {
                        alone.own.check(alone.see());
                    }
                }
                away += usize::from(running == Some(0));
                if round % 50 == 0 {
                    assert_eq!(queued.peek(20), all.peek(20), "round {round}");
                    assert_eq!(queued.credits(), all.credits(), "round {round}");
                }
                assert_eq!(queued.pick(), all.pick(), "round {round}");
                assert!(round > 5000 || has_queues(&queued));
            }
            assert!(away > 1000);
            assert!(!has_queues(&queued), "there are too many weights");
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
