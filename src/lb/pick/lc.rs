//! Least connections: the backend with the fewest leases for its weight, over the whole fleet.
//!
//! The measure is (leases + 1) / weight, as in nginx's `least_conn` and the `sed` of LVS: the lease that is to come is
//! counted in. Among equals the one that this algorithm picked longest ago is taken (of those that it never picked the
//! earliest added), so that it goes round where all are idle. It wins over weighted round robin where requests differ
//! much in length.
//!
//! Exact, in O(log n): a tournament of eights, in which a change of one backend replays its own path, up to where it changes
//! nothing any more. A heap would do as well for picking, but not with backends that are passed over for one command.

use std::cmp::Ordering;

use super::by_tier::ByTier;
use super::own::{Before, Own, Pick};
use super::tournament::{NOBODY, grow};
use super::view::{Load, View};
use crate::lb::field::{FAN, Field};
use crate::lb::ground::bounds::{COUNTER_MAX, Slot, counted};
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, buffer};
use crate::lb::ground::saved::{Malformed, Reader, Writer};

pub struct LeastConnections;

impl Pick for LeastConnections {
    const NAME: &'static str = "lc";
    const CODE: u8 = 5;
    type Own = Option<Box<Turns>>;

    fn pick(own: &mut Self::Own, see: View<'_>, _: &mut Chance) -> Slot {
        let own = own.get_or_insert_with(|| Box::new(Turns::of(see.seats().len())));
        let slot = own.leader(see);
        let turn = counted(own.turns);
        own.picked(see, slot, turn, turn);
        slot
    }

    fn pick_ahead(own: &mut Self::Own, see: View<'_>) -> Option<(Slot, Before)> {
        let own = own.get_or_insert_with(|| Box::new(Turns::of(see.seats().len())));
        let turn = counted(own.turns);
        if turn == COUNTER_MAX {
            return None;
        }
        let slot = own.leader(see);
        let before = own.last[slot];
        own.picked(see, slot, turn, turn);
        Some((slot, before))
    }

    fn take_back(own: &mut Self::Own, see: View<'_>, slot: Slot, before: Before) {
        if let Some(own) = own {
            own.picked(see, slot, own.turns - 1, before);
        }
    }
}

/// The turns of this algorithm: how many there were, and when each backend had its last one.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    /// How many picks it has made.
    turns: u64,
    /// When it picked each slot last, in its own picks.
    last: Vec<u64>,
    tournaments: ByTier<LoadTournament>,
}

impl Turns {
    /// The turns of a pool with this number of slots, before the first pick.
    pub fn of(slots: usize) -> Turns {
        Turns {
            last: vec![0; slots],
            ..Turns::default()
        }
    }

    /// How many picks it has made.
    pub fn made(&self) -> u64 {
        self.turns
    }

    /// Reads how many picks it has made.
    pub fn load(slots: usize, from: &mut Reader) -> Result<Turns, Malformed> {
        Ok(Turns {
            turns: from.number("turns", COUNTER_MAX)?,
            ..Turns::of(slots)
        })
    }

    /// Writes when it picked a slot last.
    pub fn save_last(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.last[slot]);
    }

    /// Reads when it picked a slot last.
    pub fn load_last(&mut self, slot: Slot, from: &mut Reader) -> Result<(), Malformed> {
        self.last[slot] = from.number("turn", self.turns)?;
        Ok(())
    }

    fn leader(&mut self, see: View<'_>) -> Slot {
        let (last, tier) = (&self.last, see.tier());
        let make = || LoadTournament::of(see, last, tier);
        let tournament = self.tournaments.serving(tier, see.seats(), make);
        tournament.leader(last)
    }

    fn picked(&mut self, see: View<'_>, slot: Slot, turns: u64, last: u64) {
        self.turns = turns;
        self.last[slot] = last;
        self.load_changed(see, slot);
    }
}

impl Own for Turns {
    fn weight_changed(&mut self, see: View<'_>, slot: Slot) {
        self.load_changed(see, slot);
    }

    fn load_changed(&mut self, see: View<'_>, slot: Slot) {
        let tier = see.seats()[slot].tier();
        if let Some(tournament) = self.tournaments.get_mut(tier) {
            tournament.replay(see.load(tier, slot), &self.last, slot);
        }
    }

    fn gaps_close(&mut self, _: &Field) {
        self.tournaments = ByTier::default();
    }

    fn check(&self, see: View<'_>) {
        for (tier, tournament) in self.tournaments.all() {
            let again = LoadTournament::of(see, &self.last, *tier);
            assert_eq!(*tournament, again);
        }
    }
}

impl Kept for Turns {
    fn grown(&mut self, slots: usize) {
        self.last.resize(slots, 0);
        self.tournaments
            .retain(|tournament| tournament.grown(slots));
    }

    fn forget(&mut self, slot: Slot) {
        self.last[slot] = 0;
    }

    fn renumber(&mut self, gaps: &Gaps) {
        gaps.close(&mut self.last);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.last);
        self.tournaments.relocate(by, LoadTournament::relocate);
    }

    fn heap_bytes(&self) -> usize {
        buffer(&self.last) + self.tournaments.heap_bytes(LoadTournament::heap_bytes)
    }
}

/// The tournament of the eligible backends of a tier. Up to eight backends have no levels: they are simply compared.
#[derive(Clone, Debug, Default, PartialEq)]
struct LoadTournament {
    /// The load of each slot, again: so eight neighbours lie in one cache line.
    loads: Vec<Load>,
    /// The leader of each eight of slots, of each eight of those, and so on until at most eight are left.
    levels: Vec<Vec<u32>>,
}

impl LoadTournament {
    /// The tournament of that tier.
    fn of(see: View<'_>, last: &[u64], tier: u8) -> LoadTournament {
        let slots = 0..see.seats().len();
        let mut tournament = LoadTournament {
            loads: slots.map(|slot| see.load(tier, slot)).collect(),
            levels: Vec::new(),
        };
        let mut entries = tournament.loads.len();
        while entries > FAN {
            entries = entries.div_ceil(FAN);
            let level = tournament.levels.len();
            let nodes = (0..entries).map(|at| tournament.winner(last, level, at));
            let nodes = nodes.collect();
            tournament.levels.push(nodes);
        }
        tournament
    }

    /// Makes room for the slot that was added last, which is not eligible yet; false where another level is needed, and
    /// all must be played.
    fn grown(&mut self, slots: usize) -> bool {
        self.loads.resize(slots, Load::INFINITE);
        grow(&mut self.levels, slots)
    }

    /// The measure of the backend of that slot has changed.
    ///
    /// All eight of a group are compared only if its leader came from below. Else that leader is still ahead of all the others,
    /// and meets the new one from below. Above a group that another backend leads, as before, nothing changes.
    fn replay(&mut self, load: Load, last: &[u64], slot: Slot) {
        self.loads[slot] = load;
        let (slot, mut at) = (slot as u32, slot);
        let mut was_from_below = slot;
        let mut from_below = if load.is_finite() { slot } else { NOBODY };
        for level in 0..self.levels.len() {
            at /= FAN;
            let before = self.levels[level][at];
            let leader = if before == was_from_below {
                self.winner(last, level, at)
            } else if self.is_ahead(last, from_below, before) {
                from_below
            } else {
                before
            };
            if leader == before && before != slot {
                return;
            }
            self.levels[level][at] = leader;
            (was_from_below, from_below) = (before, leader);
        }
    }

    fn leader(&self, last: &[u64]) -> Slot {
        self.winner(last, self.levels.len(), 0) as Slot
    }

    /// The leader of the group `at` of those on the level below this one.
    fn winner(&self, last: &[u64], level: usize, at: usize) -> u32 {
        let from = at * FAN;
        let group = |entries: usize| from..entries.min(from + FAN);
        match level.checked_sub(1) {
            Some(below) => {
                let leaders = &self.levels[below][group(self.levels[below].len())];
                let leaders = leaders.iter().filter(|leader| **leader != NOBODY);
                first(leaders.map(|slot| (*slot, self.loads[*slot as Slot])), last)
            }
            None => {
                let loads = &self.loads[group(self.loads.len())];
                first((from as u32..).zip(loads.iter().copied()), last)
            }
        }
    }

    /// Whether one backend, or nobody, is ahead of another, or of nobody.
    fn is_ahead(&self, last: &[u64], one: u32, other: u32) -> bool {
        match (one, other) {
            (NOBODY, _) => false,
            (_, NOBODY) => true,
            _ => {
                let loads = [one, other].map(|slot| self.loads[slot as Slot]);
                let turns = [one, other].map(|slot| (last[slot as Slot], slot));
                let by_load = loads[0].compare(loads[1]);
                by_load.then_with(|| turns[0].cmp(&turns[1])).is_lt()
            }
        }
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.loads);
        by.vec(&mut self.levels);
        self.levels.iter_mut().for_each(|level| by.vec(level));
    }

    fn heap_bytes(&self) -> usize {
        let levels = self.levels.iter().map(buffer).sum::<usize>();
        buffer(&self.loads) + buffer(&self.levels) + levels
    }
}

/// The one with the lowest load, of those the one whose last turn is longest ago, of those the first.
#[inline(always)]
fn first(mut backends: impl Iterator<Item = (u32, Load)>, last: &[u64]) -> u32 {
    let Some((mut first, mut lowest)) = backends.next() else {
        return NOBODY;
    };
    for (slot, load) in backends {
        let is_ahead = match load.compare(lowest) {
            Ordering::Less => true,
            Ordering::Equal => last[slot as Slot] < last[first as Slot],
            Ordering::Greater => false,
        };
        if is_ahead {
            (first, lowest) = (slot, load);
        }
    }
    if lowest.is_finite() { first } else { NOBODY }
}
