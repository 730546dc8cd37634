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
use crate::lb::ground::kept::Kept;
use crate::lb::ground::memory::{Mover, allocated, buffer};
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

    #[inline(always)]
    fn pick_if_any(own: &mut Credits, see: View<'_>, _: &mut Chance) -> Option<Slot> {
        match are_few(see) {
            true => pick_anew(see, 1),
            false if see.has_eligible() => pick_of_many(own, see),
            false => None,
        }
    }

    fn pick_ahead(own: &mut Credits, see: View<'_>) -> Option<(Slot, Before)> {
        if !are_few(see) {
            return own.serving(see).pick(see).map(|slot| (slot, 0));
        }
        let (leader, highest, total) = rise(see, 1);
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
        seat.set_credit(seat.credit() + total(see));
        let tournament = own.serving(see);
        tournament.turns -= 1;
        tournament.change(slot);
    }
}

/// Apart from the pick of a few, which so needs no registers to be saved.
#[inline(never)]
fn pick_of_many(own: &mut Credits, see: View<'_>) -> Option<Slot> {
    let tournament = own.serving(see);
    (tournament.pick(see)).or_else(|| tournament.pick_anew(see))
}

/// Up to eight backends play no tournament: they are simply compared, and their lines start anew with each pick.
#[inline(always)]
fn are_few(see: View<'_>) -> bool {
    see.seats().len() <= FAN
}

/// The pick at that turn, if there is an eligible backend. The lines start anew. Where a sum would pass its bounds, all credits move by one
/// amount, so that the leader stands at 0 when it is picked: their order stays, save among those that would fall below
/// the lower bound, where they stop. O(n), but among many it comes once in 2^20 picks at most as long as no backend joins: then no
/// credit is above 0, and a pick lowers the leader by 2^40 at most. (With running weights in units of 1/256 it is
/// once in 2^12.) Rejected: that each sum saturates. Where all stand at a bound the next pick would pass it again, and
/// each pick is O(n).
#[inline(always)]
fn pick_anew(see: View<'_>, turn: i64) -> Option<Slot> {
    let (leader, highest, total) = rise(see, turn);
    let seats = see.seats();
    if !is_within(highest, total) {
        if highest == i64::MIN {
            return None;
        }
        lower(seats, see.tier(), highest);
    }
    let leading = &seats[leader];
    leading.set_credit(leading.credit() - total);
    Some(leader)
}

/// Makes the credits of those that run plain numbers, those at that turn. Answers the leader, its credit, and the sum of the weights.
#[inline(always)]
fn rise(see: View<'_>, turn: i64) -> (Slot, i64, i64) {
    let (seats, tier) = (see.seats(), see.tier());
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

#[cold]
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

    /// Multiplies the credit of a backend that takes no part, because all running weights are multiplied.
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
        let credit: i64 = from.get()?;
        let credits = -CREDIT_MAX..=CREDIT_MAX;
        checked("backend's credit", credit, credits.contains(&credit))
    }

    fn get(&self, tier: u8) -> Option<&CreditTournament> {
        self.0.as_ref()?.get(tier)
    }

    fn all(&self) -> impl Iterator<Item = &(u8, CreditTournament)> {
        self.0.iter().flat_map(|tournaments| tournaments.all())
    }

    /// The tournament of the tier that serves. There are many backends.
    #[inline(always)]
    fn serving(&mut self, see: View<'_>) -> &mut CreditTournament {
        let seats = see.seats();
        let make = || CreditTournament::of(seats.len());
        let tournaments = self.0.get_or_insert_default();
        tournaments.serving(see.tier(), seats, make)
    }
}

impl Own for Credits {
    /// Makes the credit a plain number. A backend without weight has a flat line, so for it that is all.
    fn weight_changes(&mut self, field: &Field, slot: Slot) {
        field.seats()[slot].set_credit(self.of(field, slot));
    }

    fn weight_changed(&mut self, see: View<'_>, slot: Slot) {
        let seat = &see.seats()[slot];
        let tournaments = self.0.as_mut();
        if let Some(tournament) = tournaments.and_then(|all| all.get_mut(seat.tier())) {
            let grown = i64::from(seat.running_weight()) * tournament.turns;
            seat.set_credit(seat.credit() - grown);
            tournament.change(slot);
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
    fn gaps_close(&mut self, field: &Field) {
        for slot in 0..field.seats().len() {
            self.weight_changes(field, slot);
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
    fn grown(&mut self, slots: usize) {
        if let Some(tournaments) = &mut self.0 {
            let all = tournaments.all_mut();
            all.for_each(|(_, tournament)| tournament.grown(slots));
        }
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        if let Some(tournaments) = &mut self.0 {
            tournaments.relocate(by, |tournament, by| by.vec(&mut tournament.duels));
        }
    }

    fn heap_bytes(&self) -> usize {
        (self.0.as_ref()).map_or(0, |tournaments| {
            allocated(size_of::<ByTier<CreditTournament>>())
                + tournaments.heap_bytes(|t| buffer(&t.duels))
        })
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
    /// nodes are over the eights of backends in order, the last ones over none yet.
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
        self.duels = vec![[UNPLAYED; 2]; eights];
    }

    /// The pick, unless a sum would go beyond its bounds.
    fn pick(&mut self, see: View<'_>) -> Option<Slot> {
        let (seats, total) = (see.seats(), total(see));
        let (slot, credit) = self.winner(seats, see.tier(), self.turns + 1);
        if !is_within(credit, total) || self.turns >= TURNS_MAX {
            return None;
        }
        seats[slot].set_credit(seats[slot].credit() - total);
        self.turns += 1;
        // Whatever had changed before was played just now.
        self.changed = slot as u32;
        Some(slot)
    }

    /// The same pick, for which the lines start anew.
    #[cold]
    #[inline(never)]
    fn pick_anew(&mut self, see: View<'_>) -> Option<Slot> {
        let slot = pick_anew(see, self.turns + 1);
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
    fn winner(&mut self, seats: &[Seat], tier: u8, turn: i64) -> (Slot, i64) {
        if i64::from(self.played) > turn {
            self.forget(1, turn);
        }
        self.played = turn as u32;
        let mut at = self.over(self.changed as Slot);
        let mut node = Node::of_eight(at - self.duels.len(), seats, tier, turn);
        while at > 1 {
            let duel = &mut self.duels[at / 2];
            duel[at % 2] = node;
            if !duel[1 - at % 2].holds(turn) {
                self.play(at ^ 1, seats, tier, turn);
            }
            at /= 2;
            node = Node::of_duel(&self.duels[at], turn);
        }
        (node.slot as Slot, node.at(turn))
    }

    /// Plays a node for that turn, after those below it that do not hold.
    fn play(&mut self, at: usize, seats: &[Seat], tier: u8, turn: i64) {
        *self.node(at) = match at.checked_sub(self.duels.len()) {
            Some(eight) => Node::of_eight(eight, seats, tier, turn),
            None => {
                for below in [2 * at, 2 * at + 1] {
                    if !self.node(below).holds(turn) {
                        self.play(below, seats, tier, turn);
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
    fn check(&self, seats: &[Seat], tier: u8) {
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
            let group: Vec<Seat> = slots[at].iter().map(|slot| seats[*slot].clone()).collect();
            for turn in [self.turns, self.turns + 1] {
                if i64::from(node.played) > turn || !node.holds(turn) {
                    continue;
                }
                let (leader, credit) = leading(&group, tier, turn);
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
    fn of_eight(eight: usize, seats: &[Seat], tier: u8, turn: i64) -> Node {
        let played = turn as u32;
        let seats = seats.chunks(FAN).nth(eight).unwrap_or_default();
        let (leader, highest) = leading(seats, tier, turn);
        if highest == i64::MIN {
            return Node { played, ..EMPTY };
        }
        Node {
            start: seats[leader].credit(),
            weight: seats[leader].running_weight(),
            slot: (eight * FAN + leader) as u32,
            played,
            expires: overtaken(seats, tier, leader),
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
fn at(seat: &Seat, turn: i64) -> i64 {
    seat.credit() + i64::from(seat.running_weight()) * turn
}

/// The backend of that tier with the highest credit at that turn, and this credit.
#[expect(clippy::needless_range_loop, reason = "an iterator costs more here")]
#[inline(always)]
fn leading(seats: &[Seat], tier: u8, turn: i64) -> (usize, i64) {
    let (mut leader, mut highest) = (0, i64::MIN);
    for at in 0..seats.len() {
        if let Some(weight) = seats[at].running_in(tier) {
            let credit = seats[at].credit() + i64::from(weight) * turn;
            if credit > highest {
                (leader, highest) = (at, credit);
            }
        }
    }
    (leader, highest)
}

/// The first turn at which another of these backends leads than the one that leads now.
#[inline(always)]
fn overtaken(seats: &[Seat], tier: u8, leader: usize) -> u32 {
    let mut end = i64::from(NEVER);
    let (start, weight) = (
        seats[leader].credit(),
        i64::from(seats[leader].running_weight()),
    );
    for (at, seat) in seats.iter().enumerate() {
        let gain = (seat.running_in(tier)).map_or(0, |own| i64::from(own) - weight);
        if gain <= 0 {
            continue;
        }
        // At equal credit the one that was added first leads.
        let lead = start - seat.credit() - i64::from(at < leader);
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
        ("stairs", |i| CREDIT_MAX - (i as i64) * (CREDIT_MAX / 100)),
    ];

    const TIERS: usize = 2;

    fn at_the_bounds(side: Side) -> Alone {
        let mut alone = Alone::of((0..200).map(|i| 65_535 - i));
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
        for size in [20, 200u32] {
            let weight = |i: u32| (1 + i * 7919 % 1000) as u16;
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
