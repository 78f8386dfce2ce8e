//! Numbers as the shortest text that reads back as the same number.

use std::fmt;

/// A number to be written: its fewest digits that read back as the same bits, with an exponent below 1e-4 and from 1e16 on.
///
/// ```
/// use vqdna_data::number::Shortest;
///
/// assert_eq!(Shortest(0.1_f32).to_string(), "0.1");
/// assert_eq!(Shortest(1e-8).to_string(), "1e-8");
/// assert_eq!(Shortest(12_000.0).to_string(), "12000");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shortest<T>(
    /// The number.
    pub T,
);

/// Sizes that are written without an exponent.
const PLAIN: std::ops::Range<f64> = 1e-4..1e16;

impl fmt::Display for Shortest<f64> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = *self;
        if is_plain(value) { write!(f, "{value}") } else { write!(f, "{value:e}") }
    }
}

impl fmt::Display for Shortest<f32> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = *self;
        if is_plain(f64::from(value)) { write!(f, "{value}") } else { write!(f, "{value:e}") }
    }
}

fn is_plain(value: f64) -> bool {
    value == 0.0 || PLAIN.contains(&value.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short_and_read_back() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (-0.0001, "-0.0001"),
            (0.000_099, "9.9e-5"),
            (1e-8, "1e-8"),
            (1e38, "1e38"),
            (-1.5e300, "-1.5e300"),
            (9e15, "9000000000000000"),
            (1e16, "1e16"),
            (f64::MIN_POSITIVE / 4.0, "5.562684646268003e-309"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(Shortest(value).to_string(), text);
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
        assert_eq!(Shortest(f64::NAN).to_string(), "NaN");
        for value in [f32::MIN, f32::MIN_POSITIVE, 1e-9, 0.1, 16_777_216.0, -3.4e-5] {
            assert_eq!(Shortest(value).to_string().parse::<f32>().unwrap().to_bits(), value.to_bits());
        }
        assert_eq!(Shortest(f32::MIN).to_string(), "-3.4028235e38");
    }
}
