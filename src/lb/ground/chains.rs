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
/// there are. Rejected: a table that doubles. The insertion that doubles a table of a million leases takes 40 ms.
#[derive(Clone, Debug, Default)]
pub struct Chains {
    heads: Pages<At>,
    len: usize,
}

impl Chains {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first record of that hash for which the test holds.
    #[inline]
    pub fn find(
        &self,
        hash: u64,
        records: &impl Records,
        is_it: impl Fn(At) -> bool,
    ) -> Option<At> {
        let mut at = match self.heads.len() {
            0 => return None,
            heads => self.heads[chain(hash, heads)],
        };
        while at != NONE && !is_it(at) {
            at = records.link(at);
        }
        (at != NONE).then_some(at)
    }

    /// Adds a record.
    pub fn insert(&mut self, at: At, records: &mut impl Records) {
        // Three records for two chains, and three for four at the least.
        if self.heads.len() * 3 <= self.len * 2 {
            self.split(records);
        }
        self.push(at, records);
        self.len += 1;
    }

    /// Removes a record, which is there.
    pub fn remove(&mut self, at: At, records: &mut impl Records) {
        let (hash, next) = (records.hash(at), records.link(at));
        *self.link_to(at, hash, records) = next;
        self.len -= 1;
        for _ in 0..2 {
            if self.heads.len() * 3 > self.len * 4 {
                self.join(records);
            }
        }
    }

    /// A record has moved to another place. It is no longer at the old one.
    pub fn moved(&mut self, from: At, to: At, records: &mut impl Records) {
        let hash = records.hash(to);
        *self.link_to(from, hash, records) = to;
    }

    /// The link that leads to the record of that hash.
    fn link_to<'a>(&'a mut self, at: At, hash: u64, records: &'a mut impl Records) -> &'a mut At {
        let head = chain(hash, self.heads.len());
        let mut before = self.heads[head];
        if before == at {
            return &mut self.heads[head];
        }
        while records.link(before) != at {
            before = records.link(before);
        }
        records.link_mut(before)
    }

    fn push(&mut self, at: At, records: &mut impl Records) {
        let head = chain(records.hash(at), self.heads.len());
        *records.link_mut(at) = std::mem::replace(&mut self.heads[head], at);
    }

    /// Adds a chain, and moves those records to it that belong there now.
    fn split(&mut self, records: &mut impl Records) {
        let new = self.heads.len();
        self.heads.push(NONE);
        if new > 0 {
            let old = new - (1 << new.ilog2());
            let mut at = std::mem::replace(&mut self.heads[old], NONE);
            while at != NONE {
                let next = records.link(at);
                self.push(at, records);
                at = next;
            }
        }
    }

    /// Takes the last chain away.
    fn join(&mut self, records: &mut impl Records) {
        let mut at = self.heads.pop().unwrap_or(NONE);
        while at != NONE {
            let next = records.link(at);
            self.push(at, records);
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

/// The chain of a hash where there are this number of chains: one above 0.
#[inline(always)]
fn chain(hash: u64, chains: usize) -> usize {
    let doubled = chains.next_power_of_two();
    let chain = hash as usize & (doubled - 1);
    if chain < chains {
        chain
    } else {
        chain - doubled / 2
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
                assert_eq!(find(&chains, &numbers, at), None);
                chains.insert(at, &mut numbers);
                assert_eq!(find(&chains, &numbers, at), Some(at));
            }
            assert_eq!(chains.len(), 3000);
            let longest = (0..chains.heads.len()).map(|head| {
                let link = |at: &At| Some(numbers.link(*at)).filter(|at| *at != NONE);
                let first = Some(chains.heads[head]).filter(|at| *at != NONE);
                std::iter::successors(first, link).count()
            });
            assert!(longest.max() < Some(12));
            for at in (0..3000).map(|at| (at * 7 + round) % 3000) {
                assert_eq!(find(&chains, &numbers, at), Some(at));
                chains.remove(at, &mut numbers);
                assert_eq!(find(&chains, &numbers, at), None);
            }
            assert_eq!((chains.len(), chains.heads.len()), (0, 0));
        }
    }
}
