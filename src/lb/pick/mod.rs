//! The algorithms: one file each, one line each in the table.

mod by_tier;
mod choices;
mod duels;
mod ewma;
mod hash;
mod lc;
mod own;
mod p2c;
mod queues;
mod random;
mod rr;
mod tournament;
mod turns;
mod view;
mod wrandom;
mod wrr;

pub use choices::Choices;
pub use lc::Turns;
pub use own::{Before, DependsOn, Own};
pub use view::{Asked, View};
pub use wrr::Credits;

use own::Pick;

use super::field::Field;
use super::ground::bounds::Slot;
use super::ground::chance::Chance;
use super::ground::kept::{Gaps, Kept};
use super::ground::memory::Mover;
use super::ground::saved::{Malformed, Reader, Writer};

/// Makes the memory of these algorithms.
macro_rules! owns {
    ($($own:ident: $algorithm:ty),* $(,)?) => {
        /// The memory of all algorithms in a pool, and what decides which of them picks and how. That stands here because it fits into
        /// a gap: beside it, it would cost each pool 8 bytes.
        #[derive(Clone, Debug, Default)]
        pub struct Owns {
            $(pub $own: <$algorithm as Pick>::Own,)*
            /// The algorithm of picks that name none.
            pub policy: Algorithm,
            /// The version of the rules.
            pub rules: u8,
        }

        impl Kept for Owns {
            #[inline(always)]
            fn grown(&mut self, slots: usize) {
                $(self.$own.grown(slots);)*
            }

            fn forget(&mut self, slot: Slot) {
                $(self.$own.forget(slot);)*
            }

            fn renumber(&mut self, gaps: &Gaps) {
                $(self.$own.renumber(gaps);)*
            }

            fn relocate(&mut self, by: &mut impl Mover) {
                $(self.$own.relocate(by);)*
            }

            fn heap_bytes(&self) -> usize {
                0 $(+ self.$own.heap_bytes())*
            }
        }

        impl Own for Owns {
            fn weight_changes(&mut self, field: &Field, slot: Slot) {
                $(self.$own.weight_changes(field, slot);)*
            }

            fn weight_changed(&mut self, see: View<'_>, slot: Slot) {
                $(self.$own.weight_changed(see, slot);)*
            }

            fn reweighted(&mut self, field: &Field, slot: Slot, from: u16, to: u16) {
                $(self.$own.reweighted(field, slot, from, to);)*
            }

            fn moved(&mut self, field: &Field, slot: Slot) {
                $(self.$own.moved(field, slot);)*
            }

            // Inlined, for most have no memory that it concerns, and then no view is made.
            #[inline(always)]
            fn load_changed(&mut self, see: View<'_>, slot: Slot) {
                $(self.$own.load_changed(see, slot);)*
            }

            fn start_anew(&mut self, field: &Field) {
                $(self.$own.start_anew(field);)*
            }

            fn check(&self, see: View<'_>) {
                $(self.$own.check(see);)*
            }
        }

        impl Owns {
            /// The sections of those that have something to save, in the order of the table, each with the code of its algorithm.
            pub fn save_sections(&self, slots: &[Slot]) -> Vec<(u8, Vec<u8>)> {
                let mut sections = Vec::new();
                $(
                    let mut section = Writer::default();
                    self.$own.save_section(slots, &mut section);
                    if !section.is_empty() {
                        sections.push((<$algorithm>::CODE, section.into_bytes()));
                    }
                )*
                sections
            }

            /// Reads the section of the algorithm of that code.
            pub fn load_section(
                &mut self,
                code: u8,
                slots: usize,
                from: &mut Reader,
            ) -> Result<(), Malformed> {
                match code {
                    $(<$algorithm>::CODE => self.$own.load_section(slots, from),)*
                    _ => Err(Malformed::Version),
                }
            }
        }
    };
}

/// Makes all that depends on the table.
macro_rules! algorithms {
    ($($own:ident: $algorithm:ty),* $(,)?) => {
        owns! { $($own: $algorithm),* }

        /// A way to choose backends: the place of a line in the table. One byte, since every pool has one.
        #[expect(non_camel_case_types, reason = "they are the users' words")]
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        enum Place {
            $($own,)*
        }

        static LINES: [Line; ALGORITHMS.len()] = [$(Line {
            name: <$algorithm>::NAME,
            code: <$algorithm>::CODE,
            depends_on: <$algorithm>::DEPENDS_ON,
            pick: |owns, see, chance| <$algorithm>::pick_if_any(&mut owns.$own, see, chance),
            pick_ahead: |owns, see| <$algorithm>::pick_ahead(&mut owns.$own, see),
            take_back: |owns, see, slot, before| {
                <$algorithm>::take_back(&mut owns.$own, see, slot, before)
            },
        }),*];

        /// Every algorithm there is, in the order in which they are listed to users.
        pub const ALGORITHMS: [Algorithm; [$(stringify!($own)),*].len()] =
            [$(Algorithm(Place::$own)),*];
    };
}

algorithms! {
    rr: rr::RoundRobin,
    wrr: wrr::WeightedRoundRobin,
    random: random::Random,
    wrandom: wrandom::WeightedRandom,
    lc: lc::LeastConnections,
    p2c: p2c::PowerOfTwoChoices,
    ewma: ewma::LeastLatency,
    hash: hash::Rendezvous,
}

/// The algorithms that can be foreseen, in the same order.
pub const FORESEEABLE: [Algorithm; foreseeable(ALGORITHMS).1] = first(foreseeable(ALGORITHMS).0);

/// The algorithms that can be the policy of a pool, in the same order.
pub const POLICIES: [Algorithm; policies(ALGORITHMS).1] = first(policies(ALGORITHMS).0);

/// Moves the algorithms that can be foreseen to the front, and counts them.
const fn foreseeable<const N: usize>(mut all: [Algorithm; N]) -> ([Algorithm; N], usize) {
    let (mut i, mut n) = (0, 0);
    while i < N {
        if !all[i].is_by_chance() {
            all[n] = all[i];
            n += 1;
        }
        i += 1;
    }
    (all, n)
}

/// The same with those that can be a policy.
const fn policies<const N: usize>(mut all: [Algorithm; N]) -> ([Algorithm; N], usize) {
    let (mut i, mut n) = (0, 0);
    while i < N {
        if !all[i].goes_by_item() {
            all[n] = all[i];
            n += 1;
        }
        i += 1;
    }
    (all, n)
}

const fn first<const N: usize, const M: usize>(all: [Algorithm; N]) -> [Algorithm; M] {
    let (mut some, mut i) = ([Algorithm::WRR; M], 0);
    while i < M {
        some[i] = all[i];
        i += 1;
    }
    some
}

/// A way to choose backends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Algorithm(Place);

/// A line of the table.
struct Line {
    name: &'static str,
    code: u8,
    depends_on: DependsOn,
    pick: fn(&mut Owns, View<'_>, &mut Chance) -> Option<Slot>,
    pick_ahead: fn(&mut Owns, View<'_>) -> Option<(Slot, Before)>,
    take_back: fn(&mut Owns, View<'_>, Slot, Before),
}

impl Default for Algorithm {
    fn default() -> Algorithm {
        Algorithm::WRR
    }
}

impl Algorithm {
    /// The policy of a new pool.
    pub const WRR: Algorithm = Algorithm(Place::wrr);
    /// The one that goes by an item.
    pub const HASH: Algorithm = Algorithm(Place::hash);

    /// The algorithm of that name, upper or lower case.
    #[inline]
    pub fn by_name(name: &[u8]) -> Option<Algorithm> {
        (ALGORITHMS.iter())
            .find(|a| a.name().as_bytes().eq_ignore_ascii_case(name))
            .copied()
    }

    /// The policy of that code in a saved pool.
    pub(super) fn by_code(code: u8) -> Option<Algorithm> {
        POLICIES.into_iter().find(|a| a.code() == code)
    }

    #[inline(always)]
    const fn line(self) -> &'static Line {
        &LINES[self.0 as usize]
    }

    /// The user's word for it.
    pub const fn name(self) -> &'static str {
        self.line().name
    }

    /// Its code in a saved pool.
    pub(super) fn code(self) -> u8 {
        self.line().code
    }

    /// Whether it goes by latencies, and by the leases that are granted in between.
    pub fn goes_by_latency(self) -> bool {
        self == Algorithm(Place::ewma)
    }

    /// Whether it goes by an item, so that it cannot pick without one.
    pub const fn goes_by_item(self) -> bool {
        matches!(self.line().depends_on, DependsOn::Item)
    }

    /// Whether chance decides, so that its picks cannot be foreseen.
    pub const fn is_by_chance(self) -> bool {
        matches!(self.line().depends_on, DependsOn::Chance)
    }

    /// Chooses an eligible backend, if there is one.
    #[inline(always)]
    pub(super) fn pick(self, owns: &mut Owns, see: View<'_>, chance: &mut Chance) -> Option<Slot> {
        match self {
            // The policy of nearly all pools is spared a call.
            Algorithm::WRR => wrr::pick(&mut owns.wrr, see),
            other => (other.line().pick)(owns, see, chance),
        }
    }

    /// The same, but the view is made only where it is needed.
    #[inline(always)]
    pub(super) fn pick_of<'a>(
        self,
        owns: &mut Owns,
        field: &Field,
        see: impl FnOnce() -> View<'a>,
        chance: &mut Chance,
    ) -> Option<Slot> {
        match self.pick_of_few(owns, field) {
            None => self.pick(owns, see(), chance),
            slot => slot,
        }
    }

    /// The pick of few backends by the policies of nearly all pools, which need neither a view nor a call for that. Where this answers
    /// nothing, [`Algorithm::pick`] decides.
    #[inline(always)]
    fn pick_of_few(self, owns: &mut Owns, field: &Field) -> Option<Slot> {
        match self.0 {
            Place::wrr => wrr::pick_of_few(field.few()?),
            Place::rr => owns.rr.pick_of_few(field.few()?),
            _ => None,
        }
    }

    /// Picks in a way that can be taken back, if there is one.
    pub(super) fn pick_ahead(self, owns: &mut Owns, see: View<'_>) -> Option<(Slot, Before)> {
        (self.line().pick_ahead)(owns, see)
    }

    /// Takes back the latest pick.
    pub(super) fn take_back(self, owns: &mut Owns, see: View<'_>, slot: Slot, before: Before) {
        (self.line().take_back)(owns, see, slot, before);
    }
}

impl std::fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.line().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_unique_and_found() {
        for (i, a) in ALGORITHMS.iter().enumerate() {
            assert_eq!(
                Algorithm::by_name(a.name().to_uppercase().as_bytes()),
                Some(*a)
            );
            let policy = Some(*a).filter(|a| !a.goes_by_item());
            assert_eq!(Algorithm::by_code(a.code()), policy);
            assert!(
                ALGORITHMS[..i]
                    .iter()
                    .all(|b| b.name() != a.name() && b.code() != a.code())
            );
        }
        assert!(Algorithm::by_name(b"wrr ").is_none());
    }

    /// A table with an algorithm that keeps something for each slot, as those that come later.
    mod with_a_counting_one {
        use super::*;

        owns! { rr: rr::RoundRobin, counting: Counting }

        pub struct Counting;

        impl Pick for Counting {
            const NAME: &'static str = "counting";
            const CODE: u8 = 200;
            type Own = Option<Box<Counts>>;

            fn pick(_: &mut Self::Own, see: View<'_>, _: &mut Chance) -> Slot {
                see.by_count(0)
            }
        }

        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Counts(Vec<u32>);

        impl Kept for Counts {
            fn grown(&mut self, slots: usize) {
                self.0.resize(slots, 0);
            }

            fn renumber(&mut self, gaps: &Gaps) {
                gaps.close(&mut self.0);
            }
        }

        impl Own for Counts {
            fn save_section(&self, slots: &[Slot], to: &mut Writer) {
                slots.iter().for_each(|slot| to.put(&self.0[*slot]));
            }

            fn load_section(&mut self, slots: usize, from: &mut Reader) -> Result<(), Malformed> {
                (0..slots).try_for_each(|slot| {
                    self.0[slot] = from.get()?;
                    Ok(())
                })
            }
        }

        #[test]
        fn what_an_algorithm_keeps_is_saved_in_a_section_of_its_own() {
            let mut owns = Owns::default();
            assert_eq!(owns.save_sections(&[]), []);
            assert_eq!((owns.policy, owns.rules), (Algorithm::WRR, 0));
            owns.counting = Some(Box::new(Counts(vec![7, 0, 300])));
            let sections = owns.save_sections(&[0, 2]);
            let [(200, section)] = &sections[..] else {
                panic!("{sections:?}");
            };

            let mut loaded = Owns::default();
            let mut from = Reader::of(section);
            assert_eq!(loaded.load_section(200, 2, &mut from), Ok(()));
            assert!(from.is_at_end());
            assert_eq!(loaded.counting, Some(Box::new(Counts(vec![7, 300]))));
            owns.renumber(&Gaps::of([false, true, false].into_iter()));
            assert_eq!(loaded.counting, owns.counting);

            let unknown = loaded.load_section(201, 2, &mut Reader::of(section));
            assert_eq!(unknown, Err(Malformed::Version));
            let cut_off = loaded.load_section(200, 2, &mut Reader::of(&section[..1]));
            assert_eq!(cut_off, Err(Malformed::Syntax));
        }
    }
}
