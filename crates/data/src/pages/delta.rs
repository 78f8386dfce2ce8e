//! How many values a page of deltas claims to hold.

use parquet::{basic::Encoding, errors::ParquetError};

use super::damaged;

/// Most values of a page of texts that has their lengths before them, for each of which the library makes room at once.
const MOST_VALUES: u64 = 1 << 24;

/// Refuses data of a page of `values` values (nulls included) that claims more of them.
pub(super) fn check(encoding: Encoding, data: &[u8], values: u64) -> Result<(), ParquetError> {
    let of_texts = matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY);
    if !of_texts && encoding != Encoding::DELTA_BINARY_PACKED {
        return Ok(());
    }
    if of_texts && values > MOST_VALUES {
        let message = format!("a page of texts has {values} values, more than the {MOST_VALUES} that are read");
        return Err(ParquetError::General(message));
    }
    let mut numbers = Numbers { rest: data };
    let first = numbers.head(values)?;
    if encoding == Encoding::DELTA_BYTE_ARRAY {
        // The lengths of what follows are behind the lengths of what is shared with the text before.
        numbers.skip_blocks(&first)?;
        numbers.head(values)?;
    }
    Ok(())
}

/// What stands before delta-packed numbers.
struct Head {
    /// Numbers in a part of a block that has a bit width of its own.
    part: u64,
    /// Such parts in a block.
    parts: usize,
    /// Numbers in all.
    count: u64,
}

/// Delta-packed numbers.
struct Numbers<'a> {
    rest: &'a [u8],
}

impl<'a> Numbers<'a> {
    fn head(&mut self, values: u64) -> Result<Head, ParquetError> {
        let (block, parts, count, _) = (self.number()?, self.number()?, self.number()?, self.number()?);
        if count > values {
            let message = format!("a page of {values} values claims {count} within");
            return Err(ParquetError::General(message));
        }
        let part = block.checked_div(parts).filter(|&part| part > 0).ok_or_else(damaged)?;
        Ok(Head { part, parts: usize::try_from(parts).map_err(|_| damaged())?, count })
    }

    fn skip_blocks(&mut self, head: &Head) -> Result<(), ParquetError> {
        // The first number stands in the head.
        let mut left = head.count.saturating_sub(1);
        while left > 0 {
            self.number()?;
            let widths = self.take(head.parts)?;
            for &width in widths {
                if left == 0 {
                    break;
                }
                let bytes = u64::from(width).checked_mul(head.part).ok_or_else(damaged)? / 8;
                self.take(usize::try_from(bytes).map_err(|_| damaged())?)?;
                left = left.saturating_sub(head.part);
            }
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ParquetError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, ParquetError> {
        let (number, rest) = super::levels::number(self.rest).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of 128 numbers in 4 parts, and `count` numbers of which the first is 3.
    fn head(count: &[u8]) -> Vec<u8> {
        [&[0x80, 0x01, 0x04][..], count, &[0x06]].concat()
    }

    #[test]
    fn claims_are_held_against_the_header() {
        let many = head(&[0xff, 0xff, 0xff, 0xff, 0x07]);
        let message = |encoding| check(encoding, &many, 100).unwrap_err().to_string();
        for encoding in [Encoding::DELTA_BINARY_PACKED, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
            assert!(message(encoding).ends_with("a page of 100 values claims 2147483647 within"));
            assert!(check(encoding, &[], 100).is_err());
        }
        assert!(check(Encoding::PLAIN, &many, 100).is_ok());
        let honest = head(&[100]);
        assert!(check(Encoding::DELTA_LENGTH_BYTE_ARRAY, &honest, 100).is_ok());
        let message = check(Encoding::DELTA_LENGTH_BYTE_ARRAY, &honest, 1 << 31).unwrap_err().to_string();
        assert!(message.ends_with("a page of texts has 2147483648 values, more than the 16777216 that are read"));
    }

    #[test]
    fn lengths_behind_lengths_are_found() {
        // 40 numbers after the first: a part of 32 in 2 bits, a part of 8 in 1 bit and padding, and two parts that are not there.
        let mut page = head(&[41]);
        page.extend([0x00, 2, 1, 9, 9]);
        page.extend([0xff; 32 * 2 / 8 + 32 / 8]);
        for (count, is_fine) in [(41, true), (42, false)] {
            let both = [page.clone(), head(&[count])].concat();
            assert_eq!(check(Encoding::DELTA_BYTE_ARRAY, &both, 41).is_ok(), is_fine);
        }
        for end in 0..page.len() {
            assert!(check(Encoding::DELTA_BYTE_ARRAY, &page[..end], 41).is_err());
        }
        // Parts of no numbers would never end.
        assert!(check(Encoding::DELTA_BYTE_ARRAY, &[0x00, 0x04, 0x04, 0x00, 0x00], 41).is_err());
    }
}
