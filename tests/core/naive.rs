//! A pool in the plainest form: one list, walked from end to end by every command.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use redis_lb::lb::{Added, Algorithm, Replaced, State};

/// Where credits saturate.
pub const CREDIT_MAX: i128 = 1 << 60;

#[derive(Clone, Debug)]
pub struct Member {
    pub name: Vec<u8>,
    pub weight: u16,
    pub state: State,
    pub credit: i128,
    pub picks: u64,
}

#[derive(Clone, Debug)]
pub struct Naive {
    pub members: Vec<Member>,
    pub policy: Algorithm,
    /// How many picks it ever answered.
    pub picks: u64,
    /// How many members stand before the cursor of round robin.
    rr: usize,
    chance: Option<Xoshiro256PlusPlus>,
}

#[derive(Clone, Debug)]
pub struct Wanted {
    pub algorithm: Option<Algorithm>,
    pub count: usize,
    pub distinct: bool,
    pub exclude: Vec<Vec<u8>>,
}

impl Naive {
    pub fn new() -> Naive {
        Naive {
            members: vec![],
            policy: Algorithm::WRR,
            picks: 0,
            rr: 0,
            chance: None,
        }
    }

    pub fn find(&mut self, name: &[u8]) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.name == name)
    }

    pub fn add(&mut self, name: &[u8], weight: Option<u16>) -> Added {
        if let Some(member) = self.find(name) {
            return match member.reweight(weight.unwrap_or(member.weight)) {
                true => Added::Reweighted,
                false => Added::Unchanged,
            };
        }
        self.members.push(Member {
            name: name.to_vec(),
            weight: weight.unwrap_or(1),
            state: State::Up,
            credit: 0,
            picks: 0,
        });
        Added::New
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(at) = self.members.iter().position(|m| m.name == name) else {
            return false;
        };
        self.members.remove(at);
        if at < self.rr {
            self.rr -= 1;
        }
        true
    }

    pub fn set(&mut self, list: &[(Vec<u8>, u16)]) -> Replaced {
        let gone: Vec<Vec<u8>> = (self.members.iter())
            .map(|m| m.name.clone())
            .filter(|name| list.iter().all(|(n, _)| n != name))
            .collect();
        gone.iter().for_each(|name| {
            self.remove(name);
        });
        let added: Vec<Added> = list
            .iter()
            .map(|(name, weight)| self.add(name, Some(*weight)))
            .collect();
        let count = |what| added.iter().filter(|a| **a == what).count();
        Replaced {
            added: count(Added::New),
            removed: gone.len(),
            reweighted: count(Added::Reweighted),
        }
    }

    pub fn seed(&mut self, seed: u64) {
        self.chance = Some(Xoshiro256PlusPlus::seed_from_u64(seed));
    }

    pub fn picks(&mut self, wanted: &Wanted) -> Vec<Vec<u8>> {
        let mut out = wanted.exclude.clone();
        let mut picked = vec![];
        for _ in 0..wanted.count {
            let Some(name) = self.pick(wanted.algorithm.unwrap_or(self.policy), &out) else {
                break;
            };
            if wanted.distinct {
                out.push(name.clone());
            }
            picked.push(name);
        }
        picked
    }

    fn pick(&mut self, algorithm: Algorithm, out: &[Vec<u8>]) -> Option<Vec<u8>> {
        let eligible: Vec<usize> = (self.members.iter().enumerate())
            .filter(|(_, m)| m.is_available() && !out.contains(&m.name))
            .map(|(i, _)| i)
            .collect();
        if eligible.is_empty() {
            return None;
        }
        let weights: u64 = eligible
            .iter()
            .map(|&i| u64::from(self.members[i].weight))
            .sum();
        let at = match algorithm.name() {
            "rr" => {
                let after = eligible.iter().find(|&&i| i >= self.rr);
                let at = *after.unwrap_or(&eligible[0]);
                self.rr = at + 1;
                at
            }
            "wrr" => {
                let mut best = eligible[0];
                for &i in &eligible {
                    let m = &mut self.members[i];
                    m.credit = (m.credit + i128::from(m.weight)).min(CREDIT_MAX);
                    if m.credit > self.members[best].credit {
                        best = i;
                    }
                }
                let m = &mut self.members[best];
                m.credit = (m.credit - i128::from(weights)).max(-CREDIT_MAX);
                best
            }
            "random" => eligible[self.below(eligible.len() as u64) as usize],
            "wrandom" => {
                let mut left = self.below(weights);
                *(eligible.iter())
                    .find(|&&i| {
                        let weight = u64::from(self.members[i].weight);
                        let here = left < weight;
                        left = left.wrapping_sub(weight);
                        here
                    })
                    .unwrap()
            }
            other => panic!("the naive pool does not know {other}"),
        };
        self.picks += 1;
        self.members[at].picks += 1;
        Some(self.members[at].name.clone())
    }

    /// Lemire's way, by rejection, with 128-bit arithmetic throughout.
    fn below(&mut self, n: u64) -> u64 {
        let chance = self
            .chance
            .get_or_insert_with(|| Xoshiro256PlusPlus::seed_from_u64(0));
        loop {
            let product = u128::from(chance.next_u64()) * u128::from(n);
            if product % (1 << 64) >= (1 << 64) % u128::from(n) {
                return (product >> 64) as u64;
            }
        }
    }
}

impl Member {
    /// Whether that changed anything.
    pub fn reweight(&mut self, weight: u16) -> bool {
        if weight == self.weight {
            return false;
        }
        self.credit = match self.weight {
            0 => 0,
            old => self.credit * i128::from(weight) / i128::from(old),
        };
        self.credit = self.credit.clamp(-CREDIT_MAX, CREDIT_MAX);
        self.weight = weight;
        true
    }

    pub fn is_available(&self) -> bool {
        self.weight > 0 && self.state == State::Up
    }
}
