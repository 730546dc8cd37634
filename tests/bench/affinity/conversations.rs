//! Conversations with a language model: which way to choose a replica finds its cache?
//!
//! A conversation has turns, and each turn sends all that was said before. A replica that has the beginning in its cache reads the rest
//! only. Each has slots that work alone, a queue in order of arrival, and a cache of so many tokens, from which the conversation
//! goes that was used longest ago. The module chooses by its core; the replicas and the time are simulated.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use redis_lb::lb::{
    Algorithm, LeaseId, LeaseTerms, Pool, Report, Request, SPAN_MAX, Sticky, session_hash,
};
use serde_json::{Value, json};

use crate::maps::{Backend, Map, Ring, pool};
use crate::rounded;

const REPLICAS: usize = 10;
const SLOTS: usize = 8;
/// Tokens.
const CACHE: u64 = 400_000;
/// Tokens of the prompt that a slot reads in a millisecond, and milliseconds for each token of the answer.
const READ: u64 = 4;
const WRITE: u64 = 20;
/// Milliseconds that a session sticks after its last turn.
const STICKS: u64 = 600_000;

struct Turn {
    /// Tokens.
    message: u64,
    answer: u64,
    /// Milliseconds from the answer before it to this turn.
    think: u64,
}

struct Conversation {
    start: u64,
    turns: Vec<Turn>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Hash { balance: u16 },
    Sticky,
    Alone(&'static str),
    EnvoyRing,
}

const WAYS: [(&str, Way); 8] = [
    ("hash, BALANCE 125", Way::Hash { balance: 125 }),
    ("hash, BALANCE 150", Way::Hash { balance: 150 }),
    ("hash, BALANCE 200", Way::Hash { balance: 200 }),
    ("STICKY and lc", Way::Sticky),
    ("hash without a bound", Way::Hash { balance: 0 }),
    ("Envoy RING_HASH, no bound", Way::EnvoyRing),
    ("lc", Way::Alone("lc")),
    ("p2c", Way::Alone("p2c")),
];

/// One row for each load, way and seed.
pub fn rows(loads: &[f64], seeds: u64, conversations: usize) -> Vec<Value> {
    let mut rows = vec![];
    for load in loads {
        for seed in 1..=seeds {
            let trace = trace(conversations, *load, seed);
            for (title, way) in WAYS {
                let mut row = Run::new(&trace, way, seed).found();
                row["load"] = json!(load);
                row["seed"] = json!(seed);
                row["way"] = json!(title);
                rows.push(row);
            }
        }
    }
    rows
}

// What is said

/// Uniform, above 0 and at most 1.
fn unit(chance: &mut impl Rng) -> f64 {
    ((chance.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
}

/// Lognormal with sigma 1 and this mean, at most four times as much.
fn lognormal(chance: &mut impl Rng, mean: f64) -> u64 {
    let radius = (-2.0 * unit(chance).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * unit(chance)).cos();
    let value = mean * (normal - 0.5).exp();
    value.clamp(1.0, 4.0 * mean) as u64
}

/// Conversations that begin by chance, so often that replicas whose caches have all are busy for this share of the time.
fn trace(conversations: usize, load: f64, seed: u64) -> Vec<Conversation> {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (mut start, mut work) = (0.0, 0);
    let mut starts = vec![];
    let mut trace = vec![];
    for _ in 0..conversations {
        start -= unit(&mut chance).ln();
        starts.push(start);
        // Pareto with alpha 1.3.
        let turns = (2.0 * unit(&mut chance).powf(-1.0 / 1.3)).min(200.0) as usize;
        let turns = (0..turns).map(|turn| Turn {
            message: lognormal(&mut chance, if turn == 0 { 1500.0 } else { 250.0 }),
            answer: lognormal(&mut chance, 200.0),
            think: lognormal(&mut chance, 20_000.0),
        });
        let turns: Vec<Turn> = turns.collect();
        let of = turns
            .iter()
            .map(|turn| turn.message / READ + turn.answer * WRITE);
        work += of.sum::<u64>();
        trace.push(Conversation { start: 0, turns });
    }
    let span = work as f64 / (load * (REPLICAS * SLOTS) as f64);
    for (conversation, at) in trace.iter_mut().zip(starts) {
        conversation.start = (at / start * span) as u64;
    }
    trace
}

// The replicas

#[derive(Default)]
struct Replica {
    running: usize,
    waiting: VecDeque<Job>,
    cache: Cache,
}

#[derive(Clone, Copy)]
struct Job {
    conversation: usize,
    turn: usize,
    came: u64,
    /// The tokens of the turns before.
    history: u64,
    replica: usize,
    lease: Option<LeaseId>,
}

/// The tokens of conversations, and when each was used last.
#[derive(Default)]
struct Cache {
    kept: HashMap<usize, (u64, u64)>,
    by_use: BTreeMap<u64, usize>,
    tokens: u64,
    uses: u64,
}

impl Cache {
    /// The tokens of this conversation that are there. From now on there are so many.
    fn take(&mut self, conversation: usize, tokens: u64) -> u64 {
        self.uses += 1;
        let old = self.kept.insert(conversation, (tokens, self.uses));
        let (found, used) = old.unwrap_or_default();
        self.by_use.remove(&used);
        self.by_use.insert(self.uses, conversation);
        self.tokens += tokens - found;
        while self.tokens > CACHE {
            let (_, oldest) = self.by_use.pop_first().expect("a conversation is kept");
            self.tokens -= self.kept.remove(&oldest).expect("it is kept").0;
        }
        found
    }
}

enum Event {
    Turn { conversation: usize, turn: usize },
    End(Job),
}

struct Run<'a> {
    trace: &'a [Conversation],
    way: Way,
    pool: Pool,
    ring: Option<Ring>,
    replicas: Vec<Replica>,
    /// The tokens that each conversation has so far.
    said: Vec<u64>,
    events: BinaryHeap<Reverse<(u64, usize)>>,
    all_events: Vec<Option<Event>>,
    /// What is counted: turns within this time.
    counted: (u64, u64),
    could_hit: u64,
    hit: u64,
    first_tokens: Vec<u64>,
    answers: Vec<u64>,
    excess: f64,
}

impl Run<'_> {
    fn new(trace: &[Conversation], way: Way, seed: u64) -> Run<'_> {
        let backends = (1..=REPLICAS as u32).map(|id| Backend {
            name: format!("10.0.0.{id}:8000"),
            weight: 1,
            id,
        });
        let backends: Vec<Backend> = backends.collect();
        let mut pool = pool(&backends);
        pool.seed(seed);
        pool.open_epoch(1);
        if let Way::Hash { balance } = way {
            pool.set_balance(balance);
        }
        let end = trace.last().expect("a conversation").start;
        Run {
            trace,
            way,
            pool,
            ring: (way == Way::EnvoyRing).then(|| Ring::of(&backends)),
            replicas: (0..REPLICAS).map(|_| Replica::default()).collect(),
            said: vec![0; trace.len()],
            events: BinaryHeap::new(),
            all_events: vec![],
            counted: (end / 10, end),
            could_hit: 0,
            hit: 0,
            first_tokens: vec![],
            answers: vec![],
            excess: 0.0,
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.events.push(Reverse((time, self.all_events.len())));
        self.all_events.push(Some(event));
    }

    fn found(mut self) -> Value {
        for (conversation, of) in self.trace.iter().enumerate() {
            self.at(
                of.start,
                Event::Turn {
                    conversation,
                    turn: 0,
                },
            );
        }
        while let Some(Reverse((now, event))) = self.events.pop()
            && now <= self.counted.1
        {
            while self.pool.tick(now) && self.pool.is_any_over() {}
            match self.all_events[event].take().expect("it comes once") {
                Event::Turn { conversation, turn } => self.send(now, conversation, turn),
                Event::End(job) => self.end(now, job),
            }
        }
        self.first_tokens.sort_unstable();
        self.answers.sort_unstable();
        let at = |times: &[u64], percent: usize| times[times.len() * percent / 100] as f64 / 1000.0;
        let turns = self.first_tokens.len();
        json!({
            "turns": turns,
            "hits": rounded(100.0 * self.hit as f64 / self.could_hit as f64),
            "first token p50": at(&self.first_tokens, 50),
            "first token p99": at(&self.first_tokens, 99),
            "answer p50": at(&self.answers, 50),
            "answer p99": at(&self.answers, 99),
            "most": rounded(self.excess / turns as f64),
        })
    }

    fn send(&mut self, now: u64, conversation: usize, turn: usize) {
        let name = format!("c-{conversation}");
        let (replica, lease) = self.choose(name.as_bytes());
        let job = Job {
            conversation,
            turn,
            came: now,
            history: self.said[conversation],
            replica,
            lease,
        };
        self.replicas[replica].waiting.push_back(job);
        if self.is_counted(&job) {
            let busy = |replica: &Replica| replica.running + replica.waiting.len();
            let most = self.replicas.iter().map(busy).max().expect("a replica");
            let all: usize = self.replicas.iter().map(busy).sum();
            self.excess += (most * REPLICAS) as f64 / all as f64;
        }
        self.work(now, replica);
    }

    fn choose(&mut self, name: &[u8]) -> (usize, Option<LeaseId>) {
        let request = Request {
            count: 1,
            terms: Some(LeaseTerms {
                span: SPAN_MAX,
                owner: None,
            }),
            ..Request::default()
        };
        let picked = match self.way {
            Way::Hash { .. } => self.pool.picks(&Request {
                algorithm: Some(Algorithm::HASH),
                item: Some(name),
                ..request
            }),
            Way::Alone(algorithm) => self.pool.picks(&Request {
                algorithm: Algorithm::by_name(algorithm.as_bytes()),
                ..request
            }),
            Way::Sticky => {
                let sticky = Sticky {
                    session: session_hash(name),
                    span: STICKS,
                    is_strict: false,
                };
                self.pool.picks(&Request {
                    algorithm: Algorithm::by_name(b"lc"),
                    sticky: Some(sticky),
                    ..request
                })
            }
            Way::EnvoyRing => {
                let ring = self.ring.as_ref().expect("it was made");
                return (ring.choose(name) as usize - 1, None);
            }
        };
        (picked.slots[0], picked.lease)
    }

    fn is_counted(&self, job: &Job) -> bool {
        job.came >= self.counted.0
    }

    /// Lets free slots take what waits.
    fn work(&mut self, now: u64, at: usize) {
        while self.replicas[at].running < SLOTS
            && let Some(job) = self.replicas[at].waiting.pop_front()
        {
            let turn = &self.trace[job.conversation].turns[job.turn];
            let prompt = job.history + turn.message;
            let replica = &mut self.replicas[at];
            replica.running += 1;
            let cached = replica.cache.take(job.conversation, prompt + turn.answer);
            let cached = cached.min(job.history);
            let first_token = now + (prompt - cached) / READ;
            if self.is_counted(&job) {
                self.could_hit += job.history;
                self.hit += cached;
                self.first_tokens.push(first_token - job.came);
                self.answers
                    .push(first_token + turn.answer * WRITE - job.came);
            }
            self.at(first_token + turn.answer * WRITE, Event::End(job));
        }
    }

    fn end(&mut self, now: u64, job: Job) {
        if let Some(lease) = job.lease {
            self.pool.done(lease, &Report::default());
        }
        let turns = &self.trace[job.conversation].turns;
        self.said[job.conversation] += turns[job.turn].message + turns[job.turn].answer;
        if let Some(next) = turns.get(job.turn + 1) {
            let (conversation, turn) = (job.conversation, job.turn + 1);
            self.at(now + next.think, Event::Turn { conversation, turn });
        }
        self.replicas[job.replica].running -= 1;
        self.work(now, job.replica);
    }
}
