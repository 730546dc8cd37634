//! The queues of clients that wait for a backend, one for each key. This folder knows no server.
//!
//! Waiters of a lower number come first. Those of one number stand in one line, or under `fair` in a line for each name for which
//! they wait: then the lines take turns, and a line that was served goes to the end of them. A line without waiters is forgotten, so
//! no turns are stored up: who comes back stands behind all other lines.
//!
//! A waiter that cannot use what came keeps its place, and must not make each search a walk over all waiters. So waiters are known by
//! their [`Kind`]s, few in general. A search tries the first lines, and in a line the first kinds (see [`line::NEAR`]); beyond that it
//! goes by the kinds that can be served: O(kinds), whatever the number of waiters and lines.
//!
//! Rejected: tags of virtual time, given at arrival, which need no lines. Clients that give up would use up turns of their name.

mod asked;
mod kinds;
mod line;
mod lines;
#[cfg(test)]
mod naive;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Bound;
use std::rc::Rc;

pub use asked::{Asked, At};
pub use kinds::Kind;
use kinds::Kinds;
use lines::{LineKey, Lines};

use super::block::Block;
use crate::lb::{Order, Pool, QueueSettings};

/// Whether a waiter can be served now, as far as its kind does not tell that. If it cannot, this says what keeps it out, and so
/// which others are passed over too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// No lease is granted now: all who ask for one are passed over.
    NoLeases,
    /// It is kept out by costs alone: all who name one of those that are limited are passed over, so that small requests do not starve
    /// large ones.
    LacksCosts,
}

/// The room for a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub enum Room<'a, W> {
    Free,
    /// There is room if this waiter, who is the last of all, leaves.
    InPlaceOf(&'a W),
    None,
}

/// The waiters at one key. A waiter is known by its arrival, a number that grows.
#[derive(Debug)]
struct Queue<W> {
    order: Order,
    waiters: BTreeMap<u64, Waiting<W>>,
    kinds: Kinds,
    lines: Lines,
}

#[derive(Debug)]
struct Waiting<W> {
    prio: u8,
    tenant: Option<Rc<[u8]>>,
    kind: u32,
    waiter: W,
}

/// The queues of all keys. `C` identifies a client, and `W` is the data of its wait.
#[derive(Debug)]
pub struct Queues<C, W> {
    queues: BTreeMap<At, Queue<W>>,
    clients: HashMap<C, (At, u64)>,
    arrivals: u64,
}

impl<W> Queue<W> {
    fn of(order: Order) -> Queue<W> {
        Queue {
            order,
            waiters: BTreeMap::new(),
            kinds: Kinds::default(),
            lines: Lines::default(),
        }
    }

    fn add(&mut self, arrival: u64, block: &Block, kind: Kind, waiter: W) {
        let waiting = Waiting {
            prio: block.prio,
            tenant: block.tenant.map(Into::into),
            kind: self.kinds.join(kind),
            waiter,
        };
        let key = waiting.line(self.order);
        self.lines.add(arrival, key, waiting.kind);
        self.waiters.insert(arrival, waiting);
    }

    fn remove(&mut self, arrival: u64) -> Option<W> {
        let waiting = self.waiters.remove(&arrival)?;
        let key = waiting.line(self.order);
        self.lines.remove(arrival, &key, waiting.kind);
        self.kinds.leave(waiting.kind);
        Some(waiting.waiter)
    }

    /// A waiter is served: its line has had its turn.
    fn turn(&mut self, arrival: u64) {
        if let (Some(waiting), Order::Fair) = (self.waiters.get(&arrival), self.order) {
            self.lines.turn(&waiting.line(self.order));
        }
    }

    /// Lets all wait in this order. If it is another one, that takes O(n log n) for n waiters.
    fn arrange(&mut self, order: Order) {
        if order == self.order {
            return;
        }
        self.order = order;
        self.lines = Lines::default();
        for (arrival, waiting) in &self.waiters {
            self.lines.add(*arrival, waiting.line(order), waiting.kind);
        }
    }

    /// The first waiter that can be served from this pool, among those of the number `most` and lower ones.
    fn first(
        &mut self,
        most: u8,
        pool: &Pool,
        mut fit: impl FnMut(&Kind, &W) -> Fit,
    ) -> Option<&W> {
        if pool.available() == 0 && !self.kinds.is_any_sticky() {
            return None;
        }
        let known = self.kinds.known();
        let mut out = self.kinds.out(pool);
        while out.len() < known.len() {
            let arrival = self.lines.first(most, known, &out)?;
            let waiting = self.waiters.get(&arrival)?;
            match fit(self.kinds.kind(waiting.kind), &waiting.waiter) {
                Fit::Fits => return Some(&waiting.waiter),
                Fit::NoLeases => out.to_mut().add_all(self.kinds.leasing()),
                Fit::LacksCosts => {
                    let out = out.to_mut();
                    out.insert(waiting.kind);
                    let costs = self.kinds.kind(waiting.kind).costs.iter();
                    let limited = costs.filter(|cost| pool.limits_cost(cost));
                    let naming = limited.filter_map(|cost| self.kinds.naming(cost));
                    naming.for_each(|kinds| out.add_all(kinds));
                }
            }
        }
        None
    }

    fn room(&self, max: u32, block: &Block) -> Room<'_, W> {
        if max == 0 || self.waiters.len() < max as usize {
            return Room::Free;
        }
        let tenant = block.tenant.filter(|_| self.order == Order::Fair);
        let key = (block.prio, tenant.map(Into::into));
        let last = self.lines.last_behind(&key);
        let last = last.and_then(|arrival| self.waiters.get(&arrival));
        last.map_or(Room::None, |last| Room::InPlaceOf(&last.waiter))
    }
}

impl<W> Waiting<W> {
    /// The line in which it stands under this order.
    fn line(&self, order: Order) -> LineKey {
        let tenant = self.tenant.as_ref().filter(|_| order == Order::Fair);
        (self.prio, tenant.cloned())
    }
}

impl<C, W> Default for Queues<C, W> {
    fn default() -> Self {
        Queues {
            queues: BTreeMap::new(),
            clients: HashMap::new(),
            arrivals: 0,
        }
    }
}

impl<C: Copy + Eq + Hash, W> Queues<C, W> {
    /// The number of clients that wait.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Puts a client into the queue at that key, whose pool has these settings, if there is one.
    pub fn add(
        &mut self,
        at: At,
        settings: Option<QueueSettings>,
        client: C,
        block: &Block,
        kind: Kind,
        waiter: W,
    ) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.clients.insert(client, (at.clone(), arrival));
        let order = settings.map(|settings| settings.order);
        let queue = (self.queues.entry(at)).or_insert_with(|| Queue::of(order.unwrap_or_default()));
        queue.arrange(order.unwrap_or(queue.order));
        queue.add(arrival, block, kind, waiter);
    }

    /// The room for a newcomer in the queue at that key, whose pool has these settings.
    pub fn room(&mut self, at: &At, settings: QueueSettings, block: &Block) -> Room<'_, W> {
        self.queues.get_mut(at).map_or(Room::Free, |queue| {
            queue.arrange(settings.order);
            queue.room(settings.max, block)
        })
    }

    /// Takes a client out of its queue, if it waits, because it is served.
    pub fn serve(&mut self, client: C) -> Option<W> {
        let (at, arrival) = self.clients.get(&client)?;
        self.queues.get_mut(at)?.turn(*arrival);
        self.remove(client)
    }

    /// Takes a client out of its queue, if it waits.
    pub fn remove(&mut self, client: C) -> Option<W> {
        let (at, arrival) = self.clients.remove(&client)?;
        let queue = self.queues.get_mut(&at)?;
        let waiter = queue.remove(arrival)?;
        if queue.waiters.is_empty() {
            self.queues.remove(&at);
        }
        Some(waiter)
    }

    /// The key at which a client waits.
    pub fn place_of(&self, client: C) -> Option<&At> {
        self.clients.get(&client).map(|(at, _)| at)
    }

    /// The number of clients that wait at that key, and the data of the oldest wait.
    pub fn standing(&self, at: &At) -> Option<(usize, &W)> {
        let waiters = &self.queues.get(at)?.waiters;
        let oldest = waiters.values().next()?;
        Some((waiters.len(), &oldest.waiter))
    }

    /// Whether a client waits at that key.
    pub fn is_any_at(&self, at: &At) -> bool {
        self.queues.contains_key(at)
    }

    /// Whether a client waits at that key for the backend of a session.
    pub fn is_any_sticky_at(&self, at: &At) -> bool {
        self.queues
            .get(at)
            .is_some_and(|queue| queue.kinds.is_any_sticky())
    }

    /// The waiter at that key who is the first of those that can be served from this pool, and have the number `most` or a lower
    /// one.
    pub fn first(
        &mut self,
        at: &At,
        most: u8,
        pool: &Pool,
        fit: impl FnMut(&Kind, &W) -> Fit,
    ) -> Option<&W> {
        let queue = self.queues.get_mut(at)?;
        queue.arrange(pool.queue_settings().order);
        queue.first(most, pool, fit)
    }

    /// All waiters at that key, as they came.
    pub fn at(&self, at: &At) -> impl Iterator<Item = &W> {
        let queue = self.queues.get(at).into_iter();
        queue.flat_map(|queue| queue.waiters.values().map(|waiting| &waiting.waiter))
    }

    /// The keys at which a client waits, in order, from the first key after `behind` on.
    pub fn keys(&self, behind: Option<&At>) -> impl Iterator<Item = &At> {
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.queues.range::<At, _>((from, Bound::Unbounded));
        keys.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::{Algorithm, LeaseTerms, Millis, Request, Sticky};

    const ANYONE: Block = Block {
        millis: 0,
        prio: 0,
        tenant: None,
    };

    fn asked(exclude: &[&'static str], lease: Option<Millis>) -> Asked {
        let terms = lease.map(|span| LeaseTerms { span, owner: None });
        Asked::of(&Request {
            algorithm: None,
            item: None,
            count: 1,
            distinct: false,
            exclude: exclude.iter().map(|name| name.as_bytes()).collect(),
            terms,
            costs: vec![],
            sticky: None,
        })
    }

    fn at(name: &str) -> At {
        (0, name.as_bytes().into())
    }

    fn pool(names: &[&str]) -> Pool {
        let mut pool = Pool::new();
        names
            .iter()
            .for_each(|name| _ = pool.add(name.as_bytes(), None));
        pool
    }

    fn add(queues: &mut Queues<usize, usize>, client: usize, asked: &Asked) {
        queues.add(at("web"), None, client, &ANYONE, asked.kind(), client);
    }

    /// A queue at the key `web`. The clients are numbered in their order.
    fn queue(waiters: &[Asked]) -> Queues<usize, usize> {
        let mut queues = Queues::default();
        for (client, asked) in waiters.iter().enumerate() {
            add(&mut queues, client, asked);
        }
        queues
    }

    fn first(queues: &mut Queues<usize, usize>, pool: &Pool) -> Option<usize> {
        let first = queues.first(&at("web"), u8::MAX, pool, |_, _| Fit::Fits);
        first.copied()
    }

    #[test]
    fn the_first_waiter_that_can_use_a_backend_is_served_and_the_others_keep_their_places() {
        let waiters = [
            asked(&["a"], None),
            asked(&["a", "b"], None),
            asked(&[], None),
            asked(&["a"], None),
        ];
        let mut queues = queue(&waiters);
        assert_eq!(first(&mut queues, &pool(&[])), None);
        assert_eq!(first(&mut queues, &pool(&["a"])), Some(2));
        assert_eq!(first(&mut queues, &pool(&["b"])), Some(0));
        assert_eq!(first(&mut queues, &pool(&["a", "b", "c"])), Some(0));
        assert_eq!(queues.serve(0), Some(0));
        assert_eq!(first(&mut queues, &pool(&["a", "b", "c"])), Some(1));
        assert_eq!(first(&mut queues, &pool(&["b"])), Some(2));
        assert_eq!(queues.serve(2), Some(2));
        assert_eq!(first(&mut queues, &pool(&["a"])), None);
        assert_eq!(first(&mut queues, &pool(&["b"])), Some(3));
        assert_eq!(queues.serve(2), None);
        queues.remove(1);
        queues.remove(3);
        assert!(!queues.is_any_at(&at("web")));
        assert_eq!(queues.len(), 0);
    }

    /// More kinds than a word has bits, each with a list of its own. Numbers of kinds that are gone are used again.
    #[test]
    fn of_many_kinds_the_one_that_can_use_a_backend_is_found() {
        let names: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
        let but = |left_out: usize| -> Vec<&'static str> {
            let all = names.iter().enumerate();
            all.filter(|(n, _)| *n != left_out)
                .map(|(_, name)| *name)
                .collect()
        };
        let waiters: Vec<Asked> = (0..200).map(|n| asked(&but(n), None)).collect();
        let mut queues = queue(&waiters);
        for round in 0..3 {
            for n in [0, 63, 64, 65, 130, 199] {
                let free = pool(&[names[n]]);
                assert_eq!(first(&mut queues, &free), Some(round * 1000 + n));
                assert_eq!(queues.serve(round * 1000 + n), Some(round * 1000 + n));
                assert_eq!(first(&mut queues, &free), None);
                add(&mut queues, (round + 1) * 1000 + n, &asked(&but(n), None));
            }
            let kinds = queues.queues[&at("web")].kinds.known();
            assert_eq!(kinds.first_missing(), 200);
        }
        assert_eq!(first(&mut queues, &pool(&[])), None);
        assert_eq!(first(&mut queues, &pool(&names)), Some(1));
    }

    #[test]
    fn where_no_lease_is_granted_only_waiters_for_a_lease_wait_on() {
        let mut queues = queue(&[asked(&[], Some(5)), asked(&["a"], None), asked(&[], None)]);
        let mut tried = 0;
        let first = queues.first(&at("web"), u8::MAX, &pool(&["a"]), |kind, _| {
            tried += 1;
            match kind.is_leasing {
                true => Fit::NoLeases,
                false => Fit::Fits,
            }
        });
        assert_eq!((first, tried), (Some(&2), 2));
    }

    #[test]
    fn keys_do_not_mix_and_are_listed_in_order() {
        let mut queues = Queues::default();
        for (client, name) in ["c", "a", "b"].into_iter().enumerate() {
            queues.add(
                at(name),
                None,
                client,
                &ANYONE,
                asked(&[], None).kind(),
                client,
            );
        }
        let keys = |behind: Option<&At>| queues.keys(behind).cloned().collect::<Vec<_>>();
        assert_eq!(keys(None), [at("a"), at("b"), at("c")]);
        assert_eq!(keys(Some(&at("a"))), [at("b"), at("c")]);
        assert_eq!(queues.at(&at("c")).copied().collect::<Vec<_>>(), [0]);
        assert_eq!(queues.at(&at("d")).count(), 0);
    }

    #[test]
    fn a_request_is_kept_as_it_was_asked() {
        let request = Request {
            algorithm: Algorithm::by_name(b"hash"),
            item: Some(b"item"),
            count: 3,
            distinct: true,
            exclude: vec![b"b", b"a", b"b"],
            terms: Some(LeaseTerms {
                span: 7,
                owner: Some(b"me"),
            }),
            costs: vec![(b"tokens", 7)],
            sticky: Some(Sticky {
                session: 5,
                span: 9,
                is_strict: true,
            }),
        };
        let asked = Asked::of(&request);
        assert_eq!(format!("{:?}", asked.request()), format!("{request:?}"));
    }
}
