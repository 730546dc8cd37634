//! Parser of what LB.DONE and LB.REPORT tell.

use super::arguments::{Options, Words, is_keyword};
use crate::lb::{Cost, LOAD_MAX, LOAD_ONE, Outcome, Report, SPAN_MAX};
use crate::server::Error;

/// All that LB.DONE or LB.REPORT tells.
#[derive(Clone, Debug, Default)]
pub struct Told<'a> {
    /// How the request went.
    pub report: Report,
    /// LB.DONE: what it really cost.
    pub costs: Vec<Cost<'a>>,
    /// LB.REPORT: how much of a cost is left.
    pub left: Option<Cost<'a>>,
}

/// The command that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// LB.DONE
    Done,
    /// LB.REPORT
    Report,
}

/// Parses what is told.
#[inline(never)]
pub fn report_words<'a>(teller: Teller, words: impl Words<'a>) -> Result<Told<'a>, Error> {
    let mut told = Report::default();
    let (mut costs, mut left) = (None, None);
    let mut options = Options::of(words);
    while let Some(word) = options.keyword() {
        let is_outcome = is_keyword(word, b"OK") || is_keyword(word, b"FAIL");
        let is_repeated = if is_keyword(word, b"OK") {
            told.outcome.replace(Outcome::Ok).is_some()
        } else if is_keyword(word, b"FAIL") {
            told.outcome.replace(Outcome::Fail).is_some()
        } else if is_keyword(word, b"LATENCY") {
            let micros = options.number("LATENCY", 0..=LATENCY_MAX)?;
            told.latency.replace(micros).is_some()
        } else if is_keyword(word, b"LOAD") {
            told.load.replace(load(options.value("LOAD")?)?).is_some()
        } else if is_keyword(word, b"COOL") {
            let millis = options.number("COOL", 1..=SPAN_MAX)?;
            told.cool.replace(millis).is_some()
        } else if teller == Teller::Done && is_keyword(word, b"COSTS") {
            costs.replace(options.costs()?).is_some()
        } else if teller == Teller::Report && is_keyword(word, b"LEFT") {
            left.replace(options.cost("LEFT")?).is_some()
        } else {
            let words = match teller {
                Teller::Done => {
                    "OK, FAIL, LATENCY us, LOAD x, COOL ms or COSTS numcosts name amount ..."
                }
                Teller::Report => "OK, FAIL, LATENCY us, LOAD x, COOL ms or LEFT name amount",
            };
            return Err(Error::not_one_of("keyword", word, words));
        };
        if is_repeated {
            return Err(Error::repeated(if is_outcome {
                b"OK or FAIL"
            } else {
                word
            }));
        }
    }
    Ok(Told {
        report: told,
        costs: costs.unwrap_or_default(),
        left,
    })
}

/// The longest latency, in microseconds: more than 35 years.
const LATENCY_MAX: u64 = 1 << 50;

/// Parses a utilisation: a decimal number. Millionths count, and what is beyond them does not.
fn load(bytes: &[u8]) -> Result<u32, Error> {
    parse_load(bytes).ok_or_else(|| Error::load(bytes))
}

fn parse_load(bytes: &[u8]) -> Option<u32> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'.');
    let (whole, fraction) = (parts.next()?, parts.next());
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_number(whole) || fraction.is_some_and(|fraction| !is_number(fraction)) {
        return None;
    }
    let mut load: u32 = 0;
    for digit in whole {
        load = load.checked_mul(10)?.checked_add(u32::from(digit - b'0'))?;
    }
    load = load.checked_mul(LOAD_ONE)?;
    let mut unit = LOAD_ONE;
    for digit in fraction.unwrap_or(b"") {
        unit /= 10;
        load = load.checked_add(unit * u32::from(digit - b'0'))?;
    }
    (load <= LOAD_MAX).then_some(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_a_decimal_number() {
        let load = |text: &str| parse_load(text.as_bytes());
        assert_eq!(load("0"), Some(0));
        assert_eq!(load("0.5"), Some(500_000));
        assert_eq!(load("1"), Some(LOAD_ONE));
        assert_eq!(load("1.2500009"), Some(1_250_000));
        assert_eq!(load("00.0000019"), Some(1));
        assert_eq!(load("1000"), Some(LOAD_MAX));
        for wrong in [
            "",
            ".",
            ".5",
            "1.",
            "-0",
            "+1",
            "1e3",
            "1,5",
            "0.1.2",
            "nan",
            "1000.000001",
            "4294967296",
            "99999999999999999999",
            " 1",
        ] {
            assert_eq!(load(wrong), None, "{wrong}");
        }
    }
}
