//! The map of `hash`, and the consistent hashes of others by what they publish. Only the rules are theirs. Each names its source.
//!
//! An item gets a number in the space of its map. The space is cut into arcs, and each arc belongs to one backend. So the shares and
//! what a change moves are found by the lengths of arcs, exactly and without any items.

use std::collections::BTreeMap;
use std::iter::Peekable;

use redis_lb::lb::Pool;
use twox_hash::XxHash64;

#[derive(Clone)]
pub struct Backend {
    pub name: String,
    pub weight: u16,
    /// The place in the configuration, from 1: HAProxy knows servers by it. It stays when others go.
    pub id: u32,
}

/// The space of the map up to this number, from the end of the arc before, and whose it is. What comes after the last arc belongs to the
/// first one.
pub type Arc = (u64, u32);

pub trait Map {
    /// The number of an item in the space.
    fn number(item: &[u8]) -> u64;
    /// Which backend has that number.
    fn owner(&self, number: u64) -> u32;
    /// Which backend gets the item.
    fn choose(&self, item: &[u8]) -> u32 {
        self.owner(Self::number(item))
    }
    /// In order.
    fn arcs(&self) -> impl Iterator<Item = Arc>;
    /// The largest number of the space.
    fn last(&self) -> u64;
    /// The memory that the published form takes beside the list of backends, in bytes.
    fn bytes(&self) -> u64;
}

/// nginx, `hash … consistent`: `ngx_http_upstream_update_chash` and `ngx_http_upstream_find_chash_point` in
/// src/http/modules/ngx_http_upstream_hash_module.c, of August 2026. 160 points for each unit of weight, each the CRC-32 of the host, a
/// NUL byte, the port, and the point before. Of equal points one remains; its sort leaves open which, here it is the first in the list.
pub struct Nginx {
    points: Vec<u64>,
    weights: usize,
}

impl Nginx {
    const POINTS: usize = 160;
    /// A point is a hash and a pointer.
    pub const BYTES_OF_A_UNIT: u64 = 16 * Nginx::POINTS as u64;

    pub fn of(backends: &[Backend]) -> Nginx {
        let weights: usize = backends.iter().map(|b| usize::from(b.weight)).sum();
        let mut points = Vec::with_capacity(weights * Nginx::POINTS);
        for backend in backends {
            let (host, port) = backend.name.split_once(':').unwrap_or((&backend.name, ""));
            let mut base = !0;
            for part in [host.as_bytes(), b"\0", port.as_bytes()] {
                base = crc32(base, part);
            }
            let mut point = 0u32;
            for _ in 0..usize::from(backend.weight) * Nginx::POINTS {
                point = !crc32(base, &point.to_le_bytes());
                points.push(u64::from(point) << 32 | u64::from(backend.id));
            }
        }
        points.sort_unstable();
        points.dedup_by_key(|point| *point >> 32);
        Nginx { points, weights }
    }
}

impl Map for Nginx {
    fn number(item: &[u8]) -> u64 {
        (!crc32(!0, item)).into()
    }

    fn owner(&self, hash: u64) -> u32 {
        let (mut low, mut high) = (0, self.points.len());
        while low < high {
            let middle = (low + high) / 2;
            match hash.cmp(&(self.points[middle] >> 32)) {
                std::cmp::Ordering::Greater => low = middle + 1,
                std::cmp::Ordering::Less => high = middle,
                std::cmp::Ordering::Equal => {
                    low = middle;
                    break;
                }
            }
        }
        self.points[low % self.points.len()] as u32
    }

    fn arcs(&self) -> impl Iterator<Item = Arc> {
        self.points.iter().map(|point| (point >> 32, *point as u32))
    }

    fn last(&self) -> u64 {
        u32::MAX.into()
    }

    fn bytes(&self) -> u64 {
        self.weights as u64 * Nginx::BYTES_OF_A_UNIT
    }
}

/// A step of CRC-32 over these bytes, by a table, as `ngx_crc32_update` does it.
fn crc32(state: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u32, 0);
            while bit < 8 {
                value = value >> 1 ^ if value & 1 == 1 { 0xedb8_8320 } else { 0 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    bytes.iter().fold(state, |state, byte| {
        TABLE[(state as u8 ^ byte) as usize] ^ state >> 8
    })
}

/// HAProxy, `hash-type consistent`: src/lb_chash.c (`chash_compute_node_key`, `chash_get_server_hash`), `__full_hash` in
/// include/haproxy/intops.h and `hash_sdbm` in src/hash.c, of August 2026. 16 nodes for each unit of weight, keyed by the number of
/// the server; an item goes to the nearest node on either side. To search a sorted array is cheaper than to search its tree.
pub struct HaProxy {
    nodes: Vec<(u32, u32)>,
}

/// The same nodes, where what a change costs is at issue: a B-tree in place of its elastic binary tree.
pub type HaProxyTree = BTreeMap<u32, u32>;

impl HaProxy {
    const NODES: u32 = 16;
    /// The largest weight, 256, times the nodes of a unit.
    const RANGE: u32 = 4096;
    /// A `struct tree_occ` is a pointer and an `eb32_node` of 40 bytes.
    pub const BYTES_OF_A_UNIT: u64 = 48 * HaProxy::NODES as u64;

    pub fn of(backends: &[Backend]) -> HaProxy {
        let nodes = backends.iter().flat_map(|backend| {
            let nodes = HaProxy::NODES * u32::from(backend.weight);
            (0..nodes).map(|node| (HaProxy::key(backend.id, node), backend.id))
        });
        let mut nodes: Vec<(u32, u32)> = nodes.collect();
        nodes.sort_unstable();
        HaProxy { nodes }
    }

    /// No two nodes have the same: each step of the hash can be undone.
    fn key(id: u32, node: u32) -> u32 {
        full_hash(id.wrapping_mul(HaProxy::RANGE).wrapping_add(node))
    }

    pub fn tree(&self) -> HaProxyTree {
        self.nodes.iter().copied().collect()
    }

    /// It takes away the last nodes of a server, or adds further ones.
    pub fn reweigh(tree: &mut HaProxyTree, id: u32, from: u16, to: u16) {
        let (from, to) = (u32::from(from), u32::from(to));
        for node in HaProxy::NODES * to..HaProxy::NODES * from {
            tree.remove(&HaProxy::key(id, node));
        }
        for node in HaProxy::NODES * from..HaProxy::NODES * to {
            tree.insert(HaProxy::key(id, node), id);
        }
    }
}

impl Map for HaProxy {
    fn number(item: &[u8]) -> u64 {
        let hash = item.iter().fold(0u32, |hash, byte| {
            u32::from(*byte)
                .wrapping_add(hash << 6)
                .wrapping_add(hash << 16)
                .wrapping_sub(hash)
        });
        full_hash(hash).into()
    }

    fn owner(&self, hash: u64) -> u32 {
        let hash = hash as u32;
        let (nodes, count) = (&self.nodes, self.nodes.len());
        let next = nodes.partition_point(|(key, _)| *key < hash);
        let next = if next < count { next } else { 0 };
        let previous = if next > 0 { next - 1 } else { count - 1 };
        let (previous, next) = (nodes[previous], nodes[next]);
        match hash.wrapping_sub(previous.0) <= next.0.wrapping_sub(hash) {
            true => previous.1,
            false => next.1,
        }
    }

    /// A node has the half of the way to the next one, and the number in the middle.
    fn arcs(&self) -> impl Iterator<Item = Arc> {
        let (first, last) = (self.nodes[0].0, self.nodes[self.nodes.len() - 1]);
        let around = last.0.wrapping_add(first.wrapping_sub(last.0) / 2);
        let within = self.nodes.windows(2).map(|pair| {
            let (key, next) = (pair[0].0, pair[1].0);
            (u64::from(key + (next - key) / 2), pair[0].1)
        });
        // The arc of the last node ends beyond it, or after the beginning of the space.
        let of_last = (u64::from(around), last.1);
        let (before, after) = match around < first {
            true => (Some(of_last), None),
            false => (None, Some(of_last)),
        };
        before.into_iter().chain(within).chain(after)
    }

    fn last(&self) -> u64 {
        u32::MAX.into()
    }

    fn bytes(&self) -> u64 {
        self.nodes.len() as u64 / u64::from(HaProxy::NODES) * HaProxy::BYTES_OF_A_UNIT
    }
}

fn full_hash(a: u32) -> u32 {
    let a = a.wrapping_add(0x7ed5_5d16).wrapping_add(a << 12);
    let a = a ^ 0xc761_c23c ^ a >> 19;
    let a = a.wrapping_add(0x1656_67b1).wrapping_add(a << 5);
    let a = a.wrapping_add(0xd3a2_646c) ^ a << 9;
    let a = a.wrapping_add(0xfd70_46c5).wrapping_add(a << 3);
    let a = a ^ 0xb55a_4f09 ^ a >> 16;
    a.wrapping_mul(3_221_225_473)
}

/// Weights as Envoy normalizes them: `normalizeHostWeights` in source/extensions/load_balancing_policies/common/thread_aware_lb_impl.cc.
fn normalized(backends: &[Backend]) -> Vec<f64> {
    let sum: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
    let weights = backends.iter().map(|b| f64::from(b.weight) / sum as f64);
    weights.collect()
}

/// Envoy, RING_HASH as it is by default: `Ring::Ring` and `Ring::chooseHost` in
/// source/extensions/load_balancing_policies/ring_hash/ring_hash_lb.cc, and its header. Together at least 1,024 points and at most 8,388,608:
/// as many as give the lightest host a whole number of them. A point is the xxHash64 of the address, `_` and the number of the point.
pub struct Ring {
    points: Vec<(u64, u32)>,
}

impl Ring {
    const LEAST: f64 = 1024.0;
    const MOST: f64 = 8_388_608.0;

    pub fn of(backends: &[Backend]) -> Ring {
        let weights = normalized(backends);
        let lightest = weights.iter().copied().fold(1.0, f64::min);
        let scale = f64::min((lightest * Ring::LEAST).ceil() / lightest, Ring::MOST);
        let mut points = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0, 0.0);
        let mut digits = itoa::Buffer::new();
        let mut key = vec![];
        for (backend, weight) in backends.iter().zip(weights) {
            target += scale * weight;
            let mut point = 0u64;
            while current < target {
                key.clear();
                key.extend_from_slice(backend.name.as_bytes());
                key.push(b'_');
                key.extend_from_slice(digits.format(point).as_bytes());
                points.push((XxHash64::oneshot(0, &key), backend.id));
                point += 1;
                current += 1.0;
            }
        }
        points.sort_unstable();
        Ring { points }
    }
}

impl Map for Ring {
    fn number(item: &[u8]) -> u64 {
        XxHash64::oneshot(0, item)
    }

    fn owner(&self, hash: u64) -> u32 {
        let (mut low, mut high) = (0, self.points.len() as i64);
        let at = loop {
            let middle = (low + high) / 2;
            if middle as usize == self.points.len() {
                break 0;
            }
            let value = self.points[middle as usize].0;
            let before = match middle {
                0 => 0,
                _ => self.points[middle as usize - 1].0,
            };
            if hash <= value && hash > before {
                break middle as usize;
            }
            match value < hash {
                true => low = middle + 1,
                false => high = middle - 1,
            }
            if low > high {
                break 0;
            }
        };
        self.points[at].1
    }

    fn arcs(&self) -> impl Iterator<Item = Arc> {
        self.points.iter().copied()
    }

    fn last(&self) -> u64 {
        u64::MAX
    }

    /// A point is a hash and a shared pointer.
    fn bytes(&self) -> u64 {
        24 * self.points.len() as u64
    }
}

/// Envoy, MAGLEV as it is by default: `constructMaglevTableInternal` and `constructImplementationInternals` in
/// source/extensions/load_balancing_policies/maglev/maglev_lb.cc, and its header. 65,537 places, which the hosts take in turn, each by its
/// own permutation and as often as its weight says.
pub struct Maglev {
    places: Vec<u32>,
    hosts: usize,
}

impl Maglev {
    pub const PLACES: u64 = 65_537;

    pub fn of(backends: &[Backend]) -> Maglev {
        struct Host {
            id: u32,
            offset: u64,
            skip: u64,
            weight: f64,
            target: f64,
            next: u64,
        }
        let weights = normalized(backends);
        let heaviest = weights.iter().copied().fold(0.0, f64::max);
        let mut sorted: Vec<_> = backends.iter().zip(weights).collect();
        sorted.sort_unstable_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let hosts = sorted.into_iter().map(|(backend, weight)| Host {
            id: backend.id,
            offset: XxHash64::oneshot(0, backend.name.as_bytes()) % Maglev::PLACES,
            skip: XxHash64::oneshot(1, backend.name.as_bytes()) % (Maglev::PLACES - 1) + 1,
            weight,
            target: 0.0,
            next: 0,
        });
        let mut hosts: Vec<Host> = hosts.collect();
        let mut places = vec![0; Maglev::PLACES as usize];
        let mut taken = 0;
        for iteration in 1u32.. {
            for host in &mut hosts {
                if taken == Maglev::PLACES {
                    let hosts = backends.len();
                    return Maglev { places, hosts };
                }
                if f64::from(iteration) * host.weight < host.target {
                    continue;
                }
                host.target += heaviest;
                loop {
                    let place = (host.offset + host.skip * host.next) % Maglev::PLACES;
                    host.next += 1;
                    if places[place as usize] == 0 {
                        places[place as usize] = host.id;
                        break;
                    }
                }
                taken += 1;
            }
        }
        unreachable!("the table is full before");
    }
}

impl Map for Maglev {
    fn number(item: &[u8]) -> u64 {
        XxHash64::oneshot(0, item) % Maglev::PLACES
    }

    fn owner(&self, place: u64) -> u32 {
        self.places[place as usize]
    }

    fn arcs(&self) -> impl Iterator<Item = Arc> {
        (0..).zip(self.places.iter().copied())
    }

    fn last(&self) -> u64 {
        Maglev::PLACES - 1
    }

    /// Shared pointers; or one for each host, and for each place the bits of a host's number, where that is less.
    fn bytes(&self) -> u64 {
        let bits = u64::from(usize::BITS - self.hosts.leading_zeros());
        let compact = 16 * self.hosts as u64 + bits * Maglev::PLACES / 8;
        compact.min(16 * Maglev::PLACES)
    }
}

/// What each backend has of the space, by its id; the first is nobody.
pub fn shares(map: &impl Map, ids: u32) -> Vec<f64> {
    let mut lengths = vec![0u128; ids as usize + 1];
    let (mut from, mut first) = (0u128, None);
    for (end, id) in map.arcs() {
        let to = u128::from(end) + 1;
        lengths[id as usize] += to - from;
        first = first.or(Some(id));
        from = to;
    }
    let space = u128::from(map.last()) + 1;
    lengths[first.expect("there is an arc") as usize] += space - from;
    let shares = lengths.iter().map(|length| *length as f64 / space as f64);
    shares.collect()
}

/// The share of the space that moves, and that of what moves between two others than this one.
pub fn moved(before: &impl Map, after: &impl Map, changed: u32) -> (f64, f64) {
    let mut one = before.arcs().peekable();
    let mut other = after.arcs().peekable();
    let firsts = (one.peek().copied(), other.peek().copied());
    let (firsts, space) = (
        [firsts.0, firsts.1].map(|arc| arc.expect("there is an arc").1),
        u128::from(before.last()) + 1,
    );
    let (mut from, mut all, mut needless) = (0u128, 0u128, 0u128);
    while from < space {
        let end = |arc: Option<&Arc>| arc.map_or(space, |(end, _)| u128::from(*end) + 1);
        let to = end(one.peek()).min(end(other.peek()));
        let owner = |arc: Option<&Arc>, first| arc.map_or(first, |(_, id)| *id);
        let (old, new) = (owner(one.peek(), firsts[0]), owner(other.peek(), firsts[1]));
        if old != new {
            all += to - from;
            if old != changed && new != changed {
                needless += to - from;
            }
        }
        pass(&mut one, to);
        pass(&mut other, to);
        from = to;
    }
    (all as f64 / space as f64, needless as f64 / space as f64)
}

/// Leaves those arcs behind that are over before this.
fn pass(arcs: &mut Peekable<impl Iterator<Item = Arc>>, end: u128) {
    while arcs.next_if(|(to, _)| u128::from(*to) < end).is_some() {}
}

/// A pool with these backends.
pub fn pool(backends: &[Backend]) -> Pool {
    let mut pool = Pool::new();
    for backend in backends {
        pool.add(backend.name.as_bytes(), Some(backend.weight));
    }
    pool
}

// The tests of this file

/// Where nginx 1.22.1 (`hash $arg_i consistent`) and HAProxy 2.6.12 (`balance hdr(X-Item)`, `hash-type consistent`) of Debian 12 sent item:0,
/// item:1 …: to servers 1 to 8, which listened on ports from 9401 and from 9501 of 127.0.0.1.
const WEIGHTS: [u16; 8] = [1, 2, 3, 5, 7, 10, 1, 20];
const BY_NGINX: &str = "58686358547866836288248553768518756863486268886488186848888386883858855658888545886555855688886518588654886886881686688886458668254556885483";
const BY_HAPROXY: &str = "54546458581855625856834568456888888588686883586881888468856468758586856882865886588588482885868455855513885258483345841865886488883586686484";

fn check_recorded<M: Map>(of: fn(&[Backend]) -> M, port: u32, recorded: &str) {
    let backends = (1..).zip(WEIGHTS).map(|(id, weight)| Backend {
        name: format!("127.0.0.1:{}", port + id),
        weight,
        id,
    });
    let map = of(&backends.collect::<Vec<Backend>>());
    for (item, server) in recorded.chars().enumerate() {
        let item = format!("item:{item}");
        assert_eq!(Some(map.choose(item.as_bytes())), server.to_digit(10));
    }
}

/// The hashes are the published ones, nginx and HAProxy choose alike, and each map sends every number where its arcs say.
pub fn check() {
    check_recorded(Nginx::of, 9400, BY_NGINX);
    check_recorded(HaProxy::of, 9500, BY_HAPROXY);
    assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
    assert_eq!(XxHash64::oneshot(0, b""), 0xef46_db37_51d8_e999);
    let backends = (1..=40).map(|id| Backend {
        name: format!("10.0.0.{id}:80"),
        weight: 1 + id as u16 % 7,
        id,
    });
    let backends: Vec<Backend> = backends.collect();
    for count in [1, 2, 40] {
        let some = &backends[..count];
        check_arcs(&Nginx::of(some));
        check_arcs(&HaProxy::of(some));
        check_arcs(&Ring::of(some));
        check_arcs(&Maglev::of(some));
    }
    let mut lighter = backends.clone();
    lighter[2].weight = 1;
    let all = HaProxy::of(&backends).tree();
    let mut tree = all.clone();
    HaProxy::reweigh(&mut tree, 3, backends[2].weight, 1);
    assert_eq!(tree, HaProxy::of(&lighter).tree());
    HaProxy::reweigh(&mut tree, 3, 1, backends[2].weight);
    assert_eq!(tree, all);
}

fn check_arcs(map: &impl Map) {
    let arcs: Vec<Arc> = map.arcs().collect();
    assert!(arcs.is_sorted_by(|one, other| one.0 < other.0));
    let ends = arcs.iter().flat_map(|(end, _)| [*end, end + 1]);
    for number in ends.chain([0, map.last() / 3, map.last()]) {
        if number <= map.last() {
            let arc = arcs.get(arcs.partition_point(|(end, _)| *end < number));
            assert_eq!(map.owner(number), arc.unwrap_or(&arcs[0]).1);
        }
    }
}
