//! Costs: picks that take named amounts beside the pick itself, and the limits of these.
//!
//! Amounts differ from pick to pick, so no order of the backends tells which of them hold enough. A pick with costs looks at the backend
//! that the algorithm would take. If that does not hold the amounts, its pick is taken back, the backend is passed over for the rest of the
//! command as if it were excluded, and the algorithm is asked again. So where the first one holds them, a pick with costs is a pick and
//! one look; each backend that is passed over costs O(log n), and a command passes over [`TRIED`] of them at most. Where all of
//! these hold too little it finds none, though another backend may hold enough.
//!
//! Rejected: to look at all backends beforehand, so that those that hold too little gather no credit of wrr either. A pick would be O(n).

use std::collections::HashSet;

use super::flow::Availability;
use super::parts::Pool;
use super::picking::{Item, Request};
use crate::lb::account::{Account, Amounts, Cost, CostLimit, LeaseId, Limits, Rate, Whose};
use crate::lb::ground::bounds::{Slot, Slots, counted};
use crate::lb::ground::clock::Millis;
use crate::lb::pick::{Algorithm, Before, View};

/// How many backends that hold too little one command passes over.
pub const TRIED: usize = 1000;

/// Whom a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited<'a> {
    /// The pool as a whole.
    Pool,
    /// Each backend that has no limit of that kind of its own.
    Each,
    /// The backend of that name.
    Backend(&'a [u8]),
}

/// How the choice of a backend is undone.
enum Choice {
    /// A probe is taken later.
    Probe,
    Pick(Before),
    /// It changed nothing.
    Found,
    /// It cannot be undone. What chance has drawn stays drawn until it shows that the command finds nobody.
    Drawn,
}

/// A way to choose a backend. None where there is none, or where it cannot be undone.
type Choose = fn(&mut Pool, By) -> Option<(Slot, Choice)>;

/// By what a backend is chosen.
#[derive(Clone, Copy)]
struct By<'a> {
    algorithm: Algorithm,
    item: Option<&'a Item<'a>>,
}

/// What a request takes, and how many it has passed over.
pub(super) struct Purchase {
    amounts: Amounts,
    tried: usize,
}

impl Pool {
    /// What a request takes, if any of the costs that it names is limited.
    pub(super) fn purchase(&self, request: &Request) -> Option<Purchase> {
        let amounts = self.account.as_ref()?.amounts(&request.costs)?;
        Some(Purchase { amounts, tried: 0 })
    }

    /// Chooses as [`Pool::choose`], a backend that holds the amounts. Those that are passed over are added to the list.
    ///
    /// Where numbers are at their bounds, as only a crafted payload has them, a choice cannot be undone: then a copy of the pool chooses,
    /// and takes the pool's place if it finds somebody.
    pub(super) fn choose_with(
        &mut self,
        purchase: &mut Purchase,
        algorithm: Option<Algorithm>,
        item: Option<&Item>,
        passed_over: &mut Slots,
    ) -> Option<Slot> {
        let by = self.by(algorithm, item);
        if !self.affords(Whose::POOL, &purchase.amounts) {
            return None;
        }
        let mut found = self.choose_among(Pool::try_choice, purchase, by, passed_over);
        if found.is_none() && self.may_go_on(purchase) {
            let mut copy = self.clone();
            found = copy.choose_among(Pool::make_choice, purchase, by, passed_over);
            if found.is_some() {
                *self = copy;
            }
        }
        let (slot, _) = found?;
        self.picks = counted(self.picks);
        Some(slot)
    }

    fn by<'a>(&self, algorithm: Option<Algorithm>, item: Option<&'a Item<'a>>) -> By<'a> {
        let algorithm = algorithm.unwrap_or(self.owns.policy);
        By { algorithm, item }
    }

    fn choose_among(
        &mut self,
        choose: Choose,
        purchase: &mut Purchase,
        by: By,
        passed_over: &mut Slots,
    ) -> Option<(Slot, Choice)> {
        while self.may_go_on(purchase) {
            let (slot, choice) = choose(self, by)?;
            if self.affords(Whose::of(slot), &purchase.amounts) {
                return Some((slot, choice));
            }
            self.undo_choice(by.algorithm, slot, &choice);
            purchase.tried += 1;
            self.suspend(slot);
            passed_over.push(slot);
        }
        None
    }

    fn may_go_on(&self, purchase: &Purchase) -> bool {
        purchase.tried < TRIED && self.has_eligible_now()
    }

    fn try_choice(&mut self, by: By) -> Option<(Slot, Choice)> {
        let draws = self.next_probe().is_some() || by.algorithm.is_by_chance();
        if draws || by.item.is_some() {
            return self.make_choice(by);
        }
        let see = View::of(&self.field, self.account.as_deref());
        let (slot, before) = by.algorithm.pick_ahead(&mut self.owns, see)?;
        Some((slot, Choice::Pick(before)))
    }

    fn make_choice(&mut self, by: By) -> Option<(Slot, Choice)> {
        if let Some(item) = by.item {
            return Some((self.find_for(item)?, Choice::Found));
        }
        if let Some(probe) = self.next_probe() {
            return Some((probe, Choice::Probe));
        }
        let see = View::of(&self.field, self.account.as_deref());
        let slot = by.algorithm.pick(&mut self.owns, see, &mut self.chance)?;
        Some((slot, Choice::Drawn))
    }

    fn undo_choice(&mut self, algorithm: Algorithm, slot: Slot, choice: &Choice) {
        if let Choice::Pick(before) = choice {
            let see = View::of(&self.field, self.account.as_deref());
            algorithm.take_back(&mut self.owns, see, slot, *before);
        }
    }

    /// Whether a request would be answered a backend. The pool stays as it is.
    pub fn would_pick(&mut self, request: &Request) -> bool {
        match &request.sticky {
            Some(sticky) => self.would_pick_for_session(request, sticky),
            None => self.would_pick_freely(request),
        }
    }

    /// The same where no session decides.
    pub(super) fn would_pick_freely(&mut self, request: &Request) -> bool {
        if request.terms.is_some() && !self.has_numbers_for(request.count) {
            return false;
        }
        let Some(mut purchase) = self.purchase(request) else {
            return self.has_eligible(&request.exclude);
        };
        if !self.affords(Whose::POOL, &purchase.amounts) {
            return false;
        }
        let item = request.item.map(Item::of);
        let by = self.by(request.algorithm, item.as_ref());
        let chance = self.chance.clone();
        let mut passed_over = self.pass_over(&request.exclude);
        let choose = Pool::try_choice;
        let mut found = self.choose_among(choose, &mut purchase, by, &mut passed_over);
        if let Some((slot, choice)) = &found {
            self.undo_choice(by.algorithm, *slot, choice);
        } else if self.may_go_on(&purchase) {
            let mut copy = self.clone();
            let choose = Pool::make_choice;
            found = copy.choose_among(choose, &mut purchase, by, &mut passed_over);
        }
        for slot in passed_over {
            self.refresh(slot);
        }
        self.chance = chance;
        found.is_some()
    }

    /// Whether that backend and the pool hold the amounts.
    pub(super) fn can_pay(&self, purchase: &Purchase, slot: Slot) -> bool {
        let both = [Whose::of(slot), Whose::POOL];
        both.iter()
            .all(|whose| self.affords(*whose, &purchase.amounts))
    }

    /// When they hold them, if nothing else happens: now, or later.
    pub(super) fn pays_from(&self, purchase: &Purchase, slot: Slot) -> Millis {
        let both = [Whose::of(slot), Whose::POOL].into_iter();
        let account = self.account.as_ref();
        let times = both.filter_map(|whose| Some(account?.affords_from(whose, &purchase.amounts)));
        times.max().unwrap_or(self.clock())
    }

    fn affords(&self, whose: Whose, amounts: &Amounts) -> bool {
        let account = self.account.as_ref();
        account.is_none_or(|account| account.affords(whose, amounts))
    }

    /// A backend was picked: the amounts go.
    pub(super) fn pay(&mut self, purchase: &Purchase, slot: Slot, lease: Option<LeaseId>) {
        self.account().pay(slot, lease, &purchase.amounts);
    }

    /// A request has really cost these amounts. Its lease is about to end; where it is not open, nothing happens.
    pub fn settle(&mut self, id: LeaseId, costs: &[Cost]) {
        if let Some(account) = &mut self.account {
            account.settle(id, costs);
        }
    }

    /// Lets a backend have this amount of a cost left at most; answers whether it had more.
    pub fn lower(&mut self, name: &[u8], left: Cost) -> bool {
        let slot = self.slot(name);
        let account = self.account.as_mut();
        slot.zip(account)
            .is_some_and(|(slot, account)| account.lower(slot, left))
    }

    // Looking

    /// Whether this cost is limited, for any backend or the pool.
    pub fn limits_cost(&self, name: &[u8]) -> bool {
        let account = self.account.as_ref();
        account.is_some_and(|account| account.amounts(&[(name, 0)]).is_some())
    }

    /// When a backend that holds these amounts can be picked, and why not now. O(n).
    pub fn availability_for(&self, costs: &[Cost]) -> Availability {
        let amounts = self.account.as_ref().and_then(|a| a.amounts(costs));
        let Some(amounts) = amounts else {
            return self.availability();
        };
        let holds = |slot: &Slot| self.affords(Whose::of(*slot), &amounts);
        match self.affords(Whose::POOL, &amounts) && self.open_slots().any(|slot| holds(&slot)) {
            true => Availability::Available,
            false => self.availability_by(|account, is_willing| {
                account.first_affording(0..self.roster.slots(), is_willing, &amounts)
            }),
        }
    }

    /// When a backend holds what a request takes, which costs alone keep from being served: now, or later. None where something else
    /// keeps it. It looks at [`TRIED`] backends that the request may get; where there are more, the time may be too late.
    pub fn affords_from(&self, request: &Request) -> Option<Millis> {
        match &request.sticky {
            Some(sticky) => self.affords_from_for_session(request, sticky),
            None => self.affords_from_freely(request),
        }
    }

    /// The same where no session decides.
    pub(super) fn affords_from_freely(&self, request: &Request) -> Option<Millis> {
        let account = self.account.as_ref()?;
        let amounts = account.amounts(&request.costs)?;
        let excluded = request
            .exclude
            .iter()
            .filter_map(|name| self.roster.find(name));
        let excluded: HashSet<Slot> = excluded.collect();
        let able = self.open_slots().filter(|slot| !excluded.contains(slot));
        let times = able.map(|slot| account.affords_from(Whose::of(slot), &amounts));
        let first = times.take(TRIED).min()?;
        Some(first.max(account.affords_from(Whose::POOL, &amounts)))
    }

    /// The slots of all that can be picked.
    fn open_slots(&self) -> impl Iterator<Item = Slot> {
        let open = (!self.is_closed()).then_some(self);
        let slots = open.into_iter().flat_map(|pool| pool.field.all_eligible());
        slots.chain(open.into_iter().flat_map(|pool| pool.probes()))
    }

    // Limits

    /// Whether all these costs can be limited, which differ from each other.
    pub fn has_room_for_costs<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> bool {
        let none = Account::default();
        let account = self.account.as_deref().unwrap_or(&none);
        account.has_room_for_costs(names)
    }

    /// Limits costs, for which there is room, or takes the limit away; answers whether that changed anything. A backend that is not
    /// there has no limits. O(n) for each backend.
    pub fn set_costs(&mut self, limited: Limited, costs: &[(&[u8], Option<Rate>)]) -> bool {
        if self.account.is_none() && costs.iter().all(|(_, rate)| rate.is_none()) {
            return false;
        }
        let slots: Vec<Slot> = match limited {
            Limited::Each => self.roster.members().collect(),
            Limited::Pool | Limited::Backend(_) => Vec::new(),
        };
        let whose = match limited {
            Limited::Backend(name) => match self.slot(name) {
                Some(slot) => Whose::of(slot),
                None => return false,
            },
            Limited::Pool | Limited::Each => Whose::POOL,
        };
        let account = self.account();
        let mut changed = false;
        for (name, rate) in costs {
            changed |= match limited {
                Limited::Each => account.set_cost_of_each(slots.iter().copied(), name, *rate),
                Limited::Pool | Limited::Backend(_) => account.set_cost(whose, name, *rate),
            };
        }
        changed
    }

    /// Limits each backend that has no limit of that kind of its own; answers whether that changed anything. O(n log n).
    pub fn set_limits_of_each(&mut self, limits: &Limits) -> bool {
        if self.account.is_none() && !limits.is_any() {
            return false;
        }
        let slots: Vec<Slot> = self.roster.members().collect();
        let changed = self
            .account()
            .set_limit_of_each(slots.iter().copied(), limits);
        if changed {
            slots
                .into_iter()
                .for_each(|slot| _ = self.recheck(Whose::of(slot)));
        }
        changed
    }

    /// The limits that hold for each backend that has none of its own.
    pub fn limits_of_each(&self) -> Limits {
        let account = self.account.as_ref();
        account.map_or(Limits::default(), |account| account.limit_of_each())
    }

    /// The costs that are limited for the backend in that slot, or for the pool as a whole.
    pub fn costs(&self, slot: Option<Slot>) -> impl Iterator<Item = CostLimit<'_>> {
        let whose = slot.map_or(Whose::POOL, Whose::of);
        let account = self.account.iter();
        account.flat_map(move |account| account.cost_limits(whose))
    }

    /// The costs that are limited for each backend that has no limit of its own.
    pub fn costs_of_each(&self) -> impl Iterator<Item = (&[u8], Rate)> {
        self.account
            .iter()
            .flat_map(|account| account.costs_of_each())
    }
}
