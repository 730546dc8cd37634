//! Credits at their bounds, where only a payload can put them.

use redis_lb::lb::{Limits, Pool, Request, codec};

const CREDIT_MAX: i64 = 1 << 60;

fn at_the_bounds(credit: fn(usize) -> i64) -> Pool {
    let mut pool = Pool::new();
    for i in 0..200usize {
        let name = i.to_be_bytes();
        pool.add(&name, Some(65_535 - i as u16));
        let limits = Limits {
            tier: Some((i % 4 / 2) as u8),
            ..Limits::default()
        };
        pool.set_limits(Some(&name), &limits);
        pool.set_credit(&name, credit(i));
    }
    pool
}

#[test]
fn a_look_ahead_at_the_bounds_leaves_no_trace_and_is_right() {
    let sides: [fn(usize) -> i64; 5] = [
        |_| CREDIT_MAX,
        |_| -CREDIT_MAX,
        |i| CREDIT_MAX * if i % 2 == 0 { 1 } else { -1 },
        |i| CREDIT_MAX * if i == 0 { 1 } else { -1 },
        |i| CREDIT_MAX - (i as i64) * (CREDIT_MAX / 100),
    ];
    for credit in sides {
        for distinct in [false, true] {
            let mut pool = at_the_bounds(credit);
            let request = Request {
                algorithm: None,
                item: None,
                count: 500,
                distinct,
                exclude: vec![],
                terms: None,
                costs: vec![],
                sticky: None,
            };
            let bytes = codec::encode(&pool);
            let foreseen = pool.peek(&request);
            assert_eq!(codec::encode(&pool), bytes);
            assert_eq!(foreseen, Some(pool.picks(&request).slots));
        }
    }
}
