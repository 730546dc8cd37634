//! Time, as a pool knows it: its own clock in milliseconds, which only LB.TICK moves, and only forward.

/// Milliseconds, of a clock since 1970 or of a span.
pub type Millis = u64;

/// The longest span that a command takes: 34 years.
pub const SPAN_MAX: Millis = 1 << 40;
/// The latest that a clock can show: the year 6429. A deadline behind it still fits into 48 bits.
pub const CLOCK_MAX: Millis = 1 << 47;
/// The step in which a primary moves the clocks of its pools, so that a busy pool has 100 ticks a second at most.
pub const STEP: Millis = 10;

/// When a span ends that starts now. The clock may be a step behind the time, so this is a step later than it
/// looks: at least the span from now, and two steps more at most.
pub fn deadline(clock: Millis, span: Millis) -> Millis {
    (clock + span + STEP).next_multiple_of(STEP)
}

/// From when on the clock surely shows that time, however late it was moved before: a primary moves it only when it comes
/// into another step.
pub fn shown(time: Millis) -> Millis {
    time.next_multiple_of(STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_never_cut_short_and_lasts_two_steps_longer_at_most() {
        for clock in 1000..1020 {
            for span in [1, 5, 10, 11, 99] {
                let end = deadline(clock, span);
                // The time is at or up to a step behind the clock.
                for now in clock..clock + STEP - clock % STEP {
                    assert!((now + span..=now + span + 2 * STEP).contains(&end));
                }
            }
        }
    }
}
