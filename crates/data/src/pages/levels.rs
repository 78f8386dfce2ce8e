//! How long the lists of a page are, computed from its repetition levels.

use parquet::{basic::Encoding, errors::ParquetError};

use super::damaged;

/// Counts the levels of lists, across pages: a level of 0 begins a row, any other goes on with it.
pub(super) struct Lengths {
    longest: u64,
    /// Levels of the row that is not yet at its end.
    current: u64,
}

impl Lengths {
    /// Rows of at most `longest` levels.
    pub(super) fn new(longest: u64) -> Self {
        Self { longest, current: 0 }
    }

    /// Looks at `count` levels of a page, of `width` bits each.
    pub(super) fn check(
        &mut self,
        encoding: Encoding,
        mut data: &[u8],
        width: u32,
        count: u64,
    ) -> Result<(), ParquetError> {
        if encoding != Encoding::RLE {
            return self.packed(data, width, count).map(drop);
        }
        let mut left = count;
        while left > 0 {
            // After the last run there may be zeros.
            let Some((head, rest)) = number(data).filter(|&(head, _)| head > 0) else { return Ok(()) };
            data = rest;
            if head & 1 == 1 {
                let levels = (head >> 1).saturating_mul(8).min(left);
                let bytes = usize::try_from((head >> 1).saturating_mul(width.into())).map_err(|_| damaged())?;
                let (packed, rest) = data.split_at(bytes.min(data.len()));
                left -= self.packed(packed, width, levels)?;
                data = rest;
            } else {
                let bytes = width.div_ceil(8) as usize;
                let (level, rest) = data.split_at_checked(bytes).ok_or_else(damaged)?;
                let levels = (head >> 1).min(left);
                self.run(level.iter().any(|&byte| byte > 0), levels)?;
                (data, left) = (rest, left - levels);
            }
        }
        Ok(())
    }

    /// Looks at levels that stand one by one; returns how many there were.
    fn packed(&mut self, data: &[u8], width: u32, count: u64) -> Result<u64, ParquetError> {
        let width = width as usize;
        let bit = |at: usize| data[at / 8] >> (at % 8) & 1 == 1;
        let there = (data.len() * 8).checked_div(width).unwrap_or(0);
        let levels = usize::try_from(count).unwrap_or(usize::MAX).min(there);
        for level in 0..levels {
            self.run((level * width..(level + 1) * width).any(bit), 1)?;
        }
        Ok(levels as u64)
    }

    fn run(&mut self, goes_on: bool, levels: u64) -> Result<(), ParquetError> {
        self.current = if goes_on { self.current.saturating_add(levels) } else { levels.min(1) };
        if self.current > self.longest {
            let message = format!("a row has a list of more than {} values", self.longest);
            return Err(ParquetError::General(message));
        }
        Ok(())
    }
}

/// A number of as many bytes as it needs, lowest bits first, and what follows it.
pub(super) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (index, (&byte, shift)) in bytes.iter().zip((0..64).step_by(7)).enumerate() {
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_no_longer_than_they_may_be() {
        let rle = |lengths: &mut Lengths, data: &[u8]| lengths.check(Encoding::RLE, data, 1, 20).is_ok();
        // A level of 0, and 9 of 1.
        let ten = [0x02, 0, 0x12, 1];
        assert!(rle(&mut Lengths::new(10), &ten));
        assert!(!rle(&mut Lengths::new(9), &ten));
        // A run that claims 2^31 levels, of which the page has 20.
        let claim = [0x02, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 1];
        assert!(rle(&mut Lengths::new(20), &claim));
        assert!(!rle(&mut Lengths::new(19), &claim));
        // One by one: 0 and 7 of 1, then 0 0 and 6 of 1.
        let packed = [0x05, 0b1111_1110, 0b1111_1100];
        assert!(rle(&mut Lengths::new(8), &packed));
        assert!(!rle(&mut Lengths::new(7), &packed));
        assert!(Lengths::new(7).check(Encoding::PLAIN, &packed[1..], 1, 7).is_ok());
        assert!(Lengths::new(7).check(Encoding::PLAIN, &packed[1..], 1, 8).is_err());
        // A row goes on with the next page.
        let mut lengths = Lengths::new(15);
        assert!(rle(&mut lengths, &ten));
        assert!(!rle(&mut lengths, &ten[2..]));
        // Levels of two bits.
        assert!(Lengths::new(3).check(Encoding::RLE, &[0x03, 0b0010_0100, 0], 2, 4).is_ok());
        assert!(Lengths::new(3).check(Encoding::RLE, &[0x03, 0b1010_0100, 0], 2, 4).is_err());
    }
}
