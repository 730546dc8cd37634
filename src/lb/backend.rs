//! A member of a pool.

use super::name::Name;

/// Whether an operator lets a backend be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In service.
    Up,
    /// Nothing new is picked; what runs there runs on.
    Drain,
    /// Nothing new is picked; what runs there is over.
    Down,
}

impl State {
    /// All states with their names. A state's place is its code in saved pools.
    pub const ALL: [(State, &'static str); 3] = [
        (State::Up, "up"),
        (State::Drain, "drain"),
        (State::Down, "down"),
    ];

    /// The word for it in commands and replies.
    pub fn name(self) -> &'static str {
        State::ALL[self as usize].1
    }

    /// The state of that name, upper or lower case.
    pub fn by_name(name: &[u8]) -> Option<State> {
        let mut all = State::ALL.iter();
        all.find(|(_, n)| n.as_bytes().eq_ignore_ascii_case(name))
            .map(|&(state, _)| state)
    }
}

/// A member of a pool, with its weight, state and counters.
#[derive(Clone, Debug)]
pub struct Backend {
    pub(super) name: Name,
    /// Its credit in smooth weighted round robin; how it is kept, `pick/wrr.rs` says.
    pub(super) credit: i64,
    pub(super) picks: u64,
    pub(super) weight: u16,
    /// Its part in the running: the one thing that the algorithms look at.
    pub(super) part: Part,
    pub(super) state: State,
    /// Whether a limit of its own keeps it out; what the limit is, `capacity.rs` knows.
    pub(super) is_limited: bool,
}

/// A tier in the upper half, and the weight while eligible in the lower one, else 0: so that one look tells whether a backend takes
/// part in the running of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part(u32);

impl Part {
    pub fn of(weight: u16, tier: u8) -> Part {
        Part(u32::from(tier) << 16 | u32::from(weight))
    }

    /// The weight, if it takes part in the running of that tier.
    #[inline(always)]
    pub fn weight_in(self, tier: u8) -> Option<u16> {
        let first = Part::of(1, tier).0;
        (self.0.wrapping_sub(first) < u32::from(u16::MAX)).then_some(self.0 as u16)
    }
}

impl Backend {
    /// A newcomer: neutral, and not yet in the running.
    pub(super) fn new(name: &[u8], weight: u16) -> Backend {
        Backend {
            name: Name::new(name),
            credit: 0,
            picks: 0,
            weight,
            part: Part::of(0, 0),
            state: State::Up,
            is_limited: false,
        }
    }

    /// The weight that it takes part with: 0 where it is not available.
    pub(super) fn available_weight(&self) -> u16 {
        match self.state {
            State::Up if !self.is_limited => self.weight,
            State::Up | State::Drain | State::Down => 0,
        }
    }

    /// Its weight while it is eligible, else 0.
    #[inline(always)]
    pub(super) fn live(&self) -> u16 {
        self.part.0 as u16
    }

    /// Its weight while it is eligible and of that tier, else 0.
    pub(super) fn live_in(&self, tier: u8) -> u16 {
        self.part.weight_in(tier).unwrap_or(0)
    }

    /// Whether the slot's backend was removed.
    pub(super) fn is_vacant(&self) -> bool {
        self.name.as_bytes().is_empty()
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// Its weight: its share among the others, 0 = quiesced.
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// Its tier: those of the lowest one that has an eligible backend serve.
    pub fn tier(&self) -> u8 {
        (self.part.0 >> 16) as u8
    }

    /// What the operator set.
    pub fn state(&self) -> State {
        self.state
    }

    /// How often it was picked since it was added.
    pub fn picks(&self) -> u64 {
        self.picks
    }
}
