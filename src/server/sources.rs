//! Whether a client's commands come from the stream of a primary, remembered by the client's id.
//!
//! A client stays what it is: the server makes a new one, with a new id, for each link to a primary, and marks it before its first
//! command. (Valkey 9 marks a link from another node of a cluster when that node asks to send a slot. It sends no other command
//! before.) So an answer is remembered until its place is needed for another client, or until this server changes its role.

use std::sync::atomic::{AtomicU64, Ordering};

/// The places for answers. A client's place is chosen by its id, and ids count up.
static KNOWN: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
const PLACES: usize = 4096;

/// Whether the client of that id is a primary. Asks the server only if it is not known.
pub fn is_replicated(id: u64, ask: impl FnOnce() -> bool) -> bool {
    let place = &KNOWN[id as usize % PLACES];
    let known = place.load(Ordering::Relaxed);
    // An id of 0 is that of no client, which sends nothing from a stream.
    if known >> 1 == id {
        return known & 1 == 1;
    }
    let is_replicated = ask();
    place.store(id << 1 | u64::from(is_replicated), Ordering::Relaxed);
    is_replicated
}

/// Forgets all answers.
pub fn forget() {
    KNOWN
        .iter()
        .for_each(|place| place.store(0, Ordering::Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_asked_once_for_each_client() {
        let mut asked = 0;
        let mut is_it = |id: u64, answer| {
            is_replicated(id, || {
                asked += 1;
                answer
            })
        };
        for _ in 0..3 {
            assert!(is_it(7, true));
            assert!(!is_it(8, false));
            assert!(!is_it(0, true), "it is no client");
        }
        let in_its_place = 7 + PLACES as u64;
        assert!(!is_it(in_its_place, false));
        assert!(is_it(7, true));
        forget();
        assert!(!is_it(7, false));
        assert_eq!(asked, 5);
    }
}
