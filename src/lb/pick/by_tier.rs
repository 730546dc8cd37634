//! One thing for each tier, made when the tier first serves.

use crate::lb::field::Seat;
use crate::lb::ground::bounds::TIERS_MAX;
use crate::lb::ground::memory::{Mover, allocated, buffer};

/// One thing for each tier that was picked from. That of the tier that served last is at hand.
#[derive(Clone, Debug)]
pub struct ByTier<T> {
    at_hand: Option<(u8, T)>,
    others: Others<T>,
}

/// In a box, so that a pool of one tier pays 8 bytes for the others, not 24.
type Others<T> = Option<Box<Vec<(u8, T)>>>;

impl<T> Default for ByTier<T> {
    fn default() -> ByTier<T> {
        ByTier {
            at_hand: None,
            others: None,
        }
    }
}

impl<T> ByTier<T> {
    /// The one of this tier, if it is at hand.
    #[inline(always)]
    pub fn at_hand(&mut self, tier: u8) -> Option<&mut T> {
        match &mut self.at_hand {
            Some((at_hand, thing)) if *at_hand == tier => Some(thing),
            _ => None,
        }
    }

    /// The one of the tier that serves.
    pub fn serving(&mut self, tier: u8, seats: &[Seat], make: impl FnOnce() -> T) -> &mut T {
        if self.at_hand(tier).is_none() {
            self.fetch(tier, seats, make);
        }
        match &mut self.at_hand {
            Some((_, thing)) => thing,
            None => unreachable!("it was just put there"),
        }
    }

    #[cold]
    fn fetch(&mut self, tier: u8, seats: &[Seat], make: impl FnOnce() -> T) {
        let others = self.others.as_deref_mut();
        let other = others.and_then(|others| others.iter_mut().find(|(t, _)| *t == tier));
        match (other, &mut self.at_hand) {
            (Some(other), Some(at_hand)) => std::mem::swap(other, at_hand),
            (None, None) => self.at_hand = Some((tier, make())),
            (_, at_hand) => {
                let before = at_hand.replace((tier, make()));
                let others = self.others.get_or_insert_default();
                others.extend(before);
                if others.len() >= TIERS_MAX {
                    // A tier in which no backend takes part has nothing to remember.
                    let is_running = |tier| seats.iter().any(|s| s.running_in(tier).is_some());
                    others.retain(|(tier, _)| is_running(*tier));
                }
            }
        }
    }

    /// The one of a tier, if there is one.
    pub fn get(&self, tier: u8) -> Option<&T> {
        let mut all = self.all();
        all.find(|(t, _)| *t == tier).map(|(_, thing)| thing)
    }

    /// As [`ByTier::get`], to change it.
    pub fn get_mut(&mut self, tier: u8) -> Option<&mut T> {
        let mut all = self.all_mut();
        all.find(|(t, _)| *t == tier).map(|(_, thing)| thing)
    }

    /// All of them, with their tiers.
    pub fn all(&self) -> impl Iterator<Item = &(u8, T)> {
        let others = self.others.iter().flat_map(|others| others.iter());
        self.at_hand.iter().chain(others)
    }

    /// As [`ByTier::all`], to change them.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut (u8, T)> {
        let others = self.others.iter_mut().flat_map(|others| others.iter_mut());
        self.at_hand.iter_mut().chain(others)
    }

    /// Drops those for which this answers false. They are made anew when their tiers serve again.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.at_hand.take_if(|(_, thing)| !keep(thing));
        if let Some(others) = &mut self.others {
            others.retain_mut(|(_, thing)| keep(thing));
        }
    }

    /// Lets the mover move the list, and all that this leads it to.
    pub fn relocate<M: Mover>(&mut self, by: &mut M, each: impl Fn(&mut T, &mut M)) {
        if let Some(others) = &mut self.others {
            by.vec(others);
        }
        self.all_mut().for_each(|(_, thing)| each(thing, by));
    }

    /// How many bytes it takes on the heap, with those of each.
    pub fn heap_bytes(&self, each: impl Fn(&T) -> usize) -> usize {
        let others = (self.others.as_ref()).map_or(0, |others| {
            allocated(size_of::<Vec<(u8, T)>>()) + buffer(others)
        });
        others + self.all().map(|(_, thing)| each(thing)).sum::<usize>()
    }
}
