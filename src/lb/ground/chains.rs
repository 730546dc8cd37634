//! A hash table that grows and shrinks one step at a time.

use super::memory::Mover;
use super::pages::Pages;

/// The place of a record, or [`NONE`].
pub type At = u32;
/// No record.
pub const NONE: At = u32::MAX;

/// Records that a table finds. Each has a link to the next one in its chain.
pub trait Records {
    /// The hash of a record. No choice of records makes hashes collide.
    fn hash(&self, at: At) -> u64;
    /// The link of a record.
    fn link(&self, at: At) -> At;
    /// The link of a record, to be changed.
    fn link_mut(&mut self, at: At) -> &mut At;
}

/// A hash table of chains: linear hashing (Litwin, "Linear hashing: a new tool for file and table addressing", 1980).
///
/// Each insertion splits at most one chain, and each removal joins at most two pairs. So no step is long, however many records
/// there are. A small table does not shrink. Rejected: a table that doubles. The insertion that doubles a table of a million leases takes 40 ms.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    heads: Pages<At>,
    /// The bits of a hash that choose a chain: as few as tell all chains apart.
    mask: usize,
    len: usize,
}

/// A table with at most this number of chains does not join them: they are 256 bytes.
const KEPT: usize = 64;

/// A record that was found, and the way to it. It holds until the table or a record in it changes.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The place of the record.
    pub at: At,
    /// The record before it in its chain.
    before: At,
    chain: usize,
}

impl Chains {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first record of that hash for which the test holds.
    #[inline(always)]
    pub fn find(
        &self,
        hash: u64,
        records: &impl Records,
        is_it: impl Fn(At) -> bool,
    ) -> Option<Found> {
        if self.len == 0 {
            return None;
        }
        let chain = self.chain(hash);
        let (mut before, mut at) = (NONE, self.heads[chain]);
        while at != NONE {
            if is_it(at) {
                return Some(Found { at, before, chain });
            }
            (before, at) = (at, records.link(at));
        }
        None
    }

    /// The record at that place, which is there.
    pub fn find_at(&self, at: At, hash: u64, records: &impl Records) -> Found {
        let found = self.find(hash, records, |other| other == at);
        found.expect("the record is in the table")
    }

    /// Adds a record of that hash; answers the link that it must have.
    #[inline(always)]
    pub fn insert(&mut self, at: At, hash: u64, records: &mut impl Records) -> At {
        // Three records for two chains, and three for four at the least.
        if self.heads.len() * 3 <= self.len * 2 {
            self.split(records);
        }
        self.len += 1;
        let chain = self.chain(hash);
        std::mem::replace(&mut self.heads[chain], at)
    }

    /// Removes a record that was found, and has that link.
    #[inline(always)]
    pub fn remove(&mut self, found: Found, next: At, records: &mut impl Records) {
        *self.link_to(found, records) = next;
        self.len -= 1;
        // Twice at most.
        while self.heads.len() > KEPT && self.heads.len() * 3 > self.len * 4 {
            self.join(records);
        }
    }

    /// A record has moved to another place. It is no longer at the old one.
    pub fn moved(&mut self, from: At, to: At, records: &mut impl Records) {
        let found = self.find_at(from, records.hash(to), records);
        *self.link_to(found, records) = to;
    }

    /// The link that leads to a record.
    #[inline(always)]
    fn link_to<'a>(&'a mut self, found: Found, records: &'a mut impl Records) -> &'a mut At {
        match found.before {
            NONE => &mut self.heads[found.chain],
            before => records.link_mut(before),
        }
    }

    /// The chain of a hash, where there is one.
    #[inline(always)]
    fn chain(&self, hash: u64) -> usize {
        let chain = hash as usize & self.mask;
        match chain < self.heads.len() {
            true => chain,
            false => chain & self.mask >> 1,
        }
    }

    /// Adds a chain, and moves those records to it that belong there now.
    #[inline(never)]
    fn split(&mut self, records: &mut impl Records) {
        let new = self.heads.len();
        self.heads.push(NONE);
        self.mask = self.heads.len().next_power_of_two() - 1;
        if new > 0 {
            let old = new - (1 << new.ilog2());
            let first = std::mem::replace(&mut self.heads[old], NONE);
            self.move_chain(first, records);
        }
    }

    /// Takes the last chain away.
    #[inline(never)]
    fn join(&mut self, records: &mut impl Records) {
        let first = self.heads.pop().unwrap_or(NONE);
        self.mask = self.heads.len().next_power_of_two() - 1;
        self.move_chain(first, records);
    }

    /// Moves the records from that one on to the chains to which they belong.
    fn move_chain(&mut self, first: At, records: &mut impl Records) {
        let mut at = first;
        while at != NONE {
            let next = records.link(at);
            let chain = self.chain(records.hash(at));
            *records.link_mut(at) = std::mem::replace(&mut self.heads[chain], at);
            at = next;
        }
    }

    /// Lets the mover move the table.
    pub fn relocate(&mut self, by: &mut impl Mover) {
        self.heads.relocate(by);
    }

    /// How many bytes it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.heads.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers, each with the link to the next one.
    struct Numbers(Vec<(u64, At)>);

    impl Records for Numbers {
        fn hash(&self, at: At) -> u64 {
            self.0[at as usize].0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
        }

        fn link(&self, at: At) -> At {
            self.0[at as usize].1
        }

        fn link_mut(&mut self, at: At) -> &mut At {
            &mut self.0[at as usize].1
        }
    }

    #[test]
    fn it_finds_all_that_is_there_and_nothing_else() {
        let mut numbers = Numbers((0..3000).map(|n| (n, NONE)).collect());
        let mut chains = Chains::default();
        let find = |chains: &Chains, numbers: &Numbers, at: At| {
            chains.find(numbers.hash(at), numbers, |a| {
                numbers.0[a as usize].0 == u64::from(at)
            })
        };
        for round in 0..3 {
            for at in 0..3000 {
                assert!(find(&chains, &numbers, at).is_none());
                numbers.0[at as usize].1 = chains.insert(at, numbers.hash(at), &mut numbers);
                assert_eq!(find(&chains, &numbers, at).map(|found| found.at), Some(at));
            }
            assert_eq!(chains.len(), 3000);
            let longest = (0..chains.heads.len()).map(|head| {
                let link = |at: &At| Some(numbers.link(*at)).filter(|at| *at != NONE);
                let first = Some(chains.heads[head]).filter(|at| *at != NONE);
                std::iter::successors(first, link).count()
            });
            assert!(longest.max() < Some(12));
            for at in (0..3000).map(|at| (at * 7 + round) % 3000) {
                let found = find(&chains, &numbers, at).unwrap();
                assert_eq!(found.at, at);
                chains.remove(found, numbers.link(at), &mut numbers);
                assert!(find(&chains, &numbers, at).is_none());
            }
            assert_eq!((chains.len(), chains.heads.len()), (0, KEPT));
        }
    }
}
