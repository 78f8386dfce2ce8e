//! The compact protocol of Thrift, as far as footers and headers of pages need it.

use std::io::{self, ErrorKind, Read};

/// Reads from the beginning of a structure on.
pub(super) struct Thrift<R> {
    bytes: io::Take<R>,
    read: u64,
}

/// Structures within structures that are followed: as many as the library follows, so that it understands nothing that is not
/// understood here.
pub(super) const DEPTH: u32 = 64;

impl<R: Read> Thrift<R> {
    pub(super) fn new(bytes: io::Take<R>) -> Self {
        Self { bytes, read: 0 }
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Calls `each` with the number and the kind of every field of a structure; it must read or skip what the field holds.
    pub(super) fn fields(&mut self, mut each: impl FnMut(&mut Self, i64, u8) -> io::Result<()>) -> io::Result<()> {
        let mut field = 0_i64;
        loop {
            let byte = self.byte()?;
            let kind = byte & 0xf;
            if kind == 0 {
                return Ok(());
            }
            field = match byte >> 4 {
                0 => zigzag(self.number()?),
                more => field.wrapping_add(more.into()),
            };
            each(self, field, kind)?;
        }
    }

    /// A number that is a size, so not below 0.
    pub(super) fn size(&mut self) -> io::Result<u64> {
        u64::try_from(zigzag(self.number()?)).map_err(|_| damaged())
    }

    pub(super) fn skip(&mut self, kind: u8, depth: u32) -> io::Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(damaged)?;
        match kind {
            TRUE | FALSE => Ok(()),
            3 => self.byte().map(drop),
            4..=6 => self.number().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.number()?;
                self.pass(length)
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(kind, depth))
            }
            11 => {
                let count = self.number()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth)?;
                    self.skip_element(kinds & 0xf, depth)
                })
            }
            STRUCTURE => self.fields(|thrift, _, kind| thrift.skip(kind, depth)),
            _ => Err(damaged()),
        }
    }

    /// Begins a list: how many elements follow, and of which kind.
    pub(super) fn list(&mut self) -> io::Result<(u64, u8)> {
        let byte = self.byte()?;
        let count = if byte >> 4 == 15 { self.number()? } else { u64::from(byte >> 4) };
        Ok((count, byte & 0xf))
    }

    /// Skips an element of a list, where a truth value has a byte of its own.
    fn skip_element(&mut self, kind: u8, depth: u32) -> io::Result<()> {
        if matches!(kind, TRUE | FALSE) { self.pass(1) } else { self.skip(kind, depth) }
    }

    fn pass(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.bytes.by_ref().take(count), &mut io::sink())?;
        self.read += passed;
        if passed < count { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.bytes.read_exact(&mut byte)?;
        self.read += 1;
        Ok(byte[0])
    }
}

pub(super) const TRUE: u8 = 1;
pub(super) const FALSE: u8 = 2;
pub(super) const INTEGERS: u8 = 5;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCTURE: u8 = 12;

#[expect(clippy::cast_possible_wrap, reason = "the lowest bit is the sign")]
fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

pub(super) fn damaged() -> io::Error {
    ErrorKind::InvalidData.into()
}
