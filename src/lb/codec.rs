//! Pools as bytes. RDB files, DUMP and LB.LOAD carry them, and digests are made of them.
//!
//! ```text
//! 0  (a poisoned pool: nothing of it may be kept)
//! 1, rules, policy, picks, cursor of rr, generator,
//!    number of backends, and for each one in order of addition
//!        name, weight, state, credit of wrr, picks
//! 2, the same, and then
//!    clock, turns of lc, limit of the pool,
//!    number of the next lease, numbers of epochs, owners and leases, and for each backend
//!        tier, limit, last turn of lc, tally
//!    the epochs, the owners, the open leases by number
//! 3, the same, and then for each algorithm that came later, and has something to save
//!    its code, the length of its section, its section
//! ```
//!
//! A pool is written in the first form that holds it. So a pool without leases, limits and a clock has the bytes, and
//! the digest, that it always had. The bytes are canonical: equal pools give equal bytes, however they are laid out in memory.
//! This file knows the frame. `pool/saved.rs` knows the order of the sections, and each part of a pool knows its own.

use super::ground::saved::{Reader, Writer};
use super::pool::{Format, Pool};

pub use super::ground::saved::Malformed;

/// The only byte of a poisoned pool.
const POISONED: u8 = 0;
/// The first byte of a pool in each form.
const PLAIN: u8 = Format::Plain as u8;
const ACCOUNTED: u8 = Format::Accounted as u8;
const SECTIONED: u8 = Format::Sectioned as u8;

/// A value of the type.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are pools; a box costs a cache miss a pick"
)]
pub enum Stored {
    /// A pool.
    Pool(Pool),
    /// A pool that was poisoned. Nothing is left of it.
    Poisoned,
}

/// A poisoned pool as bytes.
pub fn encode_poisoned() -> Vec<u8> {
    vec![POISONED]
}

/// The pool as bytes.
pub fn encode(pool: &Pool) -> Vec<u8> {
    let format = pool.format();
    let mut bytes = Writer::default();
    bytes.put(&(format as u8));
    pool.save(format, &mut bytes);
    bytes.into_bytes()
}

/// The pool that the bytes hold.
pub fn decode(bytes: &[u8]) -> Result<Stored, Malformed> {
    let mut pool = Pool::new();
    Ok(match decode_to(&mut pool, bytes)? {
        Kind::Pool => Stored::Pool(pool),
        Kind::Poisoned => Stored::Poisoned,
    })
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A pool.
    Pool,
    /// A poisoned one.
    Poisoned,
}

/// Reads a pool into a new one, at its place: to move a small pool costs a tenth of what it costs to read it. Where the bytes hold no
/// pool, that one is not to be used.
pub fn decode_to(pool: &mut Pool, bytes: &[u8]) -> Result<Kind, Malformed> {
    let (format, rest) = bytes.split_first().ok_or(Malformed::Syntax)?;
    let mut rest = Reader::of(rest);
    let format = match *format {
        POISONED => None,
        PLAIN => Some(Format::Plain),
        ACCOUNTED => Some(Format::Accounted),
        SECTIONED => Some(Format::Sectioned),
        _ => return Err(Malformed::Version),
    };
    if let Some(format) = format {
        pool.load(format, &mut rest)?;
    }
    match rest.is_at_end() {
        true => Ok(format.map_or(Kind::Poisoned, |_| Kind::Pool)),
        false => Err(Malformed::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::{Algorithm, LeaseTerms, Limits, Rate, Request, State};

    use serde::Serialize;

    /// The highest credit that a backend has.
    const CREDIT_MAX: i64 = 1 << 60;

    /// How the first form begins.
    #[derive(Serialize)]
    struct Head {
        rules: u8,
        policy: u8,
        picks: u64,
        /// How many backends stand before the cursor of round robin.
        rr: u32,
        chance: Option<[u64; 4]>,
        members: u32,
    }

    /// Then the backends follow.
    #[derive(Serialize)]
    struct Member<'a> {
        #[serde(with = "serde_bytes")]
        name: &'a [u8],
        weight: u16,
        state: u8,
        credit: i64,
        picks: u64,
    }

    fn pool() -> Pool {
        let mut pool = Pool::new();
        pool.add(b"a", Some(5));
        pool.add(b"gone", Some(3));
        pool.add(&[0xff; 512], Some(0));
        pool.add(b"\0\r\n", Some(65535));
        pool.set_state(b"a", State::Drain).unwrap();
        pool.seed(7);
        // The first form has no place for what the others keep.
        for name in ["rr", "wrr", "random", "wrandom", "p2c"] {
            let request = Request {
                algorithm: Algorithm::by_name(name.as_bytes()),
                item: None,
                count: 9,
                distinct: false,
                exclude: vec![],
                terms: None,
                costs: vec![],
                sticky: None,
            };
            pool.picks(&request);
        }
        pool.remove(b"gone");
        pool
    }

    /// The same with leases, limits, tiers and a clock.
    fn accounted() -> Pool {
        let mut pool = pool();
        let (picks, millis, burst) = (1, 1000, 3);
        let rate = Some(Some(Rate {
            picks,
            millis,
            burst,
        }));
        pool.add(b"b", Some(2));
        pool.set_state(b"a", State::Up).unwrap();
        for (name, max, tier) in [(&b"a"[..], 3, 0), (b"b", 0, 7)] {
            let (max, tier) = (Some(max), Some(tier));
            pool.set_limits(Some(name), &Limits { max, rate, tier });
        }
        pool.set_limits(
            None,
            &Limits {
                max: Some(100),
                rate,
                tier: None,
            },
        );
        for (epoch, owner) in [(5, None), (u64::MAX, Some(&b"gateway"[..]))] {
            pool.tick(pool.clock() + 2000);
            pool.open_epoch(epoch);
            let request = Request {
                algorithm: Algorithm::by_name(b"lc"),
                item: None,
                count: 2,
                distinct: false,
                exclude: vec![b"\0\r\n"],
                terms: Some(LeaseTerms { span: 3000, owner }),
                costs: vec![],
                sticky: None,
            };
            pool.picks(&request);
        }
        assert_eq!(pool.leases(), 4);
        pool
    }

    fn decoded(bytes: &[u8]) -> Pool {
        match decode(bytes) {
            Ok(Stored::Pool(pool)) => pool,
            other => panic!("{other:?}"),
        }
    }

    /// Then a command that sets that policy again changes the pool, and must reach the replicas.
    #[test]
    fn a_policy_by_latency_may_come_without_latencies() {
        let mut bytes = encode(&pool());
        let ewma = Algorithm::by_name(b"ewma").unwrap();
        bytes[2] = ewma.code();
        let Ok(Stored::Pool(mut pool)) = decode(&bytes) else {
            panic!("it is sound");
        };
        assert_eq!((pool.policy(), encode(&pool)), (ewma, bytes.clone()));
        assert!(pool.set_policy(ewma));
        assert_ne!(encode(&pool), bytes);
        assert!(!pool.set_policy(ewma));
    }

    #[test]
    fn what_is_written_is_read() {
        for (pool, format) in [(pool(), PLAIN), (accounted(), ACCOUNTED)] {
            let bytes = encode(&pool);
            assert_eq!(bytes[0], format);
            let pool = decoded(&bytes);
            pool.check();
            assert_eq!(encode(&pool), bytes);
        }
        assert!(matches!(decode(&encode_poisoned()), Ok(Stored::Poisoned)));
    }

    /// A pool without an account keeps the bytes, and so the digest, that the first release gave it.
    #[test]
    fn a_pool_whose_account_is_over_is_written_as_one_that_never_had_any() {
        let mut pool = pool();
        let bytes = encode(&pool);
        pool.set_limits(
            Some(b"a"),
            &Limits {
                max: Some(1),
                rate: None,
                tier: Some(3),
            },
        );
        assert_ne!(encode(&pool), bytes);
        pool.set_limits(
            Some(b"a"),
            &Limits {
                max: Some(0),
                rate: None,
                tier: Some(0),
            },
        );
        assert_eq!(encode(&pool), bytes);
    }

    #[test]
    fn no_part_of_a_pool_is_a_pool() {
        for bytes in [encode(&pool()), encode(&accounted())] {
            for end in 0..bytes.len() {
                assert!(decode(&bytes[..end]).is_err(), "{end} bytes");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(decode(&longer).unwrap_err(), Malformed::Syntax);
        }
    }

    #[test]
    fn what_no_pool_has_is_refused() {
        let refused = |head: Head, members: &[Member]| {
            let mut bytes = Writer::default();
            bytes.put(&PLAIN);
            bytes.put(&head);
            members.iter().for_each(|member| bytes.put(member));
            decode(&bytes.into_bytes()).err()
        };
        let head = |members: &[Member]| Head {
            rules: 1,
            policy: 2,
            picks: 0,
            rr: 0,
            chance: None,
            members: members.len() as u32,
        };
        let member = |name| Member {
            name,
            weight: 1,
            state: 0,
            credit: 0,
            picks: 0,
        };
        let field = |name| Some(Malformed::Field(name));
        let one = [member(b"a")];

        assert_eq!(refused(head(&one), &one), None);
        let newer = |f: fn(&mut Head)| {
            let mut head = head(&one);
            f(&mut head);
            refused(head, &one)
        };
        assert_eq!(
            newer(|h| h.rules = Pool::RULES + 1),
            Some(Malformed::Version)
        );
        assert_eq!(newer(|h| h.rules = 0), Some(Malformed::Version));
        assert_eq!(newer(|h| h.policy = 200), Some(Malformed::Version));
        assert_eq!(newer(|h| h.rr = 2), field("cursor"));
        assert_eq!(newer(|h| h.picks = u64::MAX), field("picks"));
        assert_eq!(newer(|h| h.members = u32::MAX), field("size"));
        assert_eq!(newer(|h| h.members = 2), Some(Malformed::Syntax));

        let with = |f: fn(&mut Member)| {
            let mut member = member(b"a");
            f(&mut member);
            refused(head(&one), &[member])
        };
        assert_eq!(with(|m| m.name = b""), field("backend's name"));
        assert_eq!(with(|m| m.name = &[1; 513]), field("backend's name"));
        assert_eq!(with(|m| m.state = 3), field("backend's state"));
        assert_eq!(
            with(|m| m.credit = CREDIT_MAX + 1),
            field("backend's credit")
        );
        assert_eq!(with(|m| m.credit = i64::MIN), field("backend's credit"));
        assert_eq!(with(|m| m.picks = 1 << 63), field("backend's picks"));

        let twice = [member(b"a"), member(b"a")];
        assert_eq!(refused(head(&twice), &twice), field("backend's name"));
        assert_eq!(refused(head(&[]), &[]), field("size"));
        assert_eq!(decode(&[9]).unwrap_err(), Malformed::Version);
        // A generator of zeros would draw zeros for ever.
        let zeros = [PLAIN, 1, 2, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(decode(&zeros).err(), field("generator"));
    }

    /// No algorithm has a section yet. A release that has some writes pools that this one must not take for others.
    #[test]
    fn sections_that_this_release_does_not_know_are_refused() {
        let sectioned = |sections: &[u8]| {
            let bytes = encode(&accounted());
            decode(&[&[SECTIONED], &bytes[1..], sections].concat()).unwrap_err()
        };
        assert_eq!(sectioned(&[]), Malformed::Field("sections"));
        assert_eq!(sectioned(&[5]), Malformed::Syntax);
        assert_eq!(sectioned(&[5, 0]), Malformed::Field("sections"));
        assert_eq!(sectioned(&[5, 1, 0]), Malformed::Version);
        assert_eq!(sectioned(&[250, 1, 0]), Malformed::Version);
    }
}
