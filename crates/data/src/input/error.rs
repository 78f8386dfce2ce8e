//! Why an input could not be read, each reason said in one sentence.

use std::{io, sync::Arc};

use super::{Compression, lines, lines::LongLine};

/// Why an input could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// There is no such file.
    #[error("{file}: no such file")]
    Missing {
        /// The file.
        file: Arc<str>,
    },
    /// A folder was named.
    #[error("{file}: is a folder, not a file")]
    Folder {
        /// The folder.
        file: Arc<str>,
    },
    /// The operating system refused.
    #[error("{file}: cannot be read")]
    Read {
        /// The file.
        file: Arc<str>,
        /// What the operating system said.
        source: io::Error,
    },
    /// A line is too long to be one.
    #[error("{file}, line {line}: is longer than {most} bytes, which no line is that is read here")]
    LongLine {
        /// The file.
        file: Arc<str>,
        /// The line, counted from 1.
        line: u64,
        /// Bytes that a line may have.
        most: u64,
    },
    /// The text is UTF-16.
    #[error("{file}: is UTF-16 text; save it as UTF-8 or plain text (or run `iconv -f UTF-16 -t UTF-8` on it)")]
    Utf16 {
        /// The file.
        file: Arc<str>,
    },
    /// The compressed data ends too early.
    #[error("{file}: the {compression} data is cut off; was it copied or downloaded completely?")]
    Truncated {
        /// The file.
        file: Arc<str>,
        /// How it is compressed.
        compression: Compression,
    },
    /// The compressed data cannot be decoded.
    #[error("{file}: the {compression} data is damaged")]
    Corrupt {
        /// The file.
        file: Arc<str>,
        /// How it is compressed.
        compression: Compression,
        /// What the decoder said.
        source: io::Error,
    },
}

/// Tells a cut or damaged input from a failing disk.
pub(crate) fn sort(error: io::Error, file: Arc<str>, compression: Compression) -> InputError {
    if let Some(LongLine { line }) = error.get_ref().and_then(|error| error.downcast_ref()) {
        return InputError::LongLine { file, line: *line, most: lines::MOST };
    }
    match error.kind() {
        _ if compression == Compression::Plain || error.raw_os_error().is_some() => {
            InputError::Read { file, source: error }
        }
        io::ErrorKind::UnexpectedEof => InputError::Truncated { file, compression },
        _ => InputError::Corrupt { file, compression, source: error },
    }
}

/// A text out of a file as messages show it: shortened, and without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown = String::new();
    for letter in text.chars().take(SHOWN) {
        if letter.is_control() { shown.extend(letter.escape_debug()) } else { shown.push(letter) }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_is_shown_short_and_harmless() {
        assert_eq!(excerpt("chr1 é"), "chr1 é");
        assert_eq!(excerpt("a\u{1b}[2J\t"), "a\\u{1b}[2J\\t");
        assert_eq!(excerpt(&"n".repeat(100_000)), format!("{}…", "n".repeat(80)));
    }
}
