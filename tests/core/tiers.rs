//! Tiers that come and go.

use redis_lb::lb::codec::{self, Stored};
use redis_lb::lb::{Limits, Pool, State, TIERS_MAX};

fn set_tier(pool: &mut Pool, name: &[u8], tier: u8) {
    assert!(pool.has_room_for_tier(tier));
    let limits = Limits {
        tier: Some(tier),
        ..Limits::default()
    };
    pool.set_limits(Some(name), &limits);
}

/// A newcomer is of tier 0, so there must be room for that one whatever the others are of.
#[test]
fn a_pool_of_as_many_tiers_as_there_can_be_takes_newcomers_and_can_be_loaded() {
    let mut pool = Pool::new();
    let mut tiers = 0;
    for tier in 1..=40u8 {
        pool.add(&[tier], None);
        if pool.has_room_for_tier(tier) {
            set_tier(&mut pool, &[tier], tier);
            tiers += 1;
        }
    }
    // Only those are left that are not of tier 0.
    (20..=40u8).for_each(|tier| _ = pool.remove(&[tier]));
    pool.add(b"newcomer", None);
    pool.check();
    assert_eq!(tiers, TIERS_MAX - 1);
    assert!(matches!(
        codec::decode(&codec::encode(&pool)),
        Ok(Stored::Pool(_))
    ));
}

/// While none is eligible a tier may serve that has lost its last backend.
#[test]
fn tiers_that_come_and_go_leave_nothing_behind() {
    let mut pool = Pool::new();
    let names: Vec<[u8; 1]> = (0..20).map(|n| [n]).collect();
    names.iter().for_each(|name| _ = pool.add(name, None));
    (names[1..].iter()).for_each(|name| _ = pool.set_state(name, State::Drain));
    set_tier(&mut pool, &names[0], 200);
    pool.set_state(&names[0], State::Drain);
    set_tier(&mut pool, &names[0], 0);
    for tier in 1..TIERS_MAX as u8 {
        set_tier(&mut pool, &names[usize::from(tier)], tier);
    }
    let bytes = pool.bytes(0);
    for tier in 20..180 {
        set_tier(&mut pool, &names[1], 0);
        set_tier(&mut pool, &names[1], tier);
        pool.check();
    }
    assert!(
        pool.bytes(0) < bytes + bytes / 4,
        "{bytes}, {}",
        pool.bytes(0)
    );
}
