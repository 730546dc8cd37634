//! Pools as bytes: what RDB files, DUMP and LB.LOAD carry, and what a digest is made of.
//!
//! ```text
//! format (1 byte), Head, then for each backend in order of addition a Member
//! ```
//!
//! Head and Member are written by postcard (varints, zigzag for signed numbers). The bytes are canonical: equal
//! pools give equal bytes, however they are laid out in memory. Nothing read is believed: each field is checked,
//! and memory grows only by what the bytes really hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::backend::{Backend, State};
use super::chance::Chance;
use super::name::Name;
use super::pick::{Algorithm, CREDIT_MAX};
use super::pool::Pool;
use super::{BACKENDS_MAX, NAME_MAX};

/// The first byte of a whole pool.
const POOL: u8 = 1;
/// The only byte of a pool that was poisoned: of that one nothing may be kept but the fact.
const POISONED: u8 = 0;

#[derive(Serialize, Deserialize)]
struct Head {
    rules: u8,
    policy: u8,
    picks: u64,
    /// How many backends stand before the cursor of round robin.
    rr: u32,
    chance: Option<Chance>,
    members: u32,
}

#[derive(Serialize, Deserialize)]
struct Member<'a> {
    #[serde(with = "serde_bytes")]
    name: &'a [u8],
    weight: u16,
    state: u8,
    credit: i64,
    picks: u64,
}

/// What bytes can hold.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are pools; a box costs a cache miss a pick"
)]
pub enum Stored {
    /// A pool.
    Pool(Pool),
    /// What is left of a pool that was poisoned.
    Poisoned,
}

/// Why bytes hold no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// They end too early or go on too long, or a number in them is none.
    Syntax,
    /// They were written by a release that knows more.
    Version,
    /// This field has a value that no pool has.
    Field(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Syntax => f.write_str("it is cut off or damaged"),
            Malformed::Version => f.write_str("it was written by a newer redis-lb"),
            Malformed::Field(field) => write!(f, "its {field} is out of range"),
        }
    }
}

/// What stands for a poisoned pool.
pub fn encode_poisoned() -> Vec<u8> {
    vec![POISONED]
}

/// The pool as bytes.
pub fn encode(pool: &Pool) -> Vec<u8> {
    let head = Head {
        rules: pool.rules,
        policy: pool.policy.code(),
        picks: pool.picks,
        rr: pool.members_before(pool.rr.next) as u32,
        chance: pool.chance.clone(),
        members: pool.len() as u32,
    };
    let mut bytes = vec![POOL];
    write(&head, &mut bytes);
    for backend in pool.backends() {
        let member = Member {
            name: backend.name(),
            weight: backend.weight,
            state: backend.state as u8,
            credit: pool.race.credit(backend),
            picks: backend.picks,
        };
        write(&member, &mut bytes);
    }
    bytes
}

/// The pool that the bytes hold.
pub fn decode(bytes: &[u8]) -> Result<Stored, Malformed> {
    let (format, rest) = bytes.split_first().ok_or(Malformed::Syntax)?;
    match *format {
        POOL => decode_pool(rest).map(Stored::Pool),
        POISONED if rest.is_empty() => Ok(Stored::Poisoned),
        POISONED => Err(Malformed::Syntax),
        _ => Err(Malformed::Version),
    }
}

fn decode_pool(bytes: &[u8]) -> Result<Pool, Malformed> {
    let (head, mut rest): (Head, _) = read(bytes)?;
    if !(1..=Pool::RULES).contains(&head.rules) {
        return Err(Malformed::Version);
    }
    let mut pool = Pool::new();
    pool.rules = head.rules;
    pool.policy = Algorithm::by_code(head.policy).ok_or(Malformed::Version)?;
    pool.picks = checked("picks", head.picks, head.picks <= i64::MAX as u64)?;
    let members = checked(
        "size",
        head.members as usize,
        head.members as usize <= BACKENDS_MAX,
    )?;
    let fits = head.chance.as_ref().is_none_or(Chance::is_sound);
    pool.chance = checked("generator", head.chance, fits)?;
    for _ in 0..members {
        let (member, after): (Member, _) = read(rest)?;
        pool.push(decode_member(&pool, member)?);
        rest = after;
    }
    pool.rr.next = checked("cursor", head.rr as usize, head.rr as usize <= members)?;
    match rest.is_empty() {
        _ if pool.is_void() => Err(Malformed::Field("size")),
        true => Ok(pool),
        false => Err(Malformed::Syntax),
    }
}

fn decode_member(pool: &Pool, member: Member) -> Result<Backend, Malformed> {
    let is_name = (1..=NAME_MAX).contains(&member.name.len());
    let name = checked("backend's name", member.name, is_name)?;
    let name = checked("backend's name", name, pool.find(name).is_none())?;
    let state = State::ALL.get(usize::from(member.state));
    let (state, _) = *state.ok_or(Malformed::Field("backend's state"))?;
    let credits = -CREDIT_MAX..=CREDIT_MAX;
    Ok(Backend {
        name: Name::new(name),
        credit: checked(
            "backend's credit",
            member.credit,
            credits.contains(&member.credit),
        )?,
        picks: checked(
            "backend's picks",
            member.picks,
            member.picks <= i64::MAX as u64,
        )?,
        weight: member.weight,
        live: 0,
        state,
    })
}

fn checked<T>(field: &'static str, value: T, is_in_range: bool) -> Result<T, Malformed> {
    match is_in_range {
        true => Ok(value),
        false => Err(Malformed::Field(field)),
    }
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Malformed> {
    postcard::take_from_bytes(bytes).map_err(|_| Malformed::Syntax)
}

fn write<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    let whole = std::mem::take(bytes);
    *bytes = postcard::to_extend(value, whole).expect("a vector takes all bytes");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::Request;

    fn pool() -> Pool {
        let mut pool = Pool::new();
        pool.add(b"a", Some(5));
        pool.add(b"gone", Some(3));
        pool.add(&[0xff; 512], Some(0));
        pool.add(b"\0\r\n", Some(65535));
        pool.set_state(b"a", State::Drain).unwrap();
        pool.seed(7);
        for algorithm in crate::lb::ALGORITHMS {
            let request = Request {
                algorithm: Some(algorithm),
                count: 9,
                distinct: false,
                exclude: vec![],
            };
            pool.picks(&request);
        }
        pool.remove(b"gone");
        pool
    }

    fn decoded(bytes: &[u8]) -> Pool {
        match decode(bytes) {
            Ok(Stored::Pool(pool)) => pool,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = encode(&pool());
        let pool = decoded(&bytes);
        pool.check();
        assert_eq!(encode(&pool), bytes);
        assert!(matches!(decode(&encode_poisoned()), Ok(Stored::Poisoned)));
    }

    #[test]
    fn no_part_of_a_pool_is_a_pool() {
        let bytes = encode(&pool());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode(&longer).unwrap_err(), Malformed::Syntax);
    }

    #[test]
    fn what_no_pool_has_is_refused() {
        let refused = |head: Head, members: &[Member]| {
            let mut bytes = vec![POOL];
            write(&head, &mut bytes);
            members.iter().for_each(|member| write(member, &mut bytes));
            decode(&bytes).err()
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
        let zeros = [POOL, 1, 2, 0, 0, 1, 0, 0, 0, 0, 0];
        assert_eq!(decode(&zeros).err(), field("generator"));
    }
}
