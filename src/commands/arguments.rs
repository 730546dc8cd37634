//! How the arguments that several commands share are read.

use std::collections::HashSet;

use super::Error;
use crate::lb::{ALGORITHMS, Algorithm, COUNT_MAX, EXCLUDE_MAX, NAME_MAX, Request};

/// Arguments of a command, of which some were taken already.
pub trait Words<'a>: ExactSizeIterator<Item = &'a [u8]> + Clone {}

impl<'a, W: ExactSizeIterator<Item = &'a [u8]> + Clone> Words<'a> for W {}

/// The name of a backend.
pub fn name(bytes: &[u8]) -> Result<&[u8], Error> {
    match (1..=NAME_MAX).contains(&bytes.len()) {
        true => Ok(bytes),
        false => Err(Error::name(bytes)),
    }
}

/// The names of backends.
pub fn names<'a>(args: impl Words<'a>) -> Result<Vec<&'a [u8]>, Error> {
    args.map(name).collect()
}

/// A weight, of this backend.
pub fn weight(backend: &[u8], bytes: &[u8]) -> Result<u16, Error> {
    integer(bytes).ok_or_else(|| Error::weight(backend, bytes))
}

/// `backend weight` pairs. Of a backend that is named twice the last one counts.
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

/// An algorithm, by its name.
pub fn algorithm(word: &[u8]) -> Result<Algorithm, Error> {
    Algorithm::by_name(word).ok_or_else(|| Error::not_one_of("algorithm", word, &algorithm_names()))
}

/// What stands behind the key in LB.PICK and LB.PEEK.
pub struct Wanted<'a> {
    /// What to pick.
    pub request: Request<'a>,
    /// Whether COUNT was given, so that an array is answered.
    pub is_array: bool,
}

/// Reads what stands behind the key in LB.PICK and LB.PEEK.
pub fn wanted<'a>(mut args: impl Words<'a>) -> Result<Wanted<'a>, Error> {
    let algorithm = args.clone().next().and_then(Algorithm::by_name);
    if algorithm.is_some() {
        args.next();
    }
    let (mut count, mut distinct, mut exclude) = (None, None, None);
    while let Some(word) = args.next() {
        let is_repeated = if word.eq_ignore_ascii_case(b"COUNT") {
            count
                .replace(number("COUNT", &mut args, COUNT_MAX)?)
                .is_some()
        } else if word.eq_ignore_ascii_case(b"DISTINCT") {
            distinct.replace(()).is_some()
        } else if word.eq_ignore_ascii_case(b"EXCLUDE") {
            exclude.replace(excluded(&mut args)?).is_some()
        } else if algorithm.is_none() && count.is_none() && distinct.is_none() && exclude.is_none()
        {
            let words = format!("{}, or COUNT, DISTINCT, EXCLUDE", algorithm_names());
            return Err(Error::not_one_of("algorithm", word, &words));
        } else {
            let words = "COUNT n, DISTINCT or EXCLUDE numbackends backend ...";
            return Err(Error::not_one_of("keyword", word, words));
        };
        if is_repeated {
            return Err(Error::repeated(word));
        }
    }
    if distinct.is_some() && count.is_none() {
        return Err(Error::distinct_alone());
    }
    Ok(Wanted {
        is_array: count.is_some(),
        request: Request {
            algorithm,
            count: count.unwrap_or(1),
            distinct: distinct.is_some(),
            exclude: exclude.unwrap_or_default(),
        },
    })
}

fn excluded<'a>(args: &mut impl Words<'a>) -> Result<Vec<&'a [u8]>, Error> {
    let wanted = number("EXCLUDE", args, EXCLUDE_MAX)?;
    let given = args.len();
    if wanted > given {
        return Err(Error::new(format!(
            "ERR EXCLUDE {wanted} is followed by {given} backends"
        )));
    }
    args.take(wanted).map(name).collect()
}

/// The number behind a keyword, from 1 to `most`.
fn number<'a>(what: &str, args: &mut impl Words<'a>, most: usize) -> Result<usize, Error> {
    let bytes = args.next().ok_or_else(|| Error::no_value(what))?;
    integer(bytes)
        .filter(|n| (1..=most).contains(n))
        .ok_or_else(|| Error::number(what, bytes, most))
}

/// A whole number as Redis reads them: digits alone, no sign but a minus, no zeros before them.
pub fn integer<N: std::str::FromStr>(bytes: &[u8]) -> Option<N> {
    let is_plain = matches!(bytes, [b'0'] | [b'-', b'1'..=b'9', ..] | [b'1'..=b'9', ..]);
    let text = is_plain.then(|| std::str::from_utf8(bytes).ok())??;
    text.parse().ok()
}

fn algorithm_names() -> String {
    ALGORITHMS.map(Algorithm::name).join(", ")
}
