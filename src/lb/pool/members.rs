//! The commands of the operator: members, weights, states, the policy.

use super::backend::Backend;
use super::parts::Pool;
use crate::lb::account::QueueSettings;
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

/// How newcomers start.
#[derive(Clone, Copy, Debug)]
enum Start {
    Whole,
    Slow,
}

/// The effect of LB.ADD or LB.SET, in numbers of backends.
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
            && self.queue_settings() == QueueSettings::default()
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
        let replaced = self.add_all(&[(name, weight)]);
        match (replaced.added, replaced.reweighted) {
            (0, 0) => Added::Unchanged,
            (0, _) => Added::Reweighted,
            _ => Added::New,
        }
    }

    /// Does so with each of these, in which no name is twice. The newcomers start slowly or whole together: who holds half of the weight
    /// with the others must not leave it to the first one of them.
    pub fn add_all(&mut self, members: &[(&[u8], Option<u16>)]) -> Replaced {
        let mut replaced = Replaced::default();
        let start = self.start_of_newcomers(members);
        for &(name, weight) in members {
            match (self.roster.find(name), weight) {
                (None, _) => {
                    let slot = self.roster.add(name);
                    if let (Start::Slow, Some(account)) = (start, &mut self.account) {
                        account.slow(slot);
                    }
                    self.seat(slot, Seat::new(weight.unwrap_or(1)));
                    replaced.added += 1;
                }
                (Some(slot), Some(weight)) if self.reweight(slot, weight) => {
                    replaced.reweighted += 1;
                }
                (Some(_), _) => {}
            }
        }
        replaced
    }

    fn start_of_newcomers(&self, members: &[(&[u8], Option<u16>)]) -> Start {
        let account = self.account.as_ref().filter(|_| self.picks > 0);
        // Without a slow start nobody is looked up for it.
        let Some(account) = account.filter(|account| account.slows(0)) else {
            return Start::Whole;
        };
        let new = members
            .iter()
            .filter(|(name, _)| self.roster.find(name).is_none());
        let weights = new.map(|(_, weight)| u64::from(weight.unwrap_or(1)));
        match account.slows(weights.sum()) {
            true => Start::Slow,
            false => Start::Whole,
        }
    }

    /// Makes the members exactly this list, in which no name is twice. A backend that stays keeps its place and all else.
    pub fn set(&mut self, members: &[(&[u8], u16)]) -> Replaced {
        let mut stays = vec![false; self.roster.slots()];
        for &(name, _) in members {
            if let Some(slot) = self.roster.find(name) {
                stays[slot] = true;
            }
        }
        let leaving: Vec<Slot> = self.roster.members().filter(|slot| !stays[*slot]).collect();
        let removed = leaving.len();
        leaving.into_iter().for_each(|slot| self.vacate(slot));
        self.clear_all_if_old();
        self.close_gaps();
        let members = members.iter().map(|(name, weight)| (*name, Some(*weight)));
        let members: Vec<_> = members.collect();
        Replaced {
            removed,
            ..self.add_all(&members)
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::account::HealthSettings;

    fn weights(pool: &Pool) -> Vec<u32> {
        let running = |(slot, _)| pool.running_weight(slot);
        pool.slots()
            .map(running)
            .map(|(w, unit)| w * 10 / unit)
            .collect()
    }

    /// Else the first two of those that replace all others get nearly all requests.
    #[test]
    fn newcomers_of_one_command_start_slowly_or_whole_together() {
        let mut pool = Pool::new();
        pool.set(&[(b"a", 1), (b"b", 1)]);
        pool.set_health(HealthSettings {
            slow_start: 1000,
            ..HealthSettings::default()
        });
        pool.pick(None);
        let mut replaced = pool.clone();
        replaced.set(&[(b"c", 1), (b"d", 1), (b"e", 1), (b"f", 1)]);
        assert_eq!(weights(&replaced), [10, 10, 10, 10]);
        let mut grown = pool.clone();
        grown.add_all(&[
            (b"c", None),
            (b"a", Some(1)),
            (b"d", Some(1)),
            (b"e", Some(1)),
        ]);
        assert_eq!(weights(&grown), [10, 10, 10, 10, 10]);
        pool.add_all(&[(b"a", Some(10)), (b"c", None)]);
        assert_eq!(weights(&pool), [100, 10, 1]);
        pool.add_all(&[(b"d", Some(2)), (b"e", Some(3))]);
        assert_eq!(weights(&pool), [100, 10, 1, 2, 3]);
    }
}
