//! Any bytes as a payload.

#![no_main]

mod sound;

libfuzzer_sys::fuzz_target!(|payload: &[u8]| {
    sound::holds_a_pool(payload);
});
