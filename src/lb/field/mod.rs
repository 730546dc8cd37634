//! All that the algorithms see of the backends: their seats, the orders over them, and the tier that serves.

mod order;
mod seat;
mod tiers;

pub use order::{FAN, Order};
pub use seat::{Seat, State};
use tiers::Tiers;

use crate::lb::ground::bounds::{Slot, TIERS_MAX};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, buffer};
use crate::lb::ground::saved::{Malformed, Reader, Writer};

/// The seats of a pool.
#[derive(Clone, Debug, Default)]
pub struct Field {
    seats: Vec<Seat>,
    tiers: Tiers,
}

impl Field {
    /// All seats in order of addition. That of a vacant slot takes no part.
    #[inline(always)]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The tier that serves: the lowest one that has an eligible backend, or any where none has.
    #[inline(always)]
    pub fn serving(&self) -> u8 {
        self.tiers.serving.tier
    }

    /// The backends of the tier that serves, in order.
    #[inline(always)]
    pub fn order(&self) -> &Order {
        &self.tiers.serving.order
    }

    /// How many backends of the tier that serves are eligible. If there are none, no backend is eligible.
    #[inline(always)]
    pub fn eligible(&self) -> u32 {
        self.tiers.serving.eligible()
    }

    /// How many backends of all tiers are eligible.
    pub fn eligible_in_all(&self) -> usize {
        self.tiers.all().map(|t| t.eligible() as usize).sum()
    }

    /// The sum of the running weights in all tiers.
    pub fn weight_in_all(&self) -> u64 {
        self.tiers.all().map(|t| t.order.total().weight).sum()
    }

    /// The slots of all eligible backends, tier by tier. Each costs O(log n).
    pub fn all_eligible(&self) -> impl Iterator<Item = Slot> {
        self.tiers.all().flat_map(|t| {
            let ranks = 0..t.eligible();
            ranks.map(|k| t.order.by_count(&self.seats, t.tier, k))
        })
    }

    /// Adds the seat of a newcomer, which does not take part yet.
    pub fn add(&mut self, seat: Seat) {
        self.tiers.open(seat.tier(), &self.seats);
        self.seats.push(seat);
        let slots = self.seats.len();
        let tiers = self.tiers.all_mut();
        tiers.for_each(|tier| tier.order.grown(slots));
    }

    /// Sets the state of a backend.
    pub fn set_state(&mut self, slot: Slot, state: State) {
        self.seats[slot].state = state;
    }

    /// Sets the weight of a backend.
    pub fn set_weight(&mut self, slot: Slot, weight: u16) {
        self.seats[slot].weight = weight;
    }

    /// The backend takes part with this weight from now on, 0 = not at all.
    pub fn run(&mut self, slot: Slot, weight: u32) {
        let seat = &mut self.seats[slot];
        let from = seat.running_weight();
        seat.run(weight);
        let tier = self.tiers.get_mut(seat.tier());
        tier.order.change(slot, from, weight);
        self.tiers.let_the_lowest_serve();
    }

    /// Whether a backend can be moved to that tier. Of the tiers that there can be, 0 is always kept for newcomers.
    pub fn has_room_for_tier(&self, tier: u8) -> bool {
        // Nearly always it shows in the open tiers, some of which may have lost their last backend.
        let is_used = self.tiers.all().any(|t| t.tier == tier && t.eligible() > 0);
        if is_used || self.tiers.all().count() + 1 < TIERS_MAX {
            return true;
        }
        // Vacant slots are of tier 0.
        let mut used = tiers::used(&self.seats);
        used.insert(0);
        tier == 0 || used.contains(&tier) || used.len() < TIERS_MAX
    }

    /// Moves a backend that takes no part to a tier, for which there is room.
    pub fn move_to_tier(&mut self, slot: Slot, tier: u8) {
        self.tiers.open(tier, &self.seats);
        self.seats[slot].move_to_tier(tier);
    }

    /// Writes the weight and the state of a backend.
    pub fn save_seat(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.seats[slot].weight);
        to.put(&(self.seats[slot].state as u8));
    }

    /// Reads the weight and the state of a newcomer.
    pub fn load_seat(from: &mut Reader) -> Result<Seat, Malformed> {
        let mut seat = Seat::new(from.get()?);
        let state = State::ALL.get(usize::from(from.get::<u8>()?));
        (seat.state, _) = *state.ok_or(Malformed::Field("backend's state"))?;
        Ok(seat)
    }

    /// Writes the tier of a backend.
    pub fn save_tier(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.seats[slot].tier());
    }

    /// Panics where the orders do not agree with the seats, or another tier should serve. For the tests.
    pub fn check(&self) {
        self.tiers.check(&self.seats);
    }
}

impl Kept for Field {
    fn forget(&mut self, slot: Slot) {
        debug_assert_eq!(self.seats[slot].running_weight(), 0);
        self.seats[slot] = Seat::new(0);
    }

    fn renumber(&mut self, gaps: &Gaps) {
        gaps.close(&mut self.seats);
        self.tiers.rebuild(&self.seats);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        by.vec(&mut self.seats);
        self.tiers.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        buffer(&self.seats) + self.tiers.heap_bytes()
    }
}
