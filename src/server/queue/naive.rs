//! The queue beside a plain form of itself, which walks over all waiters; and what it promises to tenants.

use std::collections::HashSet;

use rand::rngs::Xoshiro256PlusPlus as Random;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::lb::{Limited, Rate};

/// A cost that nothing limits.
const FREE: &[u8] = b"free";
const COSTS: [&[u8]; 3] = [FREE, b"images", b"tokens"];
const BACKENDS: [&[u8]; 7] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g"];

#[derive(Clone, Debug)]
struct Wait {
    client: usize,
    prio: u8,
    tenant: Option<Vec<u8>>,
    kind: Kind,
}

impl Wait {
    fn block(&self) -> Block<'_> {
        Block {
            millis: 0,
            prio: self.prio,
            tenant: self.tenant.as_deref(),
        }
    }

    fn can_use(&self, available: &[&[u8]], leases: Fit) -> bool {
        let is_excluded = |name: &&[u8]| self.kind.excluded.iter().any(|other| **other == **name);
        !available.iter().all(is_excluded) && (leases == Fit::Fits || !self.kind.is_leasing)
    }
}

/// The waiters as they came, and the lines in the order of their turns.
#[derive(Clone, Debug, Default)]
struct Naive {
    order: Order,
    waits: Vec<Wait>,
    turns: Vec<(u8, Option<Vec<u8>>)>,
}

impl Naive {
    fn line(&self, wait: &Wait) -> (u8, Option<Vec<u8>>) {
        let tenant = wait.tenant.clone().filter(|_| self.order == Order::Fair);
        (wait.prio, tenant)
    }

    fn add(&mut self, wait: Wait) {
        let line = self.line(&wait);
        if !self.turns.contains(&line) {
            self.turns.push(line);
        }
        self.waits.push(wait);
    }

    fn arrange(&mut self, order: Order) {
        if order != self.order {
            self.order = order;
            self.turns.clear();
            std::mem::take(&mut self.waits)
                .into_iter()
                .for_each(|wait| self.add(wait));
        }
    }

    fn remove(&mut self, client: usize) -> Wait {
        let at = self.waits.iter().position(|wait| wait.client == client);
        let wait = self.waits.remove(at.unwrap());
        let line = self.line(&wait);
        if !self.waits.iter().any(|other| self.line(other) == line) {
            self.turns.retain(|other| *other != line);
        }
        wait
    }

    fn serve(&mut self, client: usize) {
        let wait = self.remove(client);
        let line = self.line(&wait);
        if let Some(at) = self.turns.iter().position(|other| *other == line) {
            let line = self.turns.remove(at);
            self.turns.push(line);
        }
    }

    /// `lacks` tells which of those that name costs lack them.
    fn first(
        &self,
        most: u8,
        available: &[&[u8]],
        leases: Fit,
        lacks: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut lines = self.turns.clone();
        lines.sort_by_key(|line| line.0);
        let lines = lines.iter().filter(|line| line.0 <= most);
        let mut waits = lines.flat_map(|line| self.waits.iter().filter(|w| self.line(w) == *line));
        let mut kept_back = HashSet::new();
        let first = waits.find(|wait| {
            let is_overtaking = wait.kind.costs.iter().any(|cost| kept_back.contains(cost));
            if !wait.can_use(available, leases) || is_overtaking {
                return false;
            }
            let has_all = !can_lack(&wait.kind) || !lacks(wait.client);
            if !has_all {
                kept_back.extend(wait.kind.costs.iter().filter(|cost| ***cost != *FREE));
            }
            has_all
        });
        first.map(|wait| wait.client)
    }

    /// Whoever is served last, if nobody comes or goes.
    fn last(&self) -> Option<usize> {
        let (mut left, mut last) = (self.clone(), None);
        while let Some(client) = left.first(u8::MAX, &[b"another"], Fit::Fits, |_| false) {
            left.serve(client);
            last = Some(client);
        }
        last
    }

    fn room(&self, max: u32, newcomer: &Wait) -> Room<'_, usize> {
        if max == 0 || self.waits.len() < max as usize {
            return Room::Free;
        }
        let mut all = self.clone();
        all.add(newcomer.clone());
        let last = all.last().unwrap();
        let last = self.waits.iter().find(|wait| wait.client == last);
        last.map_or(Room::None, |wait| Room::InPlaceOf(&wait.client))
    }
}

fn can_lack(kind: &Kind) -> bool {
    kind.costs.iter().any(|cost| **cost != *FREE)
}

fn at() -> At {
    (0, (*b"web").into())
}

fn pool(available: &[&[u8]], settings: QueueSettings) -> Pool {
    let mut pool = Pool::new();
    available.iter().for_each(|name| _ = pool.add(name, None));
    pool.set_queue(settings);
    let (picks, millis, burst) = (1, 1, 1);
    let rate = Some(Rate {
        picks,
        millis,
        burst,
    });
    pool.set_costs(Limited::Pool, &[(COSTS[1], rate), (COSTS[2], rate)]);
    pool
}

/// Each list agrees with the others.
fn check(queues: &Queues<usize, usize>) {
    let Some(queue) = queues.queues.get(&at()) else {
        return;
    };
    let waiters = queue.waiters.values();
    let stands = waiters.map(|waiting| (waiting.line(queue.order), waiting.kind));
    queue.lines.check(stands);
}

fn any_wait(random: &mut Random, client: usize, tenants: u16) -> Wait {
    let tenant = random.random_range(0..tenants).to_be_bytes();
    let is_named = random.random_range(0..5) > 0;
    let mut excluded = BACKENDS.to_vec();
    excluded.retain(|_| random.random_range(0..3) > 0);
    let mut costs = COSTS.to_vec();
    costs.retain(|_| random.random_range(0..4) == 0);
    Wait {
        client,
        prio: [0, 0, 5, 255][random.random_range(0..4)],
        tenant: is_named.then(|| tenant.to_vec()),
        kind: Kind {
            excluded: excluded.into_iter().map(Into::into).collect(),
            costs: costs.into_iter().map(Into::into).collect(),
            is_leasing: random.random_range(0..2) == 0,
            sticky: None,
        },
    }
}

/// Random waiters come, are served, refused and go, while the settings change, in queues of different sizes.
#[test]
fn the_queue_is_the_plain_one() {
    let random = &mut Random::seed_from_u64(3);
    for (steps, most, tenants) in [(4000, 8, 3_u16), (2000, 40, 6), (1200, 400, 300)] {
        let mut queues: Queues<usize, usize> = Queues::default();
        let mut naive = Naive::default();
        let mut settings = QueueSettings::default();
        let (mut served, mut refused) = (0, 0);
        for client in 0..steps {
            if random.random_range(0..40) == 0 {
                settings.order = Order::ALL[random.random_range(0..2)];
                settings.max = [0, most, most / 2][random.random_range(0..3)];
            }
            let available: Vec<&[u8]> = (BACKENDS.into_iter())
                .filter(|_| random.random_range(0..6) == 0)
                .collect();
            let free = pool(&available, settings);
            let event = random.random_range(0..10);
            if event < 6 {
                let wait = any_wait(random, client, tenants);
                if naive.waits.is_empty() {
                    naive = Naive::default();
                }
                naive.arrange(settings.order);
                let room = naive.room(settings.max, &wait);
                assert_eq!(queues.room(&at(), settings, &wait.block()), room);
                match room {
                    Room::Free => {}
                    Room::InPlaceOf(last) => {
                        let last = *last;
                        assert_eq!(queues.remove(last), Some(last));
                        naive.remove(last);
                        refused += 1;
                    }
                    Room::None => {
                        refused += 1;
                        continue;
                    }
                }
                let known = Some(settings);
                queues.add(
                    at(),
                    known,
                    client,
                    &wait.block(),
                    wait.kind.clone(),
                    client,
                );
                naive.add(wait);
            } else if event < 9 {
                let leases = [Fit::Fits, Fit::NoLeases][random.random_range(0..2)];
                let up_to = [0, 4, 5, 255, 255][random.random_range(0..5)];
                let lacking = random.random_range(0..4);
                let lacks = |client: usize| client % 4 < lacking;
                let first = queues.first(&at(), up_to, &free, |kind, client| {
                    if kind.is_leasing && leases == Fit::NoLeases {
                        return Fit::NoLeases;
                    }
                    match can_lack(kind) && lacks(*client) {
                        true => Fit::LacksCosts,
                        false => Fit::Fits,
                    }
                });
                let first = first.copied();
                naive.arrange(settings.order);
                let expected = naive.first(up_to, &available, leases, lacks);
                assert_eq!(first, expected);
                if let Some(first) = first {
                    // Strict priority, whatever the order.
                    let chosen = naive.waits.iter().find(|w| w.client == first).unwrap();
                    let mut others = naive.waits.iter().filter(|w| w.prio < chosen.prio);
                    let can_use = |other: &Wait| {
                        other.kind.costs.is_empty() && other.can_use(&available, leases)
                    };
                    assert!(!others.any(can_use));
                    assert_eq!(queues.serve(first), Some(first));
                    naive.serve(first);
                    served += 1;
                }
            } else if !naive.waits.is_empty() {
                let gone = naive.waits[random.random_range(0..naive.waits.len())].client;
                assert_eq!(queues.remove(gone), Some(gone));
                naive.remove(gone);
            }
            let (waiting, oldest) = queues.standing(&at()).unzip();
            assert_eq!(waiting.unwrap_or(0), naive.waits.len());
            assert_eq!(oldest.copied(), naive.waits.first().map(|wait| wait.client));
            check(&queues);
        }
        assert!(served > steps / 20 && refused > 0, "{served} {refused}");
        let left: Vec<usize> = naive.waits.iter().map(|wait| wait.client).collect();
        left.into_iter()
            .for_each(|client| _ = queues.remove(client));
        assert!(queues.queues.is_empty() && queues.clients.is_empty());
    }
}

/// A pool with a queue, in which one backend is free once a turn.
struct Turns {
    settings: QueueSettings,
    pool: Pool,
    queues: Queues<usize, (usize, &'static str)>,
    came: usize,
}

impl Turns {
    fn of(order: Order) -> Turns {
        let settings = QueueSettings { max: 0, order };
        Turns {
            settings,
            pool: pool(&[b"a"], settings),
            queues: Queues::default(),
            came: 0,
        }
    }

    /// A client of that tenant comes. Answers its number.
    fn come(&mut self, tenant: &'static str) -> usize {
        let client = self.came;
        self.came += 1;
        let block = Block {
            millis: 0,
            prio: 0,
            tenant: Some(tenant.as_bytes()),
        };
        let kind = Kind {
            excluded: Box::default(),
            costs: Box::default(),
            is_leasing: true,
            sticky: None,
        };
        let waiter = (client, tenant);
        self.queues
            .add(at(), Some(self.settings), client, &block, kind, waiter);
        client
    }

    /// Serves the first client. Answers its number and its tenant.
    fn serve(&mut self) -> (usize, &'static str) {
        let first = self
            .queues
            .first(&at(), u8::MAX, &self.pool, |_, _| Fit::Fits);
        let (client, tenant) = *first.unwrap();
        self.queues.serve(client);
        (client, tenant)
    }
}

/// The turns that each pick of each tenant waited, where it has that many clients, each of which asks again as soon as it was served.
fn waits(order: Order, clients: &[(&'static str, usize)]) -> HashMap<&'static str, Vec<usize>> {
    let mut turns = Turns::of(order);
    let mut since = HashMap::new();
    for (tenant, number) in clients {
        (0..*number).for_each(|_| _ = since.insert(turns.come(tenant), 0));
    }
    let mut waits: HashMap<_, Vec<usize>> = HashMap::new();
    for turn in 0..5_000 {
        let (client, tenant) = turns.serve();
        waits.entry(tenant).or_default().push(turn - since[&client]);
        since.insert(turns.come(tenant), turn);
    }
    waits
}

fn p99(waits: &[usize]) -> usize {
    let mut waits = waits.to_vec();
    waits.sort_unstable();
    waits[waits.len() * 99 / 100]
}

/// A turn of the flood comes between two turns of the others, and no more.
#[test]
fn a_tenant_that_floods_does_not_starve_the_others() {
    for few in [1, 5, 20] {
        let calm = waits(Order::Fair, &[("b", few), ("c", few)]);
        let flooded = [("flood", 1000), ("b", few), ("c", few)];
        let fair = waits(Order::Fair, &flooded);
        let fifo = waits(Order::Fifo, &flooded);
        for tenant in ["b", "c"] {
            let (before, after) = (p99(&calm[tenant]), p99(&fair[tenant]));
            assert!(after <= 2 * before, "{few}: {before} -> {after}");
            // So it would be without turns.
            assert!(p99(&fifo[tenant]) >= 1000);
        }
    }
}

#[test]
fn a_tenant_that_was_idle_has_no_stored_up_turns() {
    let mut turns = Turns::of(Order::Fair);
    for tenant in ["b", "c"] {
        (0..300).for_each(|_| _ = turns.come(tenant));
    }
    let next = |turns: &mut Turns| turns.serve().1;
    let alone: Vec<_> = (0..200).map(|_| next(&mut turns)).collect();
    assert_eq!(alone.concat(), "bc".repeat(100));
    (0..20).for_each(|_| _ = turns.come("a"));
    let together: Vec<_> = (0..60).map(|_| next(&mut turns)).collect();
    assert_eq!(together.concat(), "bca".repeat(20));
    // Nor does one gain turns that comes back as soon as it was served.
    let mut served = String::new();
    turns.come("d");
    for _ in 0..60 {
        let tenant = next(&mut turns);
        served += tenant;
        if tenant == "d" {
            turns.come("d");
        }
    }
    assert_eq!(served, "bcd".repeat(20));
}
