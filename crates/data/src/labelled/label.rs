//! One label as it is written, and what it says: the same in every format, whatever its spelling.

use std::borrow::Cow;

use super::CellFault;

/// Beyond this, the squares and products of labels that statistics need could leave the range of numbers.
const LARGEST: f64 = 1e100;

/// What `pandas.read_csv` takes for a missing value; a dot, as in VCF; and no text at all.
///
/// The word `none` is a class in many a data set, and so is none of them.
const MISSING: [&str; 18] = [
    "", ".", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-NaN",
    "-nan", "NAN", "Null",
];

/// Whether a label says that there is none.
pub(super) fn is_missing(label: &str) -> bool {
    MISSING.contains(&label)
}

/// A label in the one spelling of its value: `1.0`, `+1` and `1` are `1`, `True` and `TRUE` are `true`, words are as written.
pub(super) fn plain(label: &str) -> Result<Cow<'_, str>, CellFault> {
    if label.contains(char::is_control) {
        return Err(CellFault::Control { found: label.to_owned() });
    }
    for word in ["true", "false"] {
        if label.eq_ignore_ascii_case(word) {
            return Ok(Cow::Borrowed(word));
        }
    }
    match label.parse::<f64>() {
        Err(_) => Ok(Cow::Borrowed(label)),
        Ok(number) if !number.is_finite() => Err(CellFault::Number { found: label.to_owned() }),
        Ok(number) if number.abs() > LARGEST => Err(CellFault::TooLarge { found: label.to_owned() }),
        Ok(number) => Ok(plain_number(label, number)),
    }
}

fn plain_number(label: &str, number: f64) -> Cow<'_, str> {
    let digits = label.trim_start_matches(['+', '-']);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // All digits count: numbers beyond 2^53 would lose some.
        let digits = match digits.trim_start_matches('0') {
            "" => return Cow::Borrowed("0"),
            digits => digits,
        };
        return if label.starts_with('-') { Cow::Owned(format!("-{digits}")) } else { Cow::Borrowed(digits) };
    }
    /// From here on not every whole number is one of these numbers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    // Adding 0 takes the sign off a zero.
    let text =
        if number.fract() == 0.0 && number.abs() < EXACT { format!("{}", number + 0.0) } else { format!("{number:?}") };
    if text == label { Cow::Borrowed(label) } else { Cow::Owned(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_values_rather_than_spellings() {
        for (labels, expected) in [
            (&["1", "1.0", "+1", "01", "1e0", "1.", "100e-2"][..], "1"),
            (&["0", "0.0", "-0", "-0.0", "+0"], "0"),
            (&["-12", "-12.0", "-012", "-1.2e1"], "-12"),
            (&["true", "True", "TRUE"], "true"),
            (&["False", "fALSE"], "false"),
            (&["0.5", ".5", "0.50", "5e-1"], "0.5"),
            (&["1e-8", "0.00000001"], "1e-8"),
            (&["1e38", "100000000000000000000000000000000000000.0"], "1e38"),
            (&["123456789012345678901", "+123456789012345678901"], "123456789012345678901"),
            (&["none"], "none"),
            (&["N"], "N"),
            (&["0x1"], "0x1"),
        ] {
            for label in labels {
                assert_eq!(plain(label).unwrap(), expected, "{label}");
                assert_eq!(plain(expected).unwrap(), expected);
            }
        }
    }

    #[test]
    fn every_number_reads_back_as_itself() {
        for number in [0.1, -1.0 / 3.0, 2.5e-310, 1e22, 123_456_789.123, 9_007_199_254_740_993.0, -1e100] {
            for text in [format!("{number}"), format!("{number:e}"), format!("{number:?}")] {
                assert_eq!(plain(&text).unwrap().parse(), Ok(number), "{text}");
            }
        }
    }

    #[test]
    fn what_no_statistics_can_take_is_refused() {
        let message = |label: &str| plain(label).unwrap_err().to_string();
        for label in ["inf", "-Infinity", "1e999", "-nan"] {
            assert_eq!(message(label), format!("`{label}` is not a finite number"));
        }
        assert_eq!(
            message("1e308"),
            "`1e308` is too large for a label: statistics need its squares; at most 1e100, on either side of 0"
        );
        assert_eq!(message("-1e101").split(':').next(), Some("`-1e101` is too large for a label"));
        for label in ["a\tb", "a\nb", "\r", "\u{1b}[31mred"] {
            assert!(
                message(label)
                    .ends_with("holds a tab, a line end or another control character, which tables cannot hold")
            );
            assert!(!message(label).contains(char::is_control));
        }
    }

    #[test]
    fn missing_labels_are_told_from_classes() {
        for label in ["", ".", "NA", "N/A", "n/a", "None", "null", "NULL", "nan", "NaN", "<NA>"] {
            assert!(is_missing(label), "{label}");
        }
        for label in ["none", "na", "0", "N", "negative", "-"] {
            assert!(!is_missing(label), "{label}");
        }
    }
}
