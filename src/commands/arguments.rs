//! How the arguments that several commands share are read.

use std::collections::HashSet;

use super::Error;
use crate::lb::{ALGORITHMS, Algorithm, COUNT_MAX, EXCLUDE_MAX, NAME_MAX, Request};
use crate::server::Args;

/// The name of a backend.
pub fn name(bytes: &[u8]) -> Result<&[u8], Error> {
    match (1..=NAME_MAX).contains(&bytes.len()) {
        true => Ok(bytes),
        false => Err(Error::name(bytes)),
    }
}

/// The names of backends.
pub fn names<'a>(args: Args<'a>) -> Result<Vec<&'a [u8]>, Error> {
    args.map(name).collect()
}

/// A weight, of this backend.
pub fn weight(backend: &[u8], bytes: &[u8]) -> Result<u16, Error> {
    integer(bytes).ok_or_else(|| Error::weight(backend, bytes))
}

/// `backend weight` pairs. Of a backend that is named twice the last one counts.
pub fn pairs<'a>(mut args: Args<'a>) -> Result<Vec<(&'a [u8], u16)>, Error> {
    let mut pairs = Vec::with_capacity(args.left() / 2);
    while let Some(backend) = args.next() {
        let backend = name(backend)?;
        let bytes = args.next().ok_or(Error::NO_WEIGHT)?;
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
    Algorithm::by_name(word)
        .ok_or_else(|| Error::not_one_of("algorithm", word, &algorithm_names(", ")))
}

/// What stands behind the key in LB.PICK and LB.PEEK. The flag says whether COUNT was given, so that an array is answered.
pub fn request<'a>(mut args: Args<'a>) -> Result<(Request<'a>, bool), Error> {
    let mut request = Request {
        algorithm: None,
        count: 1,
        distinct: false,
        exclude: vec![],
    };
    if let Some(word) = args.peek(0) {
        request.algorithm = Algorithm::by_name(word);
        if request.algorithm.is_some() {
            args.next();
        } else if !is_keyword(word) {
            let words = format!(
                "{}, or COUNT, DISTINCT, EXCLUDE to pick by the policy of the pool",
                algorithm_names(", ")
            );
            return Err(Error::not_one_of("algorithm", word, &words));
        }
    }
    let mut seen = HashSet::new();
    while let Some(word) = args.next() {
        let keyword = word.to_ascii_uppercase();
        if is_keyword(word) && !seen.insert(keyword.clone()) {
            let keyword = keyword.escape_ascii();
            return Err(Error::new(format!("ERR {keyword} is given twice")));
        }
        match &keyword[..] {
            b"COUNT" => request.count = number("COUNT", &mut args, COUNT_MAX)?,
            b"DISTINCT" => request.distinct = true,
            b"EXCLUDE" => request.exclude = exclude(&mut args)?,
            _ => {
                let words = "COUNT n, DISTINCT or EXCLUDE numbackends backend …";
                return Err(Error::not_one_of("keyword", word, words));
            }
        }
    }
    let is_array = seen.contains(&b"COUNT"[..]);
    match request.distinct && !is_array {
        true => Err(Error::DISTINCT_ALONE),
        false => Ok((request, is_array)),
    }
}

fn is_keyword(word: &[u8]) -> bool {
    let keywords = [&b"COUNT"[..], b"DISTINCT", b"EXCLUDE"];
    keywords.iter().any(|k| k.eq_ignore_ascii_case(word))
}

fn exclude<'a>(args: &mut Args<'a>) -> Result<Vec<&'a [u8]>, Error> {
    let wanted = number("the number of backends behind EXCLUDE", args, EXCLUDE_MAX)?;
    let given = args.left();
    if wanted > given {
        return Err(Error::new(format!(
            "ERR EXCLUDE {wanted} is followed by {given} backends"
        )));
    }
    args.take(wanted).map(name).collect()
}

/// The number behind a keyword, from 1 to `most`.
fn number(what: &str, args: &mut Args, most: usize) -> Result<usize, Error> {
    let bytes = args.next().ok_or(Error::NO_VALUE)?;
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

fn algorithm_names(between: &str) -> String {
    ALGORITHMS.map(Algorithm::name).join(between)
}
