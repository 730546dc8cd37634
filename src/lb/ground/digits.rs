//! Whole numbers as decimal digits. They stand in lease ids and in most arguments, so no step allocates or checks for UTF-8.

/// The digits of `u64::MAX`.
pub const DIGITS_MAX: usize = 20;

/// The number at the beginning of a text, without leading zeros, and the rest of the text.
///
/// An epoch has twenty digits, so each lease that ends would cost 200 instructions more if they were read one by one.
#[inline(always)]
pub fn leading(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut number, mut rest) = (0_u64, text);
    while let Some((eight, others)) = rest.split_first_chunk()
        && let Some(value) = value_of_eight(u64::from_le_bytes(*eight))
    {
        number = number.wrapping_mul(100_000_000).wrapping_add(value);
        rest = others;
    }
    if let Some((four, others)) = rest.split_first_chunk()
        && let four = u64::from(u32::from_le_bytes(*four))
        && let Some(value) = value_of_eight(four << 32 | u64::from(u32::from_le_bytes(*b"0000")))
    {
        number = number.wrapping_mul(10_000).wrapping_add(value);
        rest = others;
    }
    while let [first, others @ ..] = rest
        && let digit = first.wrapping_sub(b'0')
        && digit < 10
    {
        number = number.wrapping_mul(10).wrapping_add(digit.into());
        rest = others;
    }
    let is_plain = match text.len() - rest.len() {
        0 => false,
        1 => true,
        len if len < DIGITS_MAX => text[0] != b'0',
        // Below 2 × 10^19 a number that does not fit wraps to one below 10^19.
        DIGITS_MAX => text[0] == b'1' && number >= 10_u64.pow(19),
        _ => false,
    };
    is_plain.then_some((number, rest))
}

/// The number of eight digits, the first one in the lowest byte. It adds neighbours up three times, all pairs at once.
fn value_of_eight(digits: u64) -> Option<u64> {
    const HIGH_HALVES: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // A byte is a digit if it is 0x3d, and still is after six more.
    let is_high = |bytes: u64| bytes & HIGH_HALVES == 0x3030_3030_3030_3030;
    if !is_high(digits) || !is_high(digits.wrapping_add(0x0606_0606_0606_0606)) {
        return None;
    }
    let ones = digits & !HIGH_HALVES;
    let twos = (ones * 10 + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos * 100 + (twos >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours & 0xffff) * 10_000 + (fours >> 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_ends_before_the_first_byte_that_is_no_digit() {
        assert_eq!(leading(b"0"), Some((0, &b""[..])));
        assert_eq!(leading(b"0-7"), Some((0, &b"-7"[..])));
        assert_eq!(leading(b"907a1"), Some((907, &b"a1"[..])));
        for none in ["", "-", "+1", "01", "00", " 1", "/", ":"] {
            assert_eq!(leading(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn any_number_is_read_with_any_byte_in_it() {
        for digits in 1..=DIGITS_MAX {
            let text: Vec<u8> = (0..digits).map(|i| b'1' + (i * 7 % 9) as u8).collect();
            let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse().ok();
            for (at, byte) in (0..digits).flat_map(|at| (0..=255).map(move |b| (at, b))) {
                let mut text = text.clone();
                text[at] = byte;
                let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
                let is_plain = digits == 1 || digits > 1 && text[0] != b'0';
                let number = is_plain.then(|| number(&text[..digits])).flatten();
                let read = number.map(|number| (number, &text[digits..]));
                assert_eq!(leading(&text), read);
            }
        }
    }

    #[test]
    fn the_largest_number_is_read_and_no_larger_one() {
        let largest = u64::MAX.to_string();
        assert_eq!(largest.len(), DIGITS_MAX);
        assert_eq!(leading(largest.as_bytes()), Some((u64::MAX, &b""[..])));
        for larger in [
            "18446744073709551616",
            "99999999999999999999",
            "100000000000000000000",
        ] {
            assert_eq!(leading(larger.as_bytes()), None, "{larger}");
        }
    }
}
