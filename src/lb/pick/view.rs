//! The view of a pool that an algorithm has.

use std::cmp::Ordering;

use crate::lb::account::{Account, Bound, Outages};
use crate::lb::field::{Field, Seat};
use crate::lb::ground::bounds::Slot;
use crate::lb::roster::Card;

/// The backends and their leases. An algorithm can look, and cannot change anything, save wrr the credits.
#[derive(Clone, Copy)]
pub struct View<'a> {
    field: &'a Field,
    /// They are found once for a pick, or for a hundred.
    seats: &'a [Seat],
    account: Option<&'a Account>,
    /// None in a pick by an algorithm that goes by no item.
    asked: Option<&'a Asked<'a>>,
}

/// An item that a pick asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub item: &'a [u8],
    /// Of all slots: an item and a name decide.
    pub cards: &'a [Card],
    /// The public hashes of the names in these slots; empty where there are few.
    pub hashes: &'a [u64],
}

impl<'a> View<'a> {
    /// The view of these parts of a pool.
    #[inline(always)]
    pub fn of(field: &'a Field, account: Option<&'a Account>) -> View<'a> {
        View {
            field,
            seats: field.seats(),
            account,
            asked: None,
        }
    }

    /// The same, for a pick that asks for an item.
    pub fn for_item(self, asked: &'a Asked<'a>) -> View<'a> {
        let asked = Some(asked);
        View { asked, ..self }
    }

    /// The item that is asked for, if one is.
    pub fn asked(self) -> Option<&'a Asked<'a>> {
        self.asked
    }

    /// All seats in order of addition.
    #[inline(always)]
    pub fn seats(self) -> &'a [Seat] {
        self.seats
    }

    /// The tier that serves. Only its backends are picked.
    #[inline(always)]
    pub fn tier(self) -> u8 {
        self.field.serving()
    }

    /// How many backends are eligible. In a pick there is at least one.
    #[inline(always)]
    pub fn eligible(self) -> u32 {
        self.field.eligible().count
    }

    /// Whether there is one.
    #[inline(always)]
    pub fn has_eligible(self) -> bool {
        self.field.has_eligible()
    }

    /// The tier that serves where probes that are due count as eligible backends, if there is any.
    pub fn tier_with_probes(self) -> Option<u8> {
        let serving = self.has_eligible().then(|| self.tier());
        let probed = self.outages().and_then(|outages| outages.probes().next());
        let tiers = serving.into_iter().chain(probed.map(|(tier, _)| tier));
        tiers.min()
    }

    /// Whether a backend of this tier is eligible, or a probe of it is due.
    #[inline(always)]
    pub fn takes(self, tier: u8, slot: Slot) -> bool {
        self.seats[slot].running_in(tier).is_some()
            || (self.outages()).is_some_and(|outages| outages.probe_tier(slot) == Some(tier))
    }

    /// The bound of the load of each backend of this tier, if there is one.
    pub fn bound(self, tier: u8) -> Option<Bound> {
        self.bound_by(|| match self.outages() {
            None => self.total_weight(),
            // Running weights are not the weights.
            Some(_) => {
                let seats = self.seats.iter().enumerate();
                let of_tier = seats.filter(|(slot, _)| self.takes(tier, *slot));
                of_tier.map(|(_, seat)| u64::from(seat.weight)).sum()
            }
        })
    }

    /// The same, where the weights of these backends have that sum.
    pub fn bound_by(self, weights: impl FnOnce() -> u64) -> Option<Bound> {
        let account = self.account?;
        account.balance().bound(account.leases(), weights)
    }

    /// How many leases are open on a backend, or not cleared yet.
    pub fn leases_on(self, slot: Slot) -> u32 {
        self.account.map_or(0, |account| account.leases_on(slot))
    }

    /// Whether a backend can have one more lease by this bound.
    pub fn admits(self, bound: &Bound, slot: Slot) -> bool {
        bound.admits(self.leases_on(slot), self.seats[slot].weight)
    }

    fn outages(self) -> Option<&'a Outages> {
        Some(self.account?.health()?.outages())
    }

    /// The sum of their running weights.
    #[inline(always)]
    pub fn total_weight(self) -> u64 {
        self.field.eligible().weight
    }

    /// How many eligible backends stand before a slot.
    pub fn rank(self, slot: Slot) -> u32 {
        self.field.order().rank(self.seats(), self.tier(), slot)
    }

    /// The k-th eligible backend, from 0. `k` is below their number.
    pub fn by_count(self, k: u32) -> Slot {
        self.field.order().by_count(self.seats(), self.tier(), k)
    }

    /// The eligible backends lie end to end, each as long as its running weight. Answers the one that lies at `w`, which is below
    /// the sum.
    pub fn by_weight(self, w: u64) -> Slot {
        self.field.order().by_weight(self.seats(), self.tier(), w)
    }

    /// The latency that a backend is thought to have, in 1/16 microsecond, if there was a report.
    #[inline(always)]
    pub fn latency(self, slot: Slot) -> Option<u64> {
        self.account?.latencies()?.level(slot)
    }

    /// The latency of those of which there was no report.
    pub fn mean_latency(self) -> u64 {
        let latencies = self.account.and_then(Account::latencies);
        latencies.map_or(1, |latencies| latencies.mean())
    }

    /// The load of a backend in a tier.
    #[inline(always)]
    pub fn load(self, tier: u8, slot: Slot) -> Load {
        match self.seats()[slot].running_in(tier) {
            Some(weight) => Load {
                busy: self.account.map_or(0, |account| account.leases_on(slot)) + 1,
                weight,
            },
            None => Load::INFINITE,
        }
    }
}

/// (leases + 1) / weight. That of a backend that is not eligible is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    busy: u32,
    weight: u32,
}

impl Load {
    /// That of a backend that is not eligible.
    pub const INFINITE: Load = Load { busy: 1, weight: 0 };

    /// The number of leases, and one more.
    #[inline(always)]
    pub fn busy(self) -> u64 {
        self.busy.into()
    }

    /// The running weight.
    #[inline(always)]
    pub fn weight(self) -> u64 {
        self.weight.into()
    }

    /// The same, where more than a million leases count as a million.
    #[inline(always)]
    pub fn up_to_a_million(self) -> Load {
        Load {
            busy: self.busy.min(1 << 20),
            ..self
        }
    }

    /// Whether the backend is eligible.
    #[inline(always)]
    pub fn is_finite(self) -> bool {
        self.weight > 0
    }

    /// Which of two loads is lower. All infinite ones are equal.
    #[inline(always)]
    pub fn compare(self, other: Load) -> Ordering {
        let product = |busy: u32, weight: u32| u64::from(busy) * u64::from(weight);
        product(self.busy, other.weight).cmp(&product(other.busy, self.weight))
    }
}
