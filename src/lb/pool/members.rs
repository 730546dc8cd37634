//! The commands of the operator: members, weights, states, the policy.

use super::backend::Backend;
use super::parts::Pool;
use crate::lb::field::{Seat, State};
use crate::lb::ground::bounds::Slot;
use crate::lb::pick::Algorithm;

/// The effect of LB.ADD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// A backend that was not there.
    New,
    /// A backend that was there has another weight now.
    Reweighted,
    /// It was there, and so it stays.
    Unchanged,
}

/// The effect of LB.SET, in numbers of backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Those that are new.
    pub added: usize,
    /// Those that are gone.
    pub removed: usize,
    /// Those that stayed, with another weight.
    pub reweighted: usize,
}

impl Pool {
    /// How many backends there are.
    pub fn len(&self) -> usize {
        self.roster.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing would be lost with the pool: no backends, and no setting that is not the default.
    pub fn is_void(&self) -> bool {
        let is_limited = self.account.as_ref().is_some_and(|a| a.limits_pool());
        self.is_empty()
            && self.owns.policy == Algorithm::WRR
            && !is_limited
            && !self.has_health_settings()
    }

    /// The backends in order of addition.
    pub fn backends(&self) -> impl Iterator<Item = Backend<'_>> {
        self.slots().map(|(_, backend)| backend)
    }

    /// The backend of that name.
    pub fn backend(&self, name: &[u8]) -> Option<Backend<'_>> {
        let slot = self.slot(name)?;
        Some(Backend::of(self.roster.card(slot), &self.field, slot))
    }

    /// The slot of the backend of that name, as it is until the pool changes.
    pub fn slot(&self, name: &[u8]) -> Option<Slot> {
        self.roster.find(name)
    }

    /// The backends in order of addition, with their slots.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, Backend<'_>)> {
        let members = self.roster.members();
        members.map(|slot| (slot, Backend::of(self.roster.card(slot), &self.field, slot)))
    }

    /// The name of a backend that was just picked.
    #[inline]
    pub fn name(&self, slot: Slot) -> &[u8] {
        self.roster.name(slot)
    }

    /// Adds a backend, with weight 1 unless another is given, or gives one that is there that weight.
    pub fn add(&mut self, name: &[u8], weight: Option<u16>) -> Added {
        let Some(slot) = self.roster.find(name) else {
            let slot = self.roster.add(name);
            self.seat(slot, Seat::new(weight.unwrap_or(1)));
            return Added::New;
        };
        match weight {
            Some(weight) if self.reweight(slot, weight) => Added::Reweighted,
            _ => Added::Unchanged,
        }
    }

    /// Makes the members exactly this list, in which no name is twice. A backend that stays keeps its place and all else.
    pub fn set(&mut self, members: &[(&[u8], u16)]) -> Replaced {
        let mut replaced = Replaced::default();
        let mut stays = vec![false; self.roster.slots()];
        for &(name, _) in members {
            if let Some(slot) = self.roster.find(name) {
                stays[slot] = true;
            }
        }
        let leaving: Vec<Slot> = self.roster.members().filter(|slot| !stays[*slot]).collect();
        replaced.removed = leaving.len();
        leaving.into_iter().for_each(|slot| self.vacate(slot));
        self.clear_all_if_old();
        self.close_gaps();
        for &(name, weight) in members {
            match self.add(name, Some(weight)) {
                Added::New => replaced.added += 1,
                Added::Reweighted => replaced.reweighted += 1,
                Added::Unchanged => {}
            }
        }
        replaced
    }

    /// Removes a backend; false where it is not there.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(slot) = self.roster.find(name) else {
            return false;
        };
        self.vacate(slot);
        self.clear_all_if_old();
        self.close_gaps();
        true
    }

    /// Gives each of these backends that weight, and answers how many had another one. If the pool lacks one of them, it changes
    /// none and answers the place of that one in the list.
    pub fn set_weights(&mut self, weights: &[(&[u8], u16)]) -> Result<usize, usize> {
        let slots: Vec<Slot> = (weights.iter().enumerate())
            .map(|(i, (name, _))| self.roster.find(name).ok_or(i))
            .collect::<Result<_, _>>()?;
        let pairs = slots.into_iter().zip(weights);
        Ok(pairs
            .filter(|&(slot, &(_, weight))| self.reweight(slot, weight))
            .count())
    }

    /// Puts a backend in or out of service; answers whether that changed anything, or nothing where it is not there. `Down`
    /// ends its leases. `Up` also ends its ejection, and lets it cool no longer.
    pub fn set_state(&mut self, name: &[u8], state: State) -> Option<bool> {
        let slot = self.roster.find(name)?;
        let changed = self.field.seats()[slot].state != state;
        self.field.set_state(slot, state);
        self.follow(slot);
        self.refresh(slot);
        let is_restored = state == State::Up && self.restore(slot);
        if state == State::Down
            && let Some(account) = &mut self.account
        {
            account.end_on(slot);
            self.clear_all_if_old();
        }
        Some(changed || is_restored)
    }

    /// Whether a backend can be moved to that tier. Of the tiers that there can be, 0 is always kept for newcomers.
    pub fn has_room_for_tier(&self, tier: u8) -> bool {
        self.field.has_room_for_tier(tier)
    }

    /// The algorithm of picks that name none.
    pub fn policy(&self) -> Algorithm {
        self.owns.policy
    }

    /// Sets the policy; answers whether that changed anything.
    pub fn set_policy(&mut self, policy: Algorithm) -> bool {
        let before = self.owns.policy;
        self.owns.policy = policy;
        // A crafted payload may have the policy and no latencies.
        let heeds = self.heed_latencies_for(Some(policy));
        heeds || policy != before
    }
}
