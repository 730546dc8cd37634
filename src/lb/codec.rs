//! Pools as bytes: what RDB files, DUMP and LB.LOAD carry, and what a digest is made of.
//!
//! ```text
//! 1, Head, then for each backend in order of addition a Member
//! 2, the same, Account, for each backend in order of addition an Entry, and the open leases by number
//! ```
//!
//! The second form is written where there are leases, limits, a clock: a pool that uses none of these has the bytes, and so
//! the digest, that it always had. All is written by postcard (varints, zigzag for signed numbers). The bytes are canonical: equal
//! pools give equal bytes, however they are laid out in memory. Nothing read is believed: each field is checked,
//! and memory grows only by what the bytes really hold.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::backend::{Backend, Part, State};
use super::capacity::Capacity;
use super::chance::Chance;
use super::clock::{self, CLOCK_MAX, SPAN_MAX};
use super::limit::{Bucket, LEASES_MAX};
use super::name::Name;
use super::pick::{Algorithm, CREDIT_MAX};
use super::pool::{COUNTER_MAX, Pool};
use super::{BACKENDS_MAX, NAME_MAX, TIERS_MAX};

/// The first byte of a pool that keeps no account of time, leases and limits.
const POOL: u8 = 1;
/// And of one that does.
const ACCOUNTED: u8 = 2;
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

#[derive(Serialize, Deserialize)]
struct Account {
    clock: u64,
    /// How many picks least connections has made.
    turns: u64,
    max: u32,
    bucket: Option<Bucket>,
    /// The number of the next lease.
    next: u64,
    epochs: u32,
    owners: u32,
    leases: u32,
}

/// What is kept of a backend beside its membership.
#[derive(Serialize, Deserialize)]
struct Entry {
    tier: u8,
    max: u32,
    bucket: Option<Bucket>,
    last: u64,
    done: u64,
    failed: u64,
    expired: u64,
    latency: u64,
    latencies: u64,
}

/// An epoch, from its first lease on. They stand behind the entries.
#[derive(Serialize, Deserialize)]
struct Epoch {
    first: u64,
    epoch: u64,
}

/// The name of an owner. They stand behind the epochs, in the order of their oldest leases.
#[derive(Serialize, Deserialize)]
struct Owner<'a>(#[serde(with = "serde_bytes")] &'a [u8]);

/// An open lease.
#[derive(Serialize, Deserialize)]
struct Lease {
    number: u64,
    /// How many backends stand before its own.
    member: u32,
    /// Its owner's place among the owners.
    owner: Option<u32>,
    granted: u64,
    deadline: u64,
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
        chance: pool.chance.as_deref().cloned(),
        members: pool.len() as u32,
    };
    let account = pool.capacity.as_ref();
    let account = account.filter(|c| !c.is_default() || pool.backends().any(|b| b.tier() > 0));
    let mut bytes = vec![if account.is_some() { ACCOUNTED } else { POOL }];
    write(&head, &mut bytes);
    for (slot, backend) in pool.slots() {
        let member = Member {
            name: backend.name(),
            weight: backend.weight,
            state: backend.state as u8,
            credit: pool.credit(slot),
            picks: backend.picks,
        };
        write(&member, &mut bytes);
    }
    if let Some(capacity) = account {
        encode_account(pool, capacity, &mut bytes);
    }
    bytes
}

fn encode_account(pool: &Pool, capacity: &Capacity, bytes: &mut Vec<u8>) {
    let leases = capacity.leases.by_age();
    let mut owners = Vec::new();
    let mut places = HashMap::new();
    for owner in leases.iter().filter_map(|lease| lease.owner) {
        places.entry(owner).or_insert_with(|| {
            owners.push(owner);
            owners.len() as u32 - 1
        });
    }
    let epochs: Vec<_> = capacity.leases.epochs().collect();
    let account = Account {
        clock: capacity.clock,
        turns: capacity.turns,
        max: capacity.limit.max,
        bucket: capacity.limit.bucket.as_deref().copied(),
        next: capacity.leases.next,
        epochs: epochs.len() as u32,
        owners: owners.len() as u32,
        leases: leases.len() as u32,
    };
    write(&account, bytes);
    let mut members = vec![0; pool.backends.len()];
    for (member, (slot, backend)) in pool.slots().enumerate() {
        members[slot] = member as u32;
        let record = &capacity.records[slot];
        let entry = Entry {
            tier: backend.tier(),
            max: record.limit.max,
            bucket: record.limit.bucket.as_deref().copied(),
            last: record.last,
            done: record.done,
            failed: record.failed,
            expired: record.expired,
            latency: record.latency,
            latencies: record.latencies,
        };
        write(&entry, bytes);
    }
    for epoch in epochs {
        let (first, epoch) = (epoch.first, epoch.epoch);
        write(&Epoch { first, epoch }, bytes);
    }
    owners.iter().for_each(|owner| write(&Owner(owner), bytes));
    for lease in leases {
        let lease = Lease {
            number: lease.id.number,
            member: members[lease.slot],
            owner: lease.owner.map(|owner| places[owner]),
            granted: lease.granted,
            deadline: lease.deadline,
        };
        write(&lease, bytes);
    }
}

/// The pool that the bytes hold.
pub fn decode(bytes: &[u8]) -> Result<Stored, Malformed> {
    let (format, rest) = bytes.split_first().ok_or(Malformed::Syntax)?;
    match *format {
        POOL | ACCOUNTED => decode_pool(rest, *format == ACCOUNTED).map(Stored::Pool),
        POISONED if rest.is_empty() => Ok(Stored::Poisoned),
        POISONED => Err(Malformed::Syntax),
        _ => Err(Malformed::Version),
    }
}

fn decode_pool(bytes: &[u8], is_accounted: bool) -> Result<Pool, Malformed> {
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
    pool.chance = checked("generator", head.chance, fits)?.map(Box::new);
    for _ in 0..members {
        let (member, after): (Member, _) = read(rest)?;
        pool.push(decode_member(&pool, member)?);
        rest = after;
    }
    pool.rr.next = checked("cursor", head.rr as usize, head.rr as usize <= members)?;
    if is_accounted {
        rest = decode_account(&mut pool, rest)?;
    }
    match rest.is_empty() {
        _ if pool.is_void() => Err(Malformed::Field("size")),
        true => Ok(pool),
        false => Err(Malformed::Syntax),
    }
}

fn decode_account<'a>(pool: &mut Pool, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (account, mut rest): (Account, _) = read(bytes)?;
    let clock = checked("clock", account.clock, account.clock <= CLOCK_MAX)?;
    let mut capacity = Box::new(Capacity::of(&pool.backends));
    capacity.clock = clock;
    capacity.turns = checked("turns", account.turns, account.turns <= COUNTER_MAX)?;
    let next = checked("lease number", account.next, account.next <= COUNTER_MAX)?;
    let (max, bucket) = decode_limit(account.max, account.bucket, clock)?;
    capacity.restore_limit(None, max, bucket);
    let mut tiers = BTreeSet::from([0]);
    for slot in 0..pool.backends.len() {
        let (entry, after): (Entry, _) = read(rest)?;
        rest = after;
        let (max, bucket) = decode_limit(entry.max, entry.bucket, clock)?;
        capacity.restore_limit(Some(slot), max, bucket);
        let counter = |field, n| checked(field, n, n <= COUNTER_MAX);
        let record = &mut capacity.records[slot];
        record.last = checked("turn", entry.last, entry.last <= account.turns)?;
        record.done = counter("leases", entry.done)?;
        record.failed = checked("failures", entry.failed, entry.failed <= entry.done)?;
        record.expired = counter("leases", entry.expired)?;
        record.latency = counter("latency", entry.latency)?;
        record.latencies = checked("latency", entry.latencies, entry.latencies <= entry.done)?;
        tiers.insert(entry.tier);
        checked("tiers", (), tiers.len() <= TIERS_MAX)?;
        let credit = pool.credit(slot);
        pool.set_tier(slot, entry.tier, credit);
    }
    let (mut first, mut last) = (None, None);
    for _ in 0..account.epochs {
        let (epoch, after): (Epoch, _) = read(rest)?;
        rest = after;
        let follows = last < Some(epoch.first) && epoch.first <= next;
        capacity.leases.next = checked("epochs", epoch.first, follows)?;
        last = Some(epoch.first);
        first = first.or(last);
        capacity.leases.append_epoch(epoch.epoch);
    }
    let mut owners = Vec::new();
    for _ in 0..account.owners {
        let (Owner(name), after) = read(rest)?;
        rest = after;
        let is_name = (1..=NAME_MAX).contains(&name.len());
        owners.push(checked("owner's name", name, is_name)?);
    }
    let mut seen = 0;
    let mut before = None;
    for _ in 0..account.leases {
        let (lease, after): (Lease, _) = read(rest)?;
        rest = after;
        let follows = before < Some(lease.number) && lease.number < next;
        let has_epoch = first.is_some_and(|first| first <= lease.number);
        let number = checked("lease number", lease.number, follows && has_epoch)?;
        before = Some(number);
        let slot = lease.member as usize;
        let slot = checked("lease's backend", slot, slot < pool.backends.len())?;
        let owner = match lease.owner.map(|owner| owner as usize) {
            Some(owner) => {
                let is_known = owner <= seen && owner < owners.len();
                seen += usize::from(checked("lease's owner", owner, is_known)? == seen);
                Some(owners[owner])
            }
            None => None,
        };
        let granted = checked("lease", lease.granted, lease.granted <= clock)?;
        let deadline = lease.deadline;
        let is_open = clock < deadline && deadline <= clock::deadline(clock, SPAN_MAX);
        let deadline = checked("deadline", deadline, is_open)?;
        capacity
            .leases
            .insert(number, slot, owner, granted, deadline);
    }
    checked("owners", (), seen == owners.len())?;
    let are_open = capacity.leases.epochs().count() == account.epochs as usize;
    checked("epochs", (), are_open)?;
    capacity.leases.next = next;
    pool.capacity = Some(capacity);
    let states = pool.backends.iter().enumerate();
    let down: Vec<_> = states
        .filter(|(_, b)| b.state == State::Down)
        .map(|(slot, _)| slot)
        .collect();
    let is_idle = down.into_iter().all(|slot| pool.leases_on(slot) == 0);
    checked("lease's backend", (), is_idle)?;
    pool.relimit_all();
    Ok(rest)
}

fn decode_limit(
    max: u32,
    bucket: Option<Bucket>,
    clock: u64,
) -> Result<(u32, Option<Bucket>), Malformed> {
    let is_sound = bucket.is_none_or(|bucket| bucket.is_sound(clock));
    Ok((
        checked("limit", max, max <= LEASES_MAX)?,
        checked("limit", bucket, is_sound)?,
    ))
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
        part: Part::of(0, 0),
        state,
        is_limited: false,
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
    use crate::lb::{Limits, Rate, Request, Terms};

    fn pool() -> Pool {
        let mut pool = Pool::new();
        pool.add(b"a", Some(5));
        pool.add(b"gone", Some(3));
        pool.add(&[0xff; 512], Some(0));
        pool.add(b"\0\r\n", Some(65535));
        pool.set_state(b"a", State::Drain).unwrap();
        pool.seed(7);
        // Least connections keeps account.
        let algorithms = crate::lb::ALGORITHMS.into_iter();
        for algorithm in algorithms.filter(|a| a.name() != "lc") {
            let request = Request {
                algorithm: Some(algorithm),
                count: 9,
                distinct: false,
                exclude: vec![],
                terms: None,
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
                count: 2,
                distinct: false,
                exclude: vec![b"\0\r\n"],
                terms: Some(Terms { span: 3000, owner }),
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

    #[test]
    fn what_is_written_is_read() {
        for (pool, format) in [(pool(), POOL), (accounted(), ACCOUNTED)] {
            let bytes = encode(&pool);
            assert_eq!(bytes[0], format);
            let pool = decoded(&bytes);
            pool.check();
            assert_eq!(encode(&pool), bytes);
        }
        assert!(matches!(decode(&encode_poisoned()), Ok(Stored::Poisoned)));
    }

    /// What a pool without account was written as by the first release stays its bytes, and its digest.
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
