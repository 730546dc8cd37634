//! Picking, and looking ahead.

use std::cell::RefCell;
use std::collections::HashSet;

use smallvec::SmallVec;

use super::backend::Backend;
use super::parts::Pool;
use crate::lb::account::{Account, Cost, IdText, LeaseId, LeaseTerms, Outage, TokensBefore, Whose};
use crate::lb::ground::bounds::{COUNTER_MAX, Slot, Slots, counted};
use crate::lb::ground::chance::Chance;
use crate::lb::ground::clock::Millis;
use crate::lb::pick::{Algorithm, Asked, Before, Choices, View};

/// A request for picks.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// By which algorithm; the pool's policy where none is named.
    pub algorithm: Option<Algorithm>,
    /// The item, for an algorithm that goes by one.
    pub item: Option<&'a [u8]>,
    /// How many.
    pub count: usize,
    /// No backend twice.
    pub distinct: bool,
    /// Backends that are passed over, this time.
    pub exclude: Vec<&'a [u8]>,
    /// The terms of the lease that each pick is granted, if it is.
    pub terms: Option<LeaseTerms<'a>>,
    /// What each pick takes beside the pick itself. No cost is named twice.
    pub costs: Vec<Cost<'a>>,
    /// The session, of a pick of one backend for one.
    pub sticky: Option<Sticky>,
}

/// The session of a pick of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sticky {
    /// Its hash.
    pub session: u64,
    /// How long it sticks to its backend after this pick.
    pub span: Millis,
    /// Whether no other backend will do where its own is there but cannot be picked this time.
    pub is_strict: bool,
}

/// An item, and what a command knows of its choices after some picks.
pub(super) struct Item<'a> {
    bytes: &'a [u8],
    choices: RefCell<Choices>,
}

impl Item<'_> {
    pub(super) fn of(bytes: &[u8]) -> Item<'_> {
        let choices = RefCell::default();
        Item { bytes, choices }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// The backends.
    pub slots: Slots,
    /// The lease of the first one. The others' numbers follow.
    pub lease: Option<LeaseId>,
}

/// A backend that was picked, with the lease on it.
#[derive(Clone, Copy)]
pub struct Granted<'a> {
    /// The backend.
    pub backend: Backend<'a>,
    account: &'a Account,
    id: LeaseId,
}

impl Granted<'_> {
    /// The text of the lease's id.
    #[inline(always)]
    pub fn id(self) -> IdText {
        self.account.id_text(self.id)
    }
}

/// How a step of a look ahead is undone.
enum Undo {
    Nothing,
    Pick(Slot, Before),
    Probe(Slot, Box<Outage>),
    Lease(Slot),
    Tokens(Slot, TokensBefore),
    Suspension(Slot),
}

impl Pool {
    /// Picks a backend. Where no algorithm is named, the pool's policy picks.
    #[inline(always)]
    pub fn pick(&mut self, algorithm: Option<Algorithm>) -> Option<Backend<'_>> {
        let slot = match self.account {
            None => self.choose_alone(algorithm)?,
            Some(_) => self.choose_and_spend(algorithm)?,
        };
        let card = self.roster.count(slot);
        Some(Backend::of(card, &self.field, slot))
    }

    #[inline(never)]
    fn choose_and_spend(&mut self, algorithm: Option<Algorithm>) -> Option<Slot> {
        let slot = self.choose(algorithm)?;
        self.spend(slot, None);
        Some(slot)
    }

    /// Picks a backend, and grants a lease on it.
    #[inline(always)]
    pub fn grant(
        &mut self,
        algorithm: Option<Algorithm>,
        terms: &LeaseTerms,
    ) -> Option<Granted<'_>> {
        if !self.has_numbers_for(1) {
            return None;
        }
        let slot = self.choose(algorithm)?;
        self.heed_latencies_for(algorithm);
        let id = self.spend(slot, Some(terms))?;
        self.granted(slot, id)
    }

    #[inline(always)]
    fn granted(&mut self, slot: Slot, id: LeaseId) -> Option<Granted<'_>> {
        let card = self.roster.count(slot);
        Some(Granted {
            backend: Backend::of(card, &self.field, slot),
            account: self.account.as_deref()?,
            id,
        })
    }

    /// Picks the backend of an item.
    pub fn pick_for(&mut self, item: &[u8]) -> Option<Backend<'_>> {
        let slot = self.choose_for(&Item::of(item))?;
        if self.account.is_some() {
            self.spend(slot, None);
        }
        let card = self.roster.count(slot);
        Some(Backend::of(card, &self.field, slot))
    }

    /// Picks the backend of an item, and grants a lease on it.
    pub fn grant_for(&mut self, item: &[u8], terms: &LeaseTerms) -> Option<Granted<'_>> {
        if !self.has_numbers_for(1) {
            return None;
        }
        let slot = self.choose_for(&Item::of(item))?;
        let id = self.spend(slot, Some(terms))?;
        self.granted(slot, id)
    }

    /// As [`Pool::choose`], for an item: no probe is preferred.
    fn choose_for(&mut self, item: &Item) -> Option<Slot> {
        let slot = self.find_for(item)?;
        self.picks = counted(self.picks);
        Some(slot)
    }

    /// The backend of an item. Nothing changes.
    pub(super) fn find_for(&mut self, item: &Item) -> Option<Slot> {
        if self.is_closed() {
            return None;
        }
        let (cards, hashes) = self.roster.hashed();
        let asked = Asked {
            item: item.bytes,
            cards,
            hashes,
        };
        let see = View::of(&self.field, self.account.as_deref()).for_item(&asked);
        let mut choices = item.choices.borrow_mut();
        match choices.is_due() {
            true => choices.choose(see),
            false => Algorithm::HASH.pick(&mut self.owns, see, &mut self.chance),
        }
    }

    fn choose_by(&mut self, algorithm: Option<Algorithm>, item: Option<&Item>) -> Option<Slot> {
        match item {
            Some(item) => self.choose_for(item),
            None => self.choose(algorithm),
        }
    }

    #[inline(always)]
    fn choose(&mut self, algorithm: Option<Algorithm>) -> Option<Slot> {
        if let Some(account) = &self.account {
            if account.is_limited(Whose::POOL) {
                return None;
            }
            if let Some(probe) = self.next_probe() {
                self.picks = counted(self.picks);
                return Some(probe);
            }
        }
        self.choose_alone(algorithm)
    }

    /// The same where no limit and no probe is in the way.
    #[inline(always)]
    fn choose_alone(&mut self, algorithm: Option<Algorithm>) -> Option<Slot> {
        let algorithm = algorithm.unwrap_or(self.owns.policy);
        let see = || View::of(&self.field, self.account.as_deref());
        let slot = algorithm.pick_of(&mut self.owns, &self.field, see, &mut self.chance)?;
        self.picks = counted(self.picks);
        Some(slot)
    }

    pub(super) fn has_eligible_now(&self) -> bool {
        (self.field.has_eligible() || self.probes_open() > 0) && !self.is_closed()
    }

    /// Whether a limit of the pool as a whole is reached.
    #[inline(always)]
    pub(super) fn is_closed(&self) -> bool {
        (self.account.as_ref()).is_some_and(|account| account.is_limited(Whose::POOL))
    }

    /// Picks as often as the request says, or until none is eligible. A session gets the backend that it is pinned to, or another one as
    /// the request says.
    #[inline(always)]
    pub fn picks(&mut self, request: &Request) -> Picked {
        match &request.sticky {
            Some(sticky) => self.pick_for_session(request, sticky),
            None => self.picks_freely(request),
        }
    }

    /// The same where no session decides.
    pub(super) fn picks_freely(&mut self, request: &Request) -> Picked {
        if self.account.is_none()
            && request.terms.is_none()
            && request.exclude.is_empty()
            && request.item.is_none()
            && !request.distinct
        {
            return self.picks_alone(request.algorithm, request.count);
        }
        if request.terms.is_some() && !self.has_numbers_for(request.count) {
            return Picked::default();
        }
        let mut passed_over = self.pass_over(&request.exclude);
        let mut picked = Picked {
            slots: Slots::with_capacity(request.count),
            lease: None,
        };
        let item = request.item.map(Item::of);
        let item = item.as_ref();
        let mut purchase = self.purchase(request);
        // A pick that finds nobody leaves no trace.
        let chance = purchase.as_ref().map(|_| self.chance.clone());
        while picked.slots.len() < request.count
            && let Some(slot) = match &mut purchase {
                None => self.choose_by(request.algorithm, item),
                Some(purchase) => {
                    self.choose_with(purchase, request.algorithm, item, &mut passed_over)
                }
            }
        {
            self.heed_latencies_for(request.algorithm);
            self.roster.count(slot);
            picked.slots.push(slot);
            if self.account.is_some() || request.terms.is_some() {
                let lease = self.spend(slot, request.terms.as_ref());
                picked.lease = picked.lease.or(lease);
                if let Some(purchase) = &purchase {
                    self.pay(purchase, slot, lease);
                }
            }
            if request.distinct {
                self.suspend(slot);
                passed_over.push(slot);
            }
        }
        for slot in passed_over {
            self.refresh(slot);
        }
        if let Some(chance) = chance.filter(|_| picked.slots.is_empty()) {
            self.chance = chance;
        }
        picked
    }

    /// Takes these backends out of the running, until they are refreshed.
    pub(super) fn pass_over(&mut self, names: &[&[u8]]) -> Slots {
        let slots = names.iter().filter_map(|name| self.roster.find(name));
        let slots: Slots = slots.collect();
        slots.iter().for_each(|slot| _ = self.suspend(*slot));
        slots
    }

    /// Picks that often, where a pick changes nothing that decides who is eligible.
    fn picks_alone(&mut self, algorithm: Option<Algorithm>, count: usize) -> Picked {
        let algorithm = algorithm.unwrap_or(self.owns.policy);
        let see = View::of(&self.field, None);
        let cards = self.roster.cards_mut();
        let mut slots = Slots::from_elem(0, count);
        let mut made = 0;
        for place in &mut slots {
            let picked = algorithm.pick_of(&mut self.owns, &self.field, || see, &mut self.chance);
            let Some(slot) = picked else {
                break;
            };
            cards[slot].count();
            *place = slot;
            made += 1;
        }
        slots.truncate(made);
        self.picks = (self.picks + made as u64).min(COUNTER_MAX);
        Picked { slots, lease: None }
    }

    /// A backend was picked, in a pool with an account: tokens go, and a lease begins.
    #[inline(never)]
    pub(super) fn spend(&mut self, slot: Slot, terms: Option<&LeaseTerms>) -> Option<LeaseId> {
        let account = self.account();
        account.take_tokens(slot);
        let lease = terms.map(|terms| account.grant(slot, terms));
        account.picked(slot, lease);
        match lease {
            Some(_) => self.flow_changed(slot),
            None => self.tokens_changed(slot),
        }
        lease
    }

    fn tokens_changed(&mut self, slot: Slot) {
        self.recheck(Whose::of(slot));
        self.recheck(Whose::POOL);
    }

    /// The answer that [`Pool::picks`] would give. The pool stays as it is. No answer where chance would decide.
    #[inline(always)]
    pub fn peek(&mut self, request: &Request) -> Option<Slots> {
        match &request.sticky {
            Some(sticky) => self.peek_for_session(request, sticky.session),
            None => self.peek_freely(request),
        }
    }

    /// The same where no session decides.
    pub(super) fn peek_freely(&mut self, request: &Request) -> Option<Slots> {
        let algorithm = request.algorithm.unwrap_or(self.owns.policy);
        if algorithm.is_by_chance() {
            return None;
        }
        if algorithm.goes_by_latency() && !self.has_numbers_for(request.count) {
            return Some(Slots::new());
        }
        let item = request.item.map(Item::of);
        let had_account = self.account.is_some();
        let mut undo: SmallVec<[Undo; 4]> = SmallVec::new();
        for name in &request.exclude {
            if let Some(slot) = self.roster.find(name).filter(|slot| self.suspend(*slot)) {
                undo.push(Undo::Suspension(slot));
            }
        }
        let mut picked = Slots::new();
        let mut is_whole = true;
        while picked.len() < request.count && self.has_eligible_now() {
            let Some((slot, step)) = self.choose_ahead(algorithm, item.as_ref()) else {
                is_whole = false;
                break;
            };
            picked.push(slot);
            undo.push(step);
            if let Some(account) = &mut self.account {
                undo.push(Undo::Tokens(slot, account.take_tokens(slot)));
                self.tokens_changed(slot);
            }
            if algorithm.goes_by_latency() {
                self.account().lease_ahead(slot);
                self.flow_changed(slot);
                undo.push(Undo::Lease(slot));
            }
            if request.distinct && self.suspend(slot) {
                undo.push(Undo::Suspension(slot));
            }
        }
        undo.into_iter()
            .rev()
            .for_each(|step| self.undo(algorithm, step));
        if !had_account {
            self.account = None;
        }
        Some(match is_whole {
            true => picked,
            false => self.look_ahead(algorithm, request),
        })
    }

    /// As [`Pool::choose`] will. There is an eligible backend. No answer where that cannot be undone.
    fn choose_ahead(&mut self, algorithm: Algorithm, item: Option<&Item>) -> Option<(Slot, Undo)> {
        if let Some(item) = item {
            let slot = self.find_for(item)?;
            return match self.is_probe_open(slot) {
                true => self.probe_ahead(slot),
                false => Some((slot, Undo::Nothing)),
            };
        }
        if let Some(slot) = self.next_probe() {
            return self.probe_ahead(slot);
        }
        let see = View::of(&self.field, self.account.as_deref());
        let (slot, before) = algorithm.pick_ahead(&mut self.owns, see)?;
        Some((slot, Undo::Pick(slot, before)))
    }

    fn probe_ahead(&mut self, slot: Slot) -> Option<(Slot, Undo)> {
        let before = self.account().take_probe_ahead(slot)?;
        Some((slot, Undo::Probe(slot, Box::new(before))))
    }

    fn undo(&mut self, algorithm: Algorithm, step: Undo) {
        match step {
            Undo::Nothing => {}
            Undo::Pick(slot, before) => {
                let see = View::of(&self.field, self.account.as_deref());
                algorithm.take_back(&mut self.owns, see, slot, before);
            }
            Undo::Probe(slot, before) => self.account().put_back_probe(slot, *before),
            Undo::Tokens(slot, before) => {
                self.account().put_back(slot, before);
                self.tokens_changed(slot);
            }
            Undo::Lease(slot) => {
                self.account().end_ahead(slot);
                self.flow_changed(slot);
            }
            Undo::Suspension(slot) => _ = self.refresh(slot),
        }
    }

    /// The picks of a copy.
    fn look_ahead(&self, algorithm: Algorithm, request: &Request) -> Slots {
        let terms = Pool::terms_ahead(algorithm);
        let request = Request {
            terms: terms.or(request.terms),
            ..request.clone()
        };
        self.clone().picks_freely(&request).slots
    }

    /// Whether a pick by this algorithm needs chance, and no pick before it did. It needs a seed then, if there is a backend for it.
    #[inline(always)]
    pub fn lacks_seed(&self, algorithm: Option<Algorithm>) -> bool {
        algorithm.unwrap_or(self.owns.policy).is_by_chance() && !self.chance.is_seeded()
    }

    /// Whether there is a backend for a pick that passes these over.
    pub fn has_eligible(&self, exclude: &[&[u8]]) -> bool {
        let excluded = exclude.iter().filter_map(|name| self.roster.find(name));
        let excluded: HashSet<Slot> = excluded.filter(|slot| self.is_open(*slot)).collect();
        excluded.len() < self.available()
    }

    /// Starts the pool's generator from that seed.
    pub fn seed(&mut self, seed: u64) {
        self.chance = Chance::seeded(seed);
    }

    // Looking

    /// The names of these backends.
    pub fn names<'a>(&'a self, slots: &'a [Slot]) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let cards = self.roster.cards();
        slots.iter().map(|slot| cards[*slot].name.as_bytes())
    }

    /// How many backends can be picked.
    pub fn available(&self) -> usize {
        match self.is_closed() {
            true => 0,
            false => self.field.eligible_in_all() + self.probes_open(),
        }
    }

    /// The names of all that can be picked. Each costs O(log n).
    pub fn eligible(&self) -> impl Iterator<Item = &[u8]> {
        let open = (!self.is_closed()).then_some(self);
        let slots = (open.into_iter()).flat_map(|pool| pool.field.all_eligible());
        let probes = open.into_iter().flat_map(|pool| pool.probes());
        slots.chain(probes).map(|slot| self.roster.name(slot))
    }

    /// The sum of the weights of all that can be picked, as they run.
    pub fn total_weight(&self) -> u64 {
        match self.is_closed() {
            true => 0,
            false => self.field.weight_in_all() / u64::from(self.unit()),
        }
    }

    /// Whether a backend can be picked, as far as it and its own limits are concerned.
    fn is_open(&self, slot: Slot) -> bool {
        self.field.seats()[slot].running_weight() > 0 || self.is_probe_open(slot)
    }

    /// How many picks the pool has answered.
    pub fn total_picks(&self) -> u64 {
        self.picks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_lacking_once_and_only_where_chance_decides() {
        let random = Algorithm::by_name(b"random");
        let mut pool = Pool::new();
        assert!(pool.lacks_seed(random));
        assert!(!pool.lacks_seed(None), "the policy is wrr");
        pool.set_policy(random.unwrap());
        assert!(pool.lacks_seed(None));
        assert!(!pool.lacks_seed(Some(Algorithm::WRR)));
        pool.seed(1);
        assert!(!pool.lacks_seed(random));
    }

    #[test]
    fn there_is_a_backend_where_one_is_up_and_not_excluded() {
        let mut pool = Pool::new();
        assert!(!pool.has_eligible(&[]), "nobody is there");
        pool.add(b"a", Some(0));
        assert!(!pool.has_eligible(&[]), "nobody can be picked");
        pool.add(b"a", Some(1));
        assert!(pool.has_eligible(&[]));
        assert!(!pool.has_eligible(&[b"a", b"a"]), "nobody is left");
        pool.add(b"b", None);
        assert!(pool.has_eligible(&[b"a", b"a", b"x"]), "b is left");
    }
}
