//! Parsers of the arguments that several commands share.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::lb::{
    ALGORITHMS, Algorithm, COSTS_NAMED_MAX, COUNT_MAX, Cost, EXCLUDE_MAX, LeaseTerms, Millis,
    NAME_MAX, POLICIES, RATE_MAX, Request, SPAN_MAX, Sticky, digits, session_hash,
};
use crate::server::{Block, Error};

/// The arguments of a command that are not parsed yet.
pub trait Words<'a>: ExactSizeIterator<Item = &'a [u8]> + Clone {}

impl<'a, W: ExactSizeIterator<Item = &'a [u8]> + Clone> Words<'a> for W {}

/// Parses the name of a backend.
pub fn name(bytes: &[u8]) -> Result<&[u8], Error> {
    bounded("the name of a backend", bytes)
}

/// Checks the length that every name and item has.
#[inline(always)]
fn bounded<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    match (1..=NAME_MAX).contains(&bytes.len()) {
        true => Ok(bytes),
        false => Err(Error::length(what, bytes)),
    }
}

/// Parses names of backends.
pub fn names<'a>(args: impl Words<'a>) -> Result<Vec<&'a [u8]>, Error> {
    args.map(name).collect()
}

/// Parses the weight of this backend.
pub fn weight(backend: &[u8], bytes: &[u8]) -> Result<u16, Error> {
    integer(bytes).ok_or_else(|| Error::weight(backend, bytes))
}

/// Parses `backend weight` pairs. If a backend is named twice, its last pair counts.
pub fn pairs<'a>(mut args: impl Words<'a>) -> Result<Vec<(&'a [u8], u16)>, Error> {
    let mut pairs = Vec::with_capacity(args.len() / 2);
    while let Some(backend) = args.next() {
        let backend = name(backend)?;
        let bytes = args.next().ok_or_else(Error::no_weight)?;
        pairs.push((backend, weight(backend, bytes)?));
    }
    if pairs.len() > 1 {
        let mut seen = HashSet::with_capacity(pairs.len());
        pairs.reverse();
        pairs.retain(|(backend, _)| seen.insert(*backend));
        pairs.reverse();
    }
    Ok(pairs)
}

/// Parses the name of an algorithm that can be a policy.
pub fn policy(word: &[u8]) -> Result<Algorithm, Error> {
    match Algorithm::by_name(word) {
        Some(algorithm) if algorithm.goes_by_item() => Err(Error::policy_without_item()),
        Some(algorithm) => Ok(algorithm),
        None => Err(Error::not_one_of("algorithm", word, &names_of(&POLICIES))),
    }
}

/// Parses an item.
fn item(bytes: &[u8]) -> Result<&[u8], Error> {
    bounded("an item", bytes)
}

/// Parses the name of a lease's owner.
pub fn owner(bytes: &[u8]) -> Result<&[u8], Error> {
    bounded("the name of an owner", bytes)
}

/// Parses the name of a cost.
pub fn cost(bytes: &[u8]) -> Result<&[u8], Error> {
    bounded("the name of a cost", bytes)
}

/// Parses the name of a session.
pub fn session(bytes: &[u8]) -> Result<&[u8], Error> {
    bounded("the name of a session", bytes)
}

/// Parses the name for which a client waits.
fn tenant(bytes: &[u8]) -> Result<&[u8], Error> {
    bounded("the name behind FOR", bytes)
}

/// Parses a span of time.
pub fn millis(what: &str, bytes: &[u8]) -> Result<Millis, Error> {
    number(what, bytes, 1..=SPAN_MAX)
}

fn number(what: &str, bytes: &[u8], range: RangeInclusive<u64>) -> Result<u64, Error> {
    match integer::<u64>(bytes) {
        Some(number) => within(what, bytes, number, range),
        None => Err(Error::number(what, bytes, range)),
    }
}

/// Checks the range of a number, which these bytes say.
fn within(
    what: &str,
    bytes: &[u8],
    number: impl TryInto<u64>,
    range: RangeInclusive<u64>,
) -> Result<u64, Error> {
    let number = number.try_into().ok().filter(|n| range.contains(n));
    number.ok_or_else(|| Error::number(what, bytes, range))
}

/// Whether a word is this keyword of capital letters, upper or lower case.
#[inline(always)]
pub fn is_keyword<const N: usize>(word: &[u8], keyword: &[u8; N]) -> bool {
    debug_assert!(keyword.iter().all(u8::is_ascii_uppercase));
    // One bit tells small letters from capital ones, and no other byte differs from a letter in that bit alone.
    let differs = |word: &[u8; N]| {
        let pairs = word.iter().zip(keyword);
        pairs.fold(0, |differs, (a, b)| differs | (a & !0x20) ^ b)
    };
    word.try_into().is_ok_and(|word| differs(word) == 0)
}

/// A parser of keywords and their values.
pub struct Options<W>(W);

impl<'a, W: Words<'a>> Options<W> {
    /// A parser of these words.
    pub fn of(words: W) -> Options<W> {
        Options(words)
    }

    /// The next word. It should be a keyword.
    pub fn keyword(&mut self) -> Option<&'a [u8]> {
        self.0.next()
    }

    /// The value behind the keyword.
    pub fn value(&mut self, keyword: &str) -> Result<&'a [u8], Error> {
        self.0.next().ok_or_else(|| Error::no_value(keyword))
    }

    /// The number behind the keyword.
    pub fn number(&mut self, keyword: &str, range: RangeInclusive<u64>) -> Result<u64, Error> {
        number(keyword, self.value(keyword)?, range)
    }

    /// The number behind a keyword that says how many others follow it. `without` is the error where no number is there.
    fn how_many(
        &mut self,
        keyword: &str,
        most: usize,
        without: fn(&[u8], RangeInclusive<u64>) -> Error,
    ) -> Result<usize, Error> {
        let word = self.value(keyword)?;
        let range = 1..=most as u64;
        match integer::<i64>(word) {
            Some(number) => Ok(within(keyword, word, number, range)? as usize),
            None => Err(without(word, range)),
        }
    }

    /// The number behind EXCLUDE, and the names that follow it.
    fn excluded(&mut self) -> Result<Vec<&'a [u8]>, Error> {
        let wanted = self.how_many("EXCLUDE", EXCLUDE_MAX, Error::exclude_without_number)?;
        let given = self.0.len();
        if wanted > given {
            return Err(Error::new(format!(
                "ERR EXCLUDE {wanted} is followed by {given} backends"
            )));
        }
        let mut names = Vec::with_capacity(wanted);
        for word in (&mut self.0).take(wanted) {
            names.push(name(word)?);
        }
        Ok(names)
    }

    /// The name of a cost and an amount of it.
    pub fn cost(&mut self, keyword: &str) -> Result<Cost<'a>, Error> {
        let name = cost(self.value(keyword)?)?;
        let amount = self.value(keyword)?;
        Ok((name, number("an amount", amount, 0..=RATE_MAX)?))
    }

    /// The number behind COSTS, and the names and amounts that follow it. If a cost is named twice, its last amount counts.
    pub fn costs(&mut self) -> Result<Vec<Cost<'a>>, Error> {
        let wanted = self.how_many("COSTS", COSTS_NAMED_MAX, Error::costs_without_number)?;
        let mut costs: Vec<Cost> = Vec::with_capacity(wanted);
        for _ in 0..wanted {
            let (name, amount) = self.cost("COSTS")?;
            match costs.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = amount,
                None => costs.push((name, amount)),
            }
        }
        Ok(costs)
    }
}

/// The arguments behind the key in LB.PICK and LB.PEEK.
pub struct PickWords<'a> {
    /// The pick.
    pub request: Request<'a>,
    /// Whether COUNT was given, so that the reply is an array.
    pub is_array: bool,
    /// How the client waits for a backend, if BLOCK was given.
    pub block: Option<Block<'a>>,
    /// The name of the session, if STICKY was given.
    pub session: Option<&'a [u8]>,
}

/// The form of STICKY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StickyForm {
    /// A session, a span and maybe STRICT, in LB.PICK.
    Pinning,
    /// A session, in LB.PEEK.
    Looking,
}

impl<'a> PickWords<'a> {
    /// Whether it takes memory, and time matters to it: a lease, or a session.
    pub fn takes_memory(&self) -> bool {
        self.request.terms.is_some() || self.request.sticky.is_some()
    }

    /// The item, if nothing else is said of the pick.
    pub fn item_alone(&self) -> Option<&'a [u8]> {
        let request = &self.request;
        let is_alone = self.block.is_none()
            && !self.is_array
            && !self.takes_memory()
            && request.exclude.is_empty()
            && request.costs.is_empty();
        request.item.filter(|_| is_alone)
    }

    /// The same arguments as words, but without BLOCK.
    pub fn to_words(&self) -> Vec<Vec<u8>> {
        let request = &self.request;
        let mut words: Vec<Vec<u8>> = vec![];
        words.extend(request.algorithm.map(|a| a.name().into()));
        words.extend(request.item.map(Vec::from));
        if self.is_array {
            words.extend([b"COUNT".into(), request.count.to_string().into()]);
        }
        if request.distinct {
            words.push(b"DISTINCT".into());
        }
        if !request.exclude.is_empty() {
            words.extend([b"EXCLUDE".into(), request.exclude.len().to_string().into()]);
            words.extend(request.exclude.iter().map(|name| name.to_vec()));
        }
        if let Some((name, sticky)) = self.session.zip(request.sticky) {
            let span = sticky.span.to_string().into();
            words.extend([b"STICKY".into(), name.to_vec(), span]);
            words.extend(sticky.is_strict.then(|| b"STRICT".into()));
        }
        if let Some(terms) = request.terms {
            words.extend([b"LEASE".into(), terms.span.to_string().into()]);
            if let Some(owner) = terms.owner {
                words.extend([b"OWNER".into(), owner.to_vec()]);
            }
        }
        if !request.costs.is_empty() {
            words.extend([b"COSTS".into(), request.costs.len().to_string().into()]);
            for (name, amount) in &request.costs {
                words.extend([name.to_vec(), amount.to_string().into()]);
            }
        }
        words
    }
}

/// Parses the arguments behind the key in LB.PICK and LB.PEEK.
pub fn pick_words<'a>(mut args: impl Words<'a>, form: StickyForm) -> Result<PickWords<'a>, Error> {
    let algorithm = args.clone().next().and_then(Algorithm::by_name);
    if algorithm.is_some() {
        args.next();
    }
    let item = match algorithm {
        Some(algorithm) if algorithm.goes_by_item() => {
            Some(item(args.next().ok_or_else(Error::no_item)?)?)
        }
        _ => None,
    };
    let (mut count, mut distinct, mut exclude) = (None, None, None);
    let (mut lease, mut holder, mut block) = (None, None, None);
    let mut costs = None;
    let (mut sticky, mut strict) = (None, None);
    let (mut prio, mut tenant) = (None, None);
    let mut is_first = algorithm.is_none();
    let mut options = Options::of(args);
    while let Some(word) = options.keyword() {
        let is_repeated = if is_keyword(word, b"COUNT") {
            let n = options.number("COUNT", 1..=COUNT_MAX as u64)?;
            count.replace(n as usize).is_some()
        } else if is_keyword(word, b"DISTINCT") {
            distinct.replace(()).is_some()
        } else if is_keyword(word, b"EXCLUDE") {
            exclude.replace(options.excluded()?).is_some()
        } else if is_keyword(word, b"LEASE") {
            lease
                .replace(options.number("LEASE", 1..=SPAN_MAX)?)
                .is_some()
        } else if is_keyword(word, b"OWNER") {
            holder.replace(owner(options.value("OWNER")?)?).is_some()
        } else if is_keyword(word, b"COSTS") {
            costs.replace(options.costs()?).is_some()
        } else if is_keyword(word, b"BLOCK") {
            block
                .replace(options.number("BLOCK", 0..=SPAN_MAX)?)
                .is_some()
        } else if is_keyword(word, b"STICKY") {
            let name = session(options.value("STICKY")?)?;
            let span = match form {
                StickyForm::Pinning => options.number("STICKY", 1..=SPAN_MAX)?,
                StickyForm::Looking => 0,
            };
            sticky.replace((name, span)).is_some()
        } else if is_keyword(word, b"STRICT") {
            strict.replace(()).is_some()
        } else if is_keyword(word, b"PRIO") {
            let number = options.number("PRIO", 0..=u64::from(u8::MAX))?;
            prio.replace(number as u8).is_some()
        } else if is_keyword(word, b"FOR") {
            let named = self::tenant(options.value("FOR")?)?;
            tenant.replace(named).is_some()
        } else if is_first {
            let words = format!(
                "{}, or COUNT, DISTINCT, EXCLUDE, STICKY, LEASE, COSTS, BLOCK",
                names_of(&ALGORITHMS)
            );
            return Err(Error::not_one_of("algorithm", word, &words));
        } else if Algorithm::by_name(word).is_some() {
            return Err(Error::late_algorithm(word));
        } else {
            let words = "COUNT n, DISTINCT, EXCLUDE numbackends backend ..., STICKY session ms, STRICT, LEASE ms, OWNER name, COSTS numcosts name amount ..., BLOCK ms, PRIO p or FOR name";
            return Err(Error::not_one_of("keyword", word, words));
        };
        if is_repeated {
            return Err(Error::repeated(word));
        }
        is_first = false;
    }
    if distinct.is_some() && count.is_none() {
        return Err(Error::distinct_alone());
    }
    if holder.is_some() && lease.is_none() {
        return Err(Error::owner_alone());
    }
    if strict.is_some() && sticky.is_none() {
        return Err(Error::strict_alone());
    }
    if sticky.is_some() && count.is_some_and(|count| count > 1) {
        return Err(Error::sticky_many());
    }
    if block.is_none() && (prio.is_some() || tenant.is_some()) {
        return Err(Error::place_alone());
    }
    Ok(PickWords {
        is_array: count.is_some(),
        request: Request {
            algorithm,
            item,
            count: count.unwrap_or(1),
            distinct: distinct.is_some(),
            exclude: exclude.unwrap_or_default(),
            terms: lease.map(|span| LeaseTerms {
                span,
                owner: holder,
            }),
            costs: costs.unwrap_or_default(),
            sticky: sticky.map(|(name, span)| Sticky {
                session: session_hash(name),
                span,
                is_strict: strict.is_some(),
            }),
        },
        block: block.map(|millis| Block {
            millis,
            prio: prio.unwrap_or(0),
            tenant,
        }),
        session: sticky.map(|(name, _)| name),
    })
}

/// Parses the words behind the key in LB.PICK and LB.PEEK if there are none, or an algorithm alone. All others are left to
/// [`pick_words`], that of an algorithm that goes by an item too, since the item is lacking.
#[inline(always)]
pub fn algorithm_alone<'a>(mut words: impl Words<'a>) -> Option<Option<Algorithm>> {
    let Some(word) = words.next() else {
        return Some(None);
    };
    let algorithm = match words.len() {
        0 => Algorithm::by_name(word),
        _ => None,
    };
    algorithm.filter(|a| !a.goes_by_item()).map(Some)
}

/// A pick of one backend with a lease.
pub struct LeaseWords<'a> {
    /// By which algorithm, if one is named.
    pub algorithm: Option<Algorithm>,
    /// The item, for an algorithm that goes by one.
    pub item: Option<&'a [u8]>,
    /// The terms of the lease.
    pub terms: LeaseTerms<'a>,
}

/// Parses the words behind the key in LB.PICK if they ask for one backend with a lease, as gateways do: in this order, and nothing
/// else. All other words, and all errors, are left to [`pick_words`], which costs twice as much.
pub fn lease_alone<'a>(mut words: impl Words<'a>) -> Option<LeaseWords<'a>> {
    let is_lease = |word: &[u8]| is_keyword(word, b"LEASE");
    let first = words.next()?;
    let (mut algorithm, mut item) = (None, None);
    if !is_lease(first) {
        let named = Algorithm::by_name(first)?;
        if named.goes_by_item() {
            item = Some(self::item(words.next()?).ok()?);
        }
        algorithm = Some(named).filter(|_| words.next().is_some_and(is_lease));
        algorithm?;
    }
    let (span, rest) = digits::leading(words.next()?)?;
    if !rest.is_empty() || !(1..=SPAN_MAX).contains(&span) {
        return None;
    }
    let owner = match words.next() {
        Some(word) if is_keyword(word, b"OWNER") => Some(owner(words.next()?).ok()?),
        Some(_) => return None,
        None => None,
    };
    let terms = LeaseTerms { span, owner };
    (words.len() == 0).then_some(LeaseWords {
        algorithm,
        item,
        terms,
    })
}

/// Parses a whole number by Redis's rules: only digits, with no sign but a minus and no leading zeros.
pub fn integer<N: TryFrom<i128>>(bytes: &[u8]) -> Option<N> {
    let (sign, text) = match bytes {
        [b'-', text @ ..] => (-1, text),
        text => (1, text),
    };
    let (number, rest) = digits::leading(text)?;
    let is_plain = rest.is_empty() && (number > 0 || sign > 0);
    is_plain.then(|| N::try_from(sign * i128::from(number)).ok())?
}

fn names_of(algorithms: &[Algorithm]) -> String {
    let names: Vec<&str> = algorithms.iter().map(|a| a.name()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_is_told_from_any_other_word() {
        assert!(is_keyword(b"LEASE", b"LEASE") && is_keyword(b"lEasE", b"LEASE"));
        assert!(!is_keyword(b"LEAS", b"LEASE") && !is_keyword(b"LEASES", b"LEASE"));
        for (at, byte) in (0..5).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
            let mut word = *b"LEASE";
            word[at] = byte;
            assert_eq!(
                is_keyword(&word, b"LEASE"),
                word.eq_ignore_ascii_case(b"LEASE")
            );
        }
    }

    #[test]
    fn an_algorithm_alone_is_read_as_any_other_pick() {
        let vocabulary: [&[u8]; 6] = [b"wrr", b"LC", b"hash", b"wr", b"", b"COUNT"];
        let words = |n: usize, len: usize| {
            let places = [n % vocabulary.len(), n / vocabulary.len()];
            places.map(|place| vocabulary[place]).into_iter().take(len)
        };
        let mut found = 0;
        for (n, len) in (0..36).flat_map(|n| (0..=2).map(move |len| (n, len))) {
            if let Some(algorithm) = algorithm_alone(words(n, len)) {
                let words: Vec<&[u8]> = words(n, len).collect();
                let all = pick_words(words.into_iter(), StickyForm::Pinning).unwrap();
                let request = &all.request;
                assert_eq!((request.algorithm, request.count), (algorithm, 1));
                assert!(!all.is_array && !all.takes_memory() && all.block.is_none());
                assert!(request.item.is_none() && request.exclude.is_empty());
                found += 1;
            }
        }
        assert_eq!(found, 36 + 2 * 6, "no word; `wrr` or `LC`");
    }

    #[test]
    fn a_lease_alone_is_read_as_any_other_pick() {
        let vocabulary = [
            "lease", "LEASE", "owner", "o", "5", "0", "05", "lc", "COUNT", "hash",
        ];
        let mut found = 0;
        for n in 0..vocabulary.len().pow(5) {
            let places = (0..5).map(|place| n / vocabulary.len().pow(place) % vocabulary.len());
            let words: Vec<&[u8]> = places.map(|place| vocabulary[place].as_bytes()).collect();
            for len in 0..=5 {
                let words = || words[..len].iter().copied();
                if let Some(LeaseWords {
                    algorithm,
                    item,
                    terms,
                }) = lease_alone(words())
                {
                    let all = pick_words(words(), StickyForm::Pinning).unwrap();
                    assert!(!all.is_array && all.block.is_none());
                    assert_eq!((all.request.algorithm, all.request.item), (algorithm, item));
                    assert_eq!(all.request.terms, Some(terms));
                    assert_eq!((all.request.count, all.request.exclude), (1, vec![]));
                    found += 1;
                }
            }
        }
        assert!(found > 0);
    }
}
