//! Names that are not UTF-8.

use std::{borrow::Cow, fmt::Write};

/// A name as text. A byte that is not UTF-8 becomes the four characters `\xE9`, so that names that differ stay different.
pub(crate) fn readable(name: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(name) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02X}");
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_stay_different() {
        assert_eq!(readable("café".as_bytes()), "café");
        assert_eq!(readable(b"caf\xe9 1"), "caf\\xE9 1");
        assert_ne!(readable(b"caf\xe9"), readable(b"caf\xe8"));
    }
}
