//! All that the algorithms see of the backends: their seats, the orders over them, and the tier that serves.

mod order;
mod seat;
mod tiers;

use order::Sum;
pub use order::{FAN, Order};
pub use seat::{Seat, State};
use tiers::Tiers;

use crate::lb::ground::bounds::{Slot, TIERS_MAX};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::{Mover, allocated};
use crate::lb::ground::row::{Row, Vacant};
use crate::lb::ground::saved::{Malformed, Reader, Writer};

/// The seats of a pool.
#[derive(Clone, Debug, Default)]
pub struct Field {
    seats: Row<Seat, Option<Box<Tiers>>>,
}

impl Field {
    /// All seats in order of addition. That of a vacant slot takes no part.
    #[inline(always)]
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// All seats, where they are few. They are of tier 0.
    #[inline(always)]
    pub fn few(&self) -> Option<&[Seat]> {
        self.seats.few()
    }

    /// The tier that serves: the lowest one that has an eligible backend, or any where none has.
    #[inline(always)]
    pub fn serving(&self) -> u8 {
        self.tiers().map_or(0, |tiers| tiers.serving.tier)
    }

    /// The backends of the tier that serves, in order.
    pub fn order(&self) -> &Order {
        self.tiers().map_or(&order::FEW, |t| &t.serving.order)
    }

    /// The number of eligible backends of the tier that serves, and the sum of their running weights. If there are none, no backend is
    /// eligible.
    #[inline(always)]
    pub fn eligible(&self) -> Sum {
        match self.tiers() {
            Some(tiers) => tiers.serving.order.total(),
            None => Sum::over_seats(&self.seats, 0),
        }
    }

    /// Whether any backend is eligible.
    #[inline(always)]
    pub fn has_eligible(&self) -> bool {
        match self.tiers() {
            Some(tiers) => tiers.serving.eligible() > 0,
            None => self.seats.iter().any(|seat| seat.running_weight() > 0),
        }
    }

    /// How many backends of all tiers are eligible.
    pub fn eligible_in_all(&self) -> usize {
        self.orders().map(|(_, _, sum)| sum.count as usize).sum()
    }

    /// The sum of the running weights in all tiers.
    pub fn weight_in_all(&self) -> u64 {
        self.orders().map(|(_, _, sum)| sum.weight).sum()
    }

    /// The slots of all eligible backends, tier by tier. Each costs O(log n).
    pub fn all_eligible(&self) -> impl Iterator<Item = Slot> {
        let seats = self.seats();
        self.orders().flat_map(move |(tier, order, sum)| {
            (0..sum.count).map(move |k| order.by_count(seats, tier, k))
        })
    }

    fn tiers(&self) -> Option<&Tiers> {
        self.seats.more()?.as_deref()
    }

    /// The tiers, each with its order and the sum over it.
    fn orders(&self) -> impl Iterator<Item = (u8, &Order, Sum)> {
        let tiers = self.tiers();
        let few = (tiers.is_none()).then(|| (0, &order::FEW, self.eligible()));
        let all = tiers.into_iter().flat_map(Tiers::all);
        let all = all.map(|tier| (tier.tier, &tier.order, tier.order.total()));
        few.into_iter().chain(all)
    }

    /// Adds the seat of a newcomer, which does not take part yet.
    pub fn add(&mut self, seat: Seat) {
        debug_assert_eq!((seat.tier(), seat.running_weight()), (0, 0));
        self.seats.push(seat);
        match self.seats.parts() {
            (seats, Some(Some(tiers))) => {
                let slots = seats.len();
                tiers.all_mut().for_each(|tier| tier.order.grown(slots));
                tiers.open(0, seats);
            }
            (seats, Some(tiers)) if seats.len() > FAN => *tiers = Some(Tiers::one(seats)),
            _ => {}
        }
    }

    /// Adds the seat of a backend that is being loaded, which takes part already. Once all are there, [`Field::all_loaded`] must follow.
    pub fn add_loaded(&mut self, seat: Seat) {
        self.seats.push(seat);
    }

    /// Puts the seats that were loaded in order. All are of tier 0.
    #[inline(always)]
    pub fn all_loaded(&mut self) {
        if let (seats, Some(tiers)) = self.seats.parts()
            && seats.len() > FAN
        {
            *tiers = Some(Tiers::one(seats));
        }
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
        let (seats, tiers) = self.seats.parts();
        let seat = &mut seats[slot];
        let from = seat.running_weight();
        seat.run(weight);
        if let Some(Some(tiers)) = tiers {
            let tier = tiers.get_mut(seat.tier());
            tier.order.change(slot, from, weight);
            tiers.let_the_lowest_serve();
        }
    }

    /// Whether a backend can be moved to that tier. Of the tiers that there can be, 0 is always kept for newcomers.
    pub fn has_room_for_tier(&self, tier: u8) -> bool {
        // Nearly always it shows in the open tiers, some of which may have lost their last backend.
        let is_used = |(t, _, sum): (u8, &Order, Sum)| t == tier && sum.count > 0;
        if self.orders().any(is_used) || self.orders().count() + 1 < TIERS_MAX {
            return true;
        }
        // Vacant slots are of tier 0.
        let mut used = tiers::used(&self.seats);
        used.insert(0);
        tier == 0 || used.contains(&tier) || used.len() < TIERS_MAX
    }

    /// Moves a backend that takes no part to a tier, for which there is room.
    pub fn move_to_tier(&mut self, slot: Slot, tier: u8) {
        if tier == 0 && self.tiers().is_none() {
            return;
        }
        let (seats, tiers) = self.seats.as_many();
        let tiers = tiers.get_or_insert_with(|| Tiers::one(seats));
        tiers.open(tier, seats);
        seats[slot].move_to_tier(tier);
    }

    /// Writes the weight and the state of a backend.
    pub fn save_seat(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.seats[slot].weight);
        to.put(&(self.seats[slot].state as u8));
    }

    /// Reads the weight and the state of a backend. It takes part with its weight if it is up.
    pub fn load_seat(from: &mut Reader) -> Result<Seat, Malformed> {
        let mut seat = Seat::new(from.get()?);
        let state = State::ALL.get(usize::from(from.get::<u8>()?));
        (seat.state, _) = *state.ok_or(Malformed::Field("backend's state"))?;
        seat.run(seat.weight_if_up().into());
        Ok(seat)
    }

    /// Writes the tier of a backend.
    pub fn save_tier(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.seats[slot].tier());
    }

    /// Panics where the orders do not agree with the seats, or another tier should serve. For the tests.
    pub fn check(&self) {
        match self.tiers() {
            Some(tiers) => tiers.check(&self.seats),
            None => {
                assert!(self.seats.len() <= FAN);
                assert!(self.seats.iter().all(|seat| seat.tier() == 0));
            }
        }
    }
}

impl Kept for Field {
    fn forget(&mut self, slot: Slot) {
        debug_assert_eq!(self.seats[slot].running_weight(), 0);
        self.seats[slot] = Seat::VACANT;
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.seats.close(gaps);
        if let (seats, Some(tiers)) = self.seats.parts() {
            *tiers = Tiers::of(seats);
        } else if let Some(tiers) = Tiers::of(&self.seats) {
            *self.seats.as_many().1 = Some(tiers);
        }
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.seats.relocate(by);
        if let (_, Some(Some(tiers))) = self.seats.parts() {
            tiers.relocate(by);
        }
    }

    fn heap_bytes(&self) -> usize {
        let tiers = (self.tiers()).map_or(0, |t| allocated(size_of::<Tiers>()) + t.heap_bytes());
        self.seats.heap_bytes() + tiers
    }
}
