//! Slow start: a backend that came back, or is new, gets its share in ten steps.

use serde::{Deserialize, Serialize};

use crate::lb::account::agenda::Agenda;
use crate::lb::account::timed::{Timed, Whose};
use crate::lb::ground::bounds::Slot;
use crate::lb::ground::clock::{Millis, SPAN_MAX};
use crate::lb::ground::kept::{Gaps, Kept};
use crate::lb::ground::memory::Mover;
use crate::lb::ground::saved::{Malformed, Reader, Writer, checked};
use crate::lb::ground::sparse::Sparse;

/// The steps. In each one the weight is a tenth more, and in the last one it is whole.
pub const STEPS: u32 = 10;

/// The slow starts of a pool.
#[derive(Clone, Debug, Default)]
pub struct Starts {
    of: Sparse<Option<Start>>,
    steps: Agenda,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Start {
    /// When it began.
    from: Millis,
    /// How long all ten steps take.
    span: Millis,
    /// The present step, 1 to 9.
    step: u32,
}

impl Start {
    /// When that step ends.
    fn end_of(&self, step: u32) -> Millis {
        self.from + (self.span * Millis::from(step)).div_ceil(Millis::from(STEPS))
    }
}

impl Starts {
    /// How many tenths of its weight a backend runs with.
    pub fn tenths(&self, slot: Slot) -> u32 {
        self.start_of(slot).map_or(STEPS, |start| start.step)
    }

    fn start_of(&self, slot: Slot) -> Option<Start> {
        *self.of.get(slot)?
    }

    /// A backend starts slowly.
    pub fn begin(&mut self, slot: Slot, span: Millis, clock: Millis) {
        let start = Start {
            from: clock,
            span,
            step: 1,
        };
        self.set(slot, Some(start));
    }

    /// A backend has its whole weight.
    pub fn end(&mut self, slot: Slot) {
        self.set(slot, None);
    }

    /// Whether all have their whole weight.
    pub fn is_default(&self) -> bool {
        self.of.iter().all(|(_, start)| start.is_none())
    }

    fn set(&mut self, slot: Slot, start: Option<Start>) {
        let before = self.start_of(slot);
        if before != start {
            *self.of.at(slot) = start;
        }
        if let Some(start) = before {
            self.steps.remove(start.end_of(start.step), slot);
        }
        if let Some(start) = start {
            self.steps.add(start.end_of(start.step), slot);
        }
    }

    /// Writes the start of a backend.
    pub fn save(&self, slot: Slot, to: &mut Writer) {
        to.put(&self.start_of(slot));
    }

    /// Reads the start of a backend.
    pub fn load(&mut self, slot: Slot, clock: Millis, from: &mut Reader) -> Result<(), Malformed> {
        let start: Option<Start> = from.get()?;
        let is_sound = start.is_none_or(|start| {
            let is_span = (1..=SPAN_MAX).contains(&start.span);
            is_span && start.from <= clock && (1..STEPS).contains(&start.step)
        });
        self.set(slot, checked("slow start", start, is_sound)?);
        Ok(())
    }
}

impl Kept for Starts {
    fn forget(&mut self, slot: Slot) {
        self.end(slot);
    }

    fn renumber(&mut self, gaps: &Gaps) {
        self.of.renumber(gaps);
        self.steps.renumber(gaps);
    }

    fn relocate(&mut self, by: &mut impl Mover) {
        self.of.relocate(by);
    }

    fn heap_bytes(&self) -> usize {
        self.of.heap_bytes() + self.steps.heap_bytes()
    }
}

impl Timed for Starts {
    fn due(&self) -> Option<Millis> {
        self.steps.first().map(|(time, _)| time)
    }

    fn end_first(&mut self, clock: Millis) -> Option<Whose> {
        let (_, slot) = self.steps.first().filter(|(time, _)| *time <= clock)?;
        let next = self.start_of(slot).and_then(|start| {
            let mut later = start.step + 1..STEPS;
            let step = later.find(|step| start.end_of(*step) > clock)?;
            Some(Start { step, ..start })
        });
        self.set(slot, next);
        Some(Whose::of(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(starts: &mut Starts, clock: Millis) -> u32 {
        while starts.end_first(clock).is_some() {}
        starts.tenths(0)
    }

    #[test]
    fn it_rises_by_a_tenth_in_each_step_however_the_clock_moves() {
        for span in [1, 7, 10, 1000, 12345] {
            let mut by_one = Starts::default();
            by_one.begin(0, span, 500);
            for after in 0..=span {
                let tenths = tick(&mut by_one, 500 + after);
                // The step is the number of tenths of the span that have passed, and one more.
                assert_eq!(tenths, (after * 10 / span + 1).min(10) as u32);
                let mut at_once = Starts::default();
                at_once.begin(0, span, 500);
                assert_eq!(tick(&mut at_once, 500 + after), tenths);
            }
            assert!(by_one.is_default());
            assert_eq!(by_one.due(), None);
        }
    }
}
