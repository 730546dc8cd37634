//! A pool: its members, who of them is available, and what each command does to it.

use std::collections::HashSet;

use super::backend::{Backend, Part, State};
use super::capacity::{Capacity, Terms, Untaken};
use super::chance::Chance;
use super::index::Index;
use super::lane::Lane;
use super::lease::LeaseId;
use super::pick::{Algorithm, Before, CREDIT_MAX, Cursor, Foresight};
use super::{Mover, Slot, TIERS_MAX, allocated};

/// A pool of backends.
///
/// A removed backend leaves its slot vacant, so that slots stay in order of addition; when half of them are vacant
/// the pool is laid out anew.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) backends: Vec<Backend>,
    /// The tier that serves: the lowest one that has an eligible backend, or any where none has.
    pub(super) lane: Lane,
    /// The other tiers. In a box, for nearly all pools have none.
    pub(super) parked: Parked,
    /// Whether a limit of the pool as a whole is reached.
    pub(super) is_closed: bool,
    pub(super) capacity: Option<Box<Capacity>>,
    pub(super) rr: Cursor,
    pub(super) chance: Option<Box<Chance>>,
    pub(super) policy: Algorithm,
    pub(super) picks: u64,
    pub(super) rules: u8,
    index: Index,
    members: u32,
    /// What the names take on the heap.
    name_bytes: usize,
}

/// In a box, so that a pool without tiers pays 8 bytes for this, not 24.
pub(super) type Parked = Option<Box<Vec<Lane>>>;

/// What LB.ADD did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// A backend that was not there.
    New,
    /// A backend that was there has another weight now.
    Reweighted,
    /// It was there, and so it stays.
    Unchanged,
}

/// What LB.SET did, in numbers of backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Those that are new.
    pub added: usize,
    /// Those that are gone.
    pub removed: usize,
    /// Those that stayed, with another weight.
    pub reweighted: usize,
}

/// What to pick.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// By which algorithm; the pool's policy where none is named.
    pub algorithm: Option<Algorithm>,
    /// How many.
    pub count: usize,
    /// No backend twice.
    pub distinct: bool,
    /// Backends that are passed over, this time.
    pub exclude: Vec<&'a [u8]>,
    /// For what each pick is granted a lease, if it is.
    pub terms: Option<Terms<'a>>,
}

/// What was picked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picked {
    /// The backends.
    pub slots: Vec<Slot>,
    /// The lease of the first one. The others' numbers follow.
    pub lease: Option<LeaseId>,
}

/// A step of a request, as it is taken back after a look ahead.
enum Made {
    Pick(Slot, Before),
    Tokens(Slot, Untaken),
    Suspension(Slot),
}

impl Default for Pool {
    fn default() -> Pool {
        Pool::new()
    }
}

impl Pool {
    /// The rules by which new pools run. A pool that was created under older ones keeps them.
    pub const RULES: u8 = 1;

    /// A pool without backends and settings.
    pub fn new() -> Pool {
        Pool {
            backends: Vec::new(),
            lane: Lane::default(),
            parked: None,
            is_closed: false,
            capacity: None,
            rr: Cursor::default(),
            chance: None,
            policy: Algorithm::WRR,
            picks: 0,
            rules: Pool::RULES,
            index: Index::default(),
            members: 0,
            name_bytes: 0,
        }
    }

    // Membership and weights

    /// How many backends there are.
    pub fn len(&self) -> usize {
        self.members as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members == 0
    }

    /// Whether nothing would be lost with the pool: no backends, and no setting that is not the default.
    pub fn is_void(&self) -> bool {
        self.is_empty() && self.policy == Algorithm::WRR && !self.is_limited()
    }

    /// The backends in order of addition.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|b| !b.is_vacant())
    }

    /// The backend of that name.
    pub fn backend(&self, name: &[u8]) -> Option<&Backend> {
        self.find(name).map(|slot| &self.backends[slot])
    }

    /// The slot of the backend of that name, as it is until the pool changes.
    pub fn slot(&self, name: &[u8]) -> Option<Slot> {
        self.find(name)
    }

    /// The backends in order of addition, with their slots.
    pub fn slots(&self) -> impl Iterator<Item = (Slot, &Backend)> {
        let slots = self.backends.iter().enumerate();
        slots.filter(|(_, b)| !b.is_vacant())
    }

    /// The name of a backend that was just picked.
    #[inline]
    pub fn name(&self, slot: Slot) -> &[u8] {
        self.backends[slot].name()
    }

    /// Adds a backend, with weight 1 unless another is given, or gives one that is there that weight.
    pub fn add(&mut self, name: &[u8], weight: Option<u16>) -> Added {
        let Some(slot) = self.find(name) else {
            self.push(Backend::new(name, weight.unwrap_or(1)));
            return Added::New;
        };
        match weight {
            Some(weight) if self.reweight(slot, weight) => Added::Reweighted,
            _ => Added::Unchanged,
        }
    }

    /// Makes the members exactly this list, in which no name is twice. Who stays keeps its place and all else.
    pub fn set(&mut self, members: &[(&[u8], u16)]) -> Replaced {
        let mut replaced = Replaced::default();
        let mut stays = vec![false; self.backends.len()];
        for &(name, _) in members {
            if let Some(slot) = self.find(name) {
                stays[slot] = true;
            }
        }
        for (slot, stays) in stays.into_iter().enumerate() {
            if !stays && !self.backends[slot].is_vacant() {
                self.vacate(slot);
                replaced.removed += 1;
            }
        }
        self.compact();
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
        let Some(slot) = self.find(name) else {
            return false;
        };
        self.vacate(slot);
        self.compact();
        true
    }

    /// Gives each of these backends that weight, and says how many had another one; or says whose name the pool lacks,
    /// by its place in the list, and changes none.
    pub fn set_weights(&mut self, weights: &[(&[u8], u16)]) -> Result<usize, usize> {
        let slots: Vec<Slot> = (weights.iter().enumerate())
            .map(|(i, (name, _))| self.find(name).ok_or(i))
            .collect::<Result<_, _>>()?;
        let pairs = slots.into_iter().zip(weights);
        Ok(pairs
            .filter(|&(slot, &(_, weight))| self.reweight(slot, weight))
            .count())
    }

    /// Puts a backend in or out of service; says whether that changed anything, or nothing where it is not there. `Down`
    /// ends its leases.
    pub fn set_state(&mut self, name: &[u8], state: State) -> Option<bool> {
        let slot = self.find(name)?;
        let changed = self.backends[slot].state != state;
        self.backends[slot].state = state;
        self.resume(slot);
        if state == State::Down {
            self.end_all(slot);
        }
        Some(changed)
    }

    /// What a pick goes by that names no algorithm.
    pub fn policy(&self) -> Algorithm {
        self.policy
    }

    /// Sets the policy; says whether that changed anything.
    pub fn set_policy(&mut self, policy: Algorithm) -> bool {
        let changed = self.policy != policy;
        self.policy = policy;
        changed
    }

    // Picking

    /// Picks a backend, by the pool's policy where no algorithm is named.
    #[inline(always)]
    pub fn pick(&mut self, algorithm: Option<Algorithm>) -> Option<&Backend> {
        let slot = self.choose(algorithm)?;
        if self.capacity.is_some() {
            self.spend(slot, None);
        }
        Some(self.count(slot))
    }

    #[inline(always)]
    fn choose(&mut self, algorithm: Option<Algorithm>) -> Option<Slot> {
        if !self.has_eligible_now() {
            return None;
        }
        let slot = algorithm.unwrap_or(self.policy).pick(self);
        self.picks = counted(self.picks);
        Some(slot)
    }

    /// One pick more of that backend.
    #[inline(always)]
    fn count(&mut self, slot: Slot) -> &Backend {
        let backend = &mut self.backends[slot];
        backend.picks = counted(backend.picks);
        backend
    }

    #[inline(always)]
    fn has_eligible_now(&self) -> bool {
        self.lane.eligible() > 0 && !self.is_closed
    }

    /// Picks as often as the request says, or until none is eligible.
    pub fn picks(&mut self, request: &Request) -> Picked {
        if request.terms.is_some() && !self.has_numbers_for(request.count) {
            return Picked::default();
        }
        let mut suspended = Vec::new();
        for name in &request.exclude {
            if let Some(slot) = self.find(name).filter(|slot| self.suspend(*slot)) {
                suspended.push(slot);
            }
        }
        let mut picked = Picked {
            slots: Vec::with_capacity(request.count),
            lease: None,
        };
        while picked.slots.len() < request.count
            && let Some(slot) = self.choose(request.algorithm)
        {
            self.count(slot);
            picked.slots.push(slot);
            if self.capacity.is_some() || request.terms.is_some() {
                let lease = self.spend(slot, request.terms.as_ref());
                picked.lease = picked.lease.or(lease);
            }
            if request.distinct && self.suspend(slot) {
                suspended.push(slot);
            }
        }
        for slot in suspended {
            self.resume(slot);
        }
        picked
    }

    /// What [`Pool::picks`] would answer, while the pool stays as it is; nothing where chance would decide.
    pub fn peek(&mut self, request: &Request) -> Option<Vec<Slot>> {
        let algorithm = request.algorithm.unwrap_or(self.policy);
        let Foresight::TakeBack { pick, take_back } = algorithm.foresight() else {
            return None;
        };
        let mut made = Vec::new();
        for name in &request.exclude {
            if let Some(slot) = self.find(name).filter(|slot| self.suspend(*slot)) {
                made.push(Made::Suspension(slot));
            }
        }
        let mut picked = Vec::new();
        let mut whole = true;
        while picked.len() < request.count && self.has_eligible_now() {
            let Some((slot, before)) = pick(self) else {
                whole = false;
                break;
            };
            picked.push(slot);
            made.push(Made::Pick(slot, before));
            let untaken = self.spend_for_now(slot);
            made.extend(untaken.map(|untaken| Made::Tokens(slot, untaken)));
            if request.distinct && self.suspend(slot) {
                made.push(Made::Suspension(slot));
            }
        }
        for step in made.into_iter().rev() {
            match step {
                Made::Pick(slot, before) => take_back(self, slot, before),
                Made::Tokens(slot, untaken) => self.unspend(slot, untaken),
                Made::Suspension(slot) => self.resume(slot),
            }
        }
        Some(if whole {
            picked
        } else {
            self.clone().picks(request).slots
        })
    }

    /// Whether this pick is the first in the pool's life that needs chance.
    #[inline(always)]
    pub fn needs_seed(&self, algorithm: Option<Algorithm>, exclude: &[&[u8]]) -> bool {
        algorithm.unwrap_or(self.policy).is_by_chance()
            && self.chance.is_none()
            && self.has_eligible(exclude)
    }

    /// Whether a pick that passes these over finds anybody.
    pub fn has_eligible(&self, exclude: &[&[u8]]) -> bool {
        let excluded = exclude.iter().filter_map(|name| self.find(name));
        let excluded: HashSet<Slot> = excluded
            .filter(|slot| self.backends[*slot].live() > 0)
            .collect();
        excluded.len() < self.available()
    }

    /// Starts the pool's generator from that seed.
    pub fn seed(&mut self, seed: u64) {
        self.chance = Some(Box::new(Chance::seeded(seed)));
    }

    /// The generator. A pool whose stream has no seed draws from seed 0, on every machine alike.
    pub(super) fn chance(&mut self) -> &mut Chance {
        self.chance
            .get_or_insert_with(|| Box::new(Chance::seeded(0)))
    }

    // Looking

    /// How many backends can be picked.
    pub fn available(&self) -> usize {
        match self.is_closed {
            true => 0,
            false => self.lanes().map(|lane| lane.eligible() as usize).sum(),
        }
    }

    /// The names of all that can be picked. Each costs O(log n).
    pub fn eligible(&self) -> impl Iterator<Item = &[u8]> {
        let lanes = self.lanes().filter(|_| !self.is_closed);
        lanes.flat_map(|lane| {
            let ranks = 0..lane.eligible();
            ranks.map(|k| self.name(lane.order.by_count(&self.backends, lane.tier, k)))
        })
    }

    /// The sum of the weights of all that can be picked.
    pub fn total_weight(&self) -> u64 {
        match self.is_closed {
            true => 0,
            false => self.lanes().map(|lane| lane.order.total().weight).sum(),
        }
    }

    /// How many picks the pool has answered.
    pub fn total_picks(&self) -> u64 {
        self.picks
    }

    /// The version of the rules that the pool was created under.
    pub fn rules(&self) -> u8 {
        self.rules
    }

    /// How many bytes of memory the pool takes, in one block with so many bytes beside it.
    pub fn bytes(&self, beside: usize) -> usize {
        allocated(size_of::<Pool>() + beside)
            + self
                .chance
                .as_ref()
                .map_or(0, |_| allocated(size_of::<Chance>()))
            + allocated(self.backends.capacity() * size_of::<Backend>())
            + self.name_bytes
            + self.index.heap_bytes()
            + self.lanes().map(Lane::heap_bytes).sum::<usize>()
            + self
                .parked
                .as_ref()
                .map_or(0, |p| allocated(p.capacity() * size_of::<Lane>()))
            + self.capacity.as_ref().map_or(0, |c| c.heap_bytes())
    }

    /// Lets the mover at what the pool has on the heap, but for the names. The table of the index stays where it is: it
    /// belongs to a library, and is 7 % of a pool at most.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.backends);
        if let Some(parked) = &mut self.parked {
            by.vec(parked);
        }
        self.lanes_mut().for_each(|lane| lane.relocate(by));
        if let Some(capacity) = &mut self.capacity {
            capacity.relocate(by);
        }
    }

    /// Lets the mover at so many names, from that slot on; answers the slot to go on from, if there is one.
    pub fn relocate_names(&mut self, by: &mut impl Mover, from: Slot, most: usize) -> Option<Slot> {
        let names = self.backends.iter_mut().skip(from).take(most);
        names.for_each(|backend| backend.name.relocate(by));
        Some(from + most).filter(|next| *next < self.backends.len())
    }

    // The parts that the steps above are made of

    pub(super) fn find(&self, name: &[u8]) -> Option<Slot> {
        self.index.find(&self.backends, name)
    }

    /// Adds a backend whose name the pool lacks, with its credit as a plain number.
    pub(super) fn push(&mut self, backend: Backend) {
        let slot = self.backends.len();
        self.open_lane(backend.tier());
        self.name_bytes += backend.name.heap_bytes();
        self.members += 1;
        self.backends.push(backend);
        self.index.added(&self.backends);
        let slots = self.backends.len();
        self.lanes_mut().for_each(|lane| lane.added(slots));
        if let Some(capacity) = &mut self.capacity {
            capacity.added(slots);
        }
        self.resume(slot);
    }

    fn vacate(&mut self, slot: Slot) {
        self.end_all(slot);
        self.suspend(slot);
        self.forget(slot);
        self.index.remove(&self.backends, slot);
        self.name_bytes -= self.backends[slot].name.heap_bytes();
        self.members -= 1;
        self.backends[slot] = Backend::new(b"", 0);
    }

    /// Gives a backend another weight, and to its own credit the same proportion; false where it has it already.
    fn reweight(&mut self, slot: Slot, weight: u16) -> bool {
        let old = self.backends[slot].weight;
        if weight == old {
            return false;
        }
        let credit = match (old, weight) {
            (0, _) | (_, 0) => 0,
            _ => scaled(self.credit(slot), weight, old),
        };
        let backend = &mut self.backends[slot];
        backend.weight = weight;
        let live = backend.available_weight();
        self.take_part(slot, live, credit);
        true
    }

    /// Takes a backend out of the running; false where it is not in it.
    fn suspend(&mut self, slot: Slot) -> bool {
        let eligible = self.backends[slot].live() > 0;
        if eligible {
            let credit = self.credit(slot);
            self.take_part(slot, 0, credit);
        }
        eligible
    }

    /// Lets a backend take part again, as far as it is available.
    pub(super) fn resume(&mut self, slot: Slot) {
        let backend = &self.backends[slot];
        let live = backend.available_weight();
        if live != backend.live() {
            let credit = self.credit(slot);
            self.take_part(slot, live, credit);
        }
    }

    /// The one place where a backend's part in the running changes.
    fn take_part(&mut self, slot: Slot, live: u16, credit: i64) {
        let lane = lane(&mut self.lane, &mut self.parked, self.backends[slot].tier());
        lane.enter(&mut self.backends, slot, live, credit);
        if let Some(capacity) = &self.capacity {
            lane.reload(&self.backends, capacity, slot);
        }
        self.let_the_lowest_serve();
    }

    // Tiers

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        std::iter::once(&self.lane).chain(self.parked.iter().flat_map(|parked| parked.iter()))
    }

    fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        let parked = self.parked.iter_mut().flat_map(|parked| parked.iter_mut());
        std::iter::once(&mut self.lane).chain(parked)
    }

    /// Whether a backend can be moved to that tier. Of the tiers that there can be, 0 is always kept for newcomers.
    pub fn has_room_for_tier(&self, tier: u8) -> bool {
        // Nearly always it shows in the lanes, among which may be some that nobody is of any more.
        let is_used = |lane: &Lane| lane.tier == tier && lane.eligible() > 0;
        if self.lanes().count() + 1 < TIERS_MAX || self.lanes().any(is_used) {
            return true;
        }
        let mut used: HashSet<u8> = self.backends().map(Backend::tier).collect();
        used.insert(0);
        tier == 0 || used.contains(&tier) || used.len() < TIERS_MAX
    }

    /// Sees to it that there is a lane of that tier, for which there is room.
    fn open_lane(&mut self, tier: u8) {
        if self.lanes().all(|lane| lane.tier != tier) {
            if self.lanes().count() >= TIERS_MAX {
                let used: HashSet<u8> = self.backends().map(Backend::tier).collect();
                let parked = self.parked.get_or_insert_default();
                parked.retain(|lane| used.contains(&lane.tier));
            }
            let lane = Lane::of(&self.backends, tier);
            self.parked.get_or_insert_default().push(lane);
        }
    }

    /// Lets the lowest tier serve that has an eligible backend. All lanes swap their places, so nothing else moves.
    fn let_the_lowest_serve(&mut self) {
        let Some(parked) = &mut self.parked else {
            return;
        };
        let eligible = parked.iter_mut().filter(|lane| lane.eligible() > 0);
        if let Some(lowest) = eligible.min_by_key(|lane| lane.tier)
            && (self.lane.eligible() == 0 || lowest.tier < self.lane.tier)
        {
            std::mem::swap(&mut self.lane, lowest);
        }
    }

    /// Moves a backend to a tier, where it has that credit.
    pub(super) fn set_tier(&mut self, slot: Slot, tier: u8, credit: i64) {
        self.suspend(slot);
        self.open_lane(tier);
        self.backends[slot].part = Part::of(0, tier);
        self.backends[slot].credit = credit;
        self.resume(slot);
    }

    /// Closes the gaps when more than half of the slots are vacant, so that they cost O(1) a removal. The leases are
    /// moved along, so there must be fewer of them than gaps.
    fn compact(&mut self) {
        let slots = self.backends.len();
        if slots <= 2 * self.len() + self.leases() {
            return;
        }
        self.rr.next = self.members_before(self.rr.next);
        for slot in 0..slots {
            self.backends[slot].credit = self.credit(slot);
        }
        if let Some(capacity) = &mut self.capacity {
            let mut members = 0;
            let numbers = self.backends.iter().map(|b| {
                members += usize::from(!b.is_vacant());
                members.saturating_sub(1)
            });
            let numbers: Vec<Slot> = numbers.collect();
            let vacant = |slot: Slot| self.backends[slot].is_vacant();
            capacity.renumber(&numbers, vacant, self.members as usize);
        }
        self.backends.retain(|b| !b.is_vacant());
        self.backends.shrink_to_fit();
        self.index = Index::of(&self.backends);
        let backends = &self.backends;
        self.lane = Lane::of(backends, self.lane.tier);
        if let Some(parked) = &mut self.parked {
            parked.retain(|lane| backends.iter().any(|b| b.tier() == lane.tier));
            parked
                .iter_mut()
                .for_each(|lane| *lane = Lane::of(backends, lane.tier));
        }
        self.let_the_lowest_serve();
    }

    /// How many backends stand before that slot.
    pub(super) fn members_before(&self, slot: Slot) -> usize {
        self.backends[..slot]
            .iter()
            .filter(|b| !b.is_vacant())
            .count()
    }

    /// The credit of a backend in smooth weighted round robin, as a plain number.
    pub fn credit(&self, slot: Slot) -> i64 {
        let backend = &self.backends[slot];
        let mut lanes = self.lanes();
        let lane = lanes.find(|lane| lane.tier == backend.tier());
        lane.map_or(backend.credit, |lane| lane.race.credit(backend))
    }

    /// Gives a backend a credit, as a payload can. For the tests.
    #[doc(hidden)]
    pub fn set_credit(&mut self, name: &[u8], credit: i64) {
        let slot = self.find(name).expect("the backend is there");
        let live = self.backends[slot].live();
        self.take_part(slot, live, credit);
    }

    /// Panics where what only speeds things up does not agree with what it was made of. For the tests.
    #[doc(hidden)]
    pub fn check(&self) {
        let members: Vec<_> = self.backends().collect();
        assert_eq!(members.len(), self.len());
        assert!(self.backends.len() <= 2 * self.len() + self.leases() || self.capacity.is_some());
        assert!(self.rr.next <= self.backends.len());
        for (slot, b) in self.backends.iter().enumerate() {
            assert_eq!(b.live(), b.available_weight(), "{b:?}");
            assert!(self.credit(slot).abs() <= CREDIT_MAX, "{b:?}");
            assert!(b.is_vacant() || self.find(b.name()) == Some(slot), "{b:?}");
        }
        let names: usize = members.iter().map(|b| b.name.heap_bytes()).sum();
        assert_eq!(names, self.name_bytes);
        for lane in self.lanes() {
            lane.check(&self.backends, self.capacity.as_deref());
            let is_lower = lane.tier < self.lane.tier || self.lane.eligible() == 0;
            assert!(lane.eligible() == 0 || lane.tier == self.lane.tier || !is_lower);
        }
        let lanes: usize = self.lanes().map(|lane| lane.eligible() as usize).sum();
        assert_eq!(lanes, self.backends.iter().filter(|b| b.live() > 0).count());
        let mut again = self.clone();
        again.relimit_all();
        assert_eq!(again.is_closed, self.is_closed);
        for (slot, b) in self.backends.iter().enumerate() {
            assert_eq!(again.backends[slot].is_limited, b.is_limited);
        }
        if let Some(capacity) = &self.capacity {
            capacity.leases.check();
        }
    }
}

/// The lane of that tier, which is there.
pub(super) fn lane<'a>(serving: &'a mut Lane, parked: &'a mut Parked, tier: u8) -> &'a mut Lane {
    match serving.tier == tier {
        true => serving,
        false => (parked.iter_mut().flat_map(|parked| parked.iter_mut()))
            .find(|lane| lane.tier == tier)
            .expect("each backend's tier has a lane"),
    }
}

/// The largest number that a reply can show.
pub(super) const COUNTER_MAX: u64 = i64::MAX as u64;

/// A counter goes on to the largest number that a reply can show, and stays there.
pub(super) fn counted(n: u64) -> u64 {
    (n + 1).min(COUNTER_MAX)
}

/// A credit times new / old, toward zero.
fn scaled(credit: i64, new: u16, old: u16) -> i64 {
    let exact = i128::from(credit) * i128::from(new) / i128::from(old);
    exact.clamp(i128::from(-CREDIT_MAX), i128::from(CREDIT_MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_stays_at_the_largest_number_that_a_reply_can_show() {
        assert_eq!(counted(0), 1);
        assert_eq!(counted(i64::MAX as u64 - 1), i64::MAX as u64);
        assert_eq!(counted(i64::MAX as u64), i64::MAX as u64);
    }

    #[test]
    fn a_seed_is_needed_once_and_only_where_chance_decides() {
        let random = Algorithm::by_name(b"random");
        let mut pool = Pool::new();
        assert!(!pool.needs_seed(random, &[]), "nobody is there");
        pool.add(b"a", Some(0));
        assert!(!pool.needs_seed(random, &[]), "nobody can be picked");
        pool.add(b"a", Some(1));
        assert!(pool.needs_seed(random, &[]));
        assert!(!pool.needs_seed(random, &[b"a", b"a"]), "nobody is left");
        assert!(!pool.needs_seed(None, &[]), "the policy is wrr");
        pool.set_policy(random.unwrap());
        assert!(pool.needs_seed(None, &[]));
        pool.add(b"b", None);
        assert!(pool.needs_seed(None, &[b"a", b"a", b"x"]), "b is left");
        assert!(!pool.needs_seed(Some(Algorithm::WRR), &[]));
        pool.seed(1);
        assert!(!pool.needs_seed(random, &[]));
    }
}
