//! Sessions: picks that stick to a backend.

use smallvec::smallvec;
use twox_hash::XxHash3_64;

use super::costs::Purchase;
use super::parts::Pool;
use super::picking::{Picked, Request, Sticky};
use crate::lb::account::Whose;
use crate::lb::field::State;
use crate::lb::ground::bounds::{Slot, Slots, counted};
use crate::lb::ground::clock::Millis;

/// What the pin of a session means for a pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    /// There is none that holds. The algorithm picks, and the session is pinned to what it picks.
    None,
    /// The pick gets this backend.
    Holds(Slot),
    /// The pick takes the probe of this backend, which is ejected. The pin stays as it is.
    Probes(Slot),
    /// This backend is over a limit, excluded, or holds too little of a cost. The pin stays.
    Waits(Slot),
}

impl Pin {
    /// Whether the pick gets a backend. None where that is up to the algorithm.
    fn serves(self, sticky: &Sticky) -> Option<bool> {
        match self {
            Pin::Holds(_) | Pin::Probes(_) => Some(true),
            Pin::Waits(_) if sticky.is_strict => Some(false),
            Pin::Waits(_) | Pin::None => None,
        }
    }
}

/// The hash by which sessions are known: XXH3 in 64 bits, the same on every machine.
pub fn session_hash(name: &[u8]) -> u64 {
    XxHash3_64::oneshot(name)
}

impl Pool {
    /// Picks a backend for a session: the one that it is pinned to, or another one as the request says.
    pub(super) fn pick_for_session(&mut self, request: &Request, sticky: &Sticky) -> Picked {
        let Sticky { session, span, .. } = *sticky;
        let purchase = self.purchase(request);
        let purchase = purchase.as_ref();
        let (picked, pinned) = match self.pin(session, &request.exclude, purchase) {
            Pin::Holds(slot) => (self.pick_pinned(slot, request, purchase), Some(slot)),
            Pin::Probes(slot) => (self.pick_pinned(slot, request, purchase), None),
            Pin::Waits(_) if sticky.is_strict => return Picked::default(),
            Pin::Waits(slot) => (self.picks_freely(request), Some(slot)),
            Pin::None => {
                let picked = self.picks_freely(request);
                // A probe pins nobody.
                let slot = picked.slots.first().copied();
                let slot = slot.filter(|slot| self.is_fit(*slot));
                (picked, slot)
            }
        };
        if let Some(slot) = pinned.filter(|_| !picked.slots.is_empty()) {
            self.account().pin(session, slot, span);
        }
        picked
    }

    /// The answer that [`Pool::pick_for_session`] would give, as [`Pool::peek`].
    pub(super) fn peek_for_session(&mut self, request: &Request, session: u64) -> Option<Slots> {
        let algorithm = request.algorithm.unwrap_or(self.owns.policy);
        match self.pin(session, &request.exclude, None) {
            Pin::Holds(slot) | Pin::Probes(slot) if !algorithm.is_by_chance() => {
                Some(smallvec![slot])
            }
            _ => self.peek_freely(request),
        }
    }

    /// Whether there is a backend for a pick for a session, that passes these over.
    pub fn has_eligible_for_session(&self, exclude: &[&[u8]], sticky: &Sticky) -> bool {
        let served = self.pin(sticky.session, exclude, None).serves(sticky);
        served.unwrap_or_else(|| self.has_eligible(exclude))
    }

    /// As [`Pool::would_pick`], of a pick for a session.
    pub(super) fn would_pick_for_session(&mut self, request: &Request, sticky: &Sticky) -> bool {
        let purchase = self.purchase(request);
        let pin = self.pin(sticky.session, &request.exclude, purchase.as_ref());
        (pin.serves(sticky)).unwrap_or_else(|| self.would_pick_freely(request))
    }

    /// As [`Pool::affords_from`], of a pick for a session.
    pub(super) fn affords_from_for_session(
        &self,
        request: &Request,
        sticky: &Sticky,
    ) -> Option<Millis> {
        let any = self.affords_from_freely(request);
        match self.pin(sticky.session, &request.exclude, None) {
            Pin::Holds(slot) | Pin::Probes(slot) => {
                let own = self.pays_from(&self.purchase(request)?, slot);
                any.filter(|any| !sticky.is_strict && *any < own)
                    .or(Some(own))
            }
            Pin::Waits(_) | Pin::None => any,
        }
    }

    /// Ends the pin of a session; false where there is none.
    pub fn forget_session(&mut self, session: u64) -> bool {
        (self.account.as_mut()).is_some_and(|account| account.unpin(session))
    }

    /// How many sessions are pinned, or not cleared yet.
    pub fn sessions(&self) -> usize {
        self.account.as_ref().map_or(0, |a| a.sessions())
    }

    /// How many of them are pinned to a backend.
    pub fn sessions_on(&self, slot: Slot) -> u32 {
        (self.account.as_ref()).map_or(0, |account| account.sessions_on(slot))
    }

    fn pin(&self, session: u64, exclude: &[&[u8]], purchase: Option<&Purchase>) -> Pin {
        let pinned = self.account.as_ref().and_then(|a| a.pinned(session));
        let Some((slot, account)) = pinned.zip(self.account.as_deref()) else {
            return Pin::None;
        };
        let seat = &self.field.seats()[slot];
        if seat.weight == 0 || seat.state == State::Down {
            return Pin::None;
        }
        let is_excluded = || exclude.iter().any(|name| *name == self.name(slot));
        let is_kept_out = || {
            let limits = [Whose::of(slot), Whose::POOL];
            limits.iter().any(|whose| account.is_limited(*whose))
                || is_excluded()
                || !purchase.is_none_or(|purchase| self.can_pay(purchase, slot))
        };
        match self.is_fit(slot) {
            true if is_kept_out() => Pin::Waits(slot),
            true => Pin::Holds(slot),
            false if self.is_probe_open(slot) && !is_kept_out() => Pin::Probes(slot),
            false => Pin::None,
        }
    }

    /// Whether a backend is neither ejected nor cooling.
    fn is_fit(&self, slot: Slot) -> bool {
        let health = self.account.as_ref().and_then(|a| a.health());
        health.is_none_or(|health| health.is_in(slot))
    }

    /// A pick that no algorithm makes. It moves no cursor.
    fn pick_pinned(
        &mut self,
        slot: Slot,
        request: &Request,
        purchase: Option<&Purchase>,
    ) -> Picked {
        let terms = request.terms.as_ref();
        if terms.is_some() && !self.has_numbers_for(1) {
            return Picked::default();
        }
        self.picks = counted(self.picks);
        self.heed_latencies_for(request.algorithm);
        self.roster.count(slot);
        let lease = self.spend(slot, terms);
        if let Some(purchase) = purchase {
            self.pay(purchase, slot, lease);
        }
        Picked {
            slots: smallvec![slot],
            lease,
        }
    }
}
