//! Least connections: the backend with the fewest leases for its weight, over the whole fleet.
//!
//! The measure is (leases + 1) / weight, as in nginx's `least_conn` and the `sed` of LVS: the lease that is to come is
//! counted in. Among equals the one that this algorithm picked longest ago is taken (of those that it never picked the
//! earliest added), so that it goes round where all are idle. It wins over weighted round robin where requests differ
//! much in length.
//!
//! Exact, in O(log n): a tournament of eights, in which a change of one backend replays its own path. A heap would do
//! as well for picking, but not with backends that are passed over for one command.

use super::by_tier::ByTier;
use super::own::{Before, Own, Pick};
use super::view::View;
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
        tournament.leader(see, last, tier)
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
            tournament.replay(see, &self.last, tier, slot);
        }
    }

    fn gaps_close(&mut self, _: &Field) {
        self.tournaments = ByTier::default();
    }

    fn check(&self, see: View<'_>) {
        for (tier, tournament) in self.tournaments.all() {
            let again = LoadTournament::of(see, &self.last, *tier);
            assert_eq!(tournament.levels, again.levels);
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
#[derive(Clone, Debug, Default)]
struct LoadTournament {
    /// The leader of each eight of slots, of each eight of those, and so on until at most eight are left.
    levels: Vec<Vec<u32>>,
}

/// None of eight is eligible.
const NOBODY: u32 = u32::MAX;

impl LoadTournament {
    /// The tournament of that tier.
    fn of(see: View<'_>, last: &[u64], tier: u8) -> LoadTournament {
        let mut tournament = LoadTournament::default();
        let mut entries = see.seats().len();
        while entries > FAN {
            entries = entries.div_ceil(FAN);
            let level = tournament.levels.len();
            let nodes = (0..entries).map(|at| tournament.winner(see, last, tier, level, at));
            let nodes = nodes.collect();
            tournament.levels.push(nodes);
        }
        tournament
    }

    /// Makes room for the slot that was added last, which is not eligible yet; false where another level is needed, and
    /// all must be played.
    fn grown(&mut self, slots: usize) -> bool {
        let mut entries = slots;
        for level in &mut self.levels {
            entries = entries.div_ceil(FAN);
            if level.len() < entries {
                level.push(NOBODY);
            }
        }
        entries <= FAN
    }

    /// The measure of the backend of that slot has changed.
    fn replay(&mut self, see: View<'_>, last: &[u64], tier: u8, slot: Slot) {
        let mut at = slot;
        for level in 0..self.levels.len() {
            at /= FAN;
            self.levels[level][at] = self.winner(see, last, tier, level, at);
        }
    }

    fn leader(&self, see: View<'_>, last: &[u64], tier: u8) -> Slot {
        self.winner(see, last, tier, self.levels.len(), 0) as Slot
    }

    /// The leader of the group `at` of those on the level below this one.
    fn winner(&self, see: View<'_>, last: &[u64], tier: u8, level: usize, at: usize) -> u32 {
        let seats = see.seats();
        let from = at * FAN;
        let entries = match level.checked_sub(1) {
            Some(below) => self.levels[below].len(),
            None => seats.len(),
        };
        let group = (from..entries.min(from + FAN)).map(|entry| match level.checked_sub(1) {
            Some(below) => self.levels[below][entry],
            None if seats[entry].running_in(tier).is_some() => entry as u32,
            None => NOBODY,
        });
        let eligible = group.filter(|slot| *slot != NOBODY);
        let first = eligible.min_by(|a, b| {
            let [a, b] = [*a as Slot, *b as Slot];
            see.by_load(a, b).then_with(|| last[a].cmp(&last[b]))
        });
        first.unwrap_or(NOBODY)
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.levels);
        self.levels.iter_mut().for_each(|level| by.vec(level));
    }

    fn heap_bytes(&self) -> usize {
        buffer(&self.levels) + self.levels.iter().map(buffer).sum::<usize>()
    }
}
