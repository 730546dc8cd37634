//! wrr against sequences that a real nginx picked (tests/data/nginx).

use redis_lb::lb::{Algorithm, Pool, State};

#[test]
fn wrr_is_the_sequence_of_nginx() {
    let recorded = include_str!("../data/nginx/sequences.json");
    let cases: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 40);
    for case in cases {
        let numbers = |field: &str| -> Vec<u64> {
            let list = case[field].as_array().unwrap();
            list.iter().map(|n| n.as_u64().unwrap()).collect()
        };
        let mut pool = Pool::new();
        for (i, weight) in numbers("weights").into_iter().enumerate() {
            pool.add(i.to_string().as_bytes(), Some(weight as u16));
        }
        for i in numbers("down") {
            pool.set_state(i.to_string().as_bytes(), State::Down)
                .unwrap();
        }
        for (n, i) in numbers("picks").into_iter().enumerate() {
            let picked = pool.pick(Some(Algorithm::WRR)).unwrap();
            assert_eq!(
                picked.name(),
                i.to_string().as_bytes(),
                "pick {n} of {case}"
            );
        }
    }
}

/// Too far out for a recorded file; seen from nginx 1.22.1 in a run of 140,000 picks.
#[test]
fn a_light_backend_beside_a_heavy_one_comes_where_nginx_has_it() {
    for (weights, light, places) in [
        ([65535, 1], b"1", [32768, 98304]),
        ([1, 65535], b"0", [32767, 98303]),
    ] {
        let mut pool = Pool::new();
        pool.add(b"0", Some(weights[0]));
        pool.add(b"1", Some(weights[1]));
        let mut is_light = || pool.pick(None).unwrap().name() == light;
        let seen: Vec<_> = (0..140_000).filter(|_| is_light()).collect();
        assert_eq!(seen, places);
    }
}
