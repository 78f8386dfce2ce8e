//! Enums that a person writes as a word, in a configuration file or on the command line.

use std::fmt;

/// A word that names none of the choices; the message lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// What was to be chosen, with its article: `a strand policy`.
    pub kind: &'static str,
    /// The word as it was given.
    pub given: String,
    /// The words that would have been understood.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not {}; choose one of {}", self.given, self.kind, self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

/// Implements `Display` and `FromStr` of a field-less enum from one table of words.
macro_rules! words {
    ($name:ident, $kind:literal, { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::words::UnknownWord { kind: $kind, given: word.to_owned(), known: &[$($word),+] }),
                }
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use crate::alphabet::AmbiguousPolicy;

    #[test]
    fn an_unknown_word_lists_the_known_ones() {
        let error = "maybe".parse::<AmbiguousPolicy>().unwrap_err();
        assert_eq!(error.to_string(), "`maybe` is not a policy for ambiguous letters; choose one of n, split, error");
    }
}
