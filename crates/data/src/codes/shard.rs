//! The number of a shard, by which a merge knows that none is missing.

use std::fmt;
use std::str::FromStr;

use super::error::Fault;

/// Which shard of how many a file is; written `2/3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardNumber {
    /// The shard, counted from 1.
    pub index: u64,
    /// Number of shards, at least 1.
    pub count: u64,
}

impl ShardNumber {
    /// Refuses a shard that is not one of its count.
    pub(super) fn check(self) -> Result<(), Fault> {
        if (1..=self.count).contains(&self.index) { Ok(()) } else { Err(Fault::Shard { found: self.to_string() }) }
    }
}

impl fmt::Display for ShardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for ShardNumber {
    type Err = Fault;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let fault = || Fault::Shard { found: text.into() };
        let (index, count) = text.split_once('/').ok_or_else(fault)?;
        let parse = |number: &str| number.parse().map_err(|_| fault());
        let shard = Self { index: parse(index)?, count: parse(count)? };
        shard.check()?;
        // Signs and leading zeros are not written.
        if shard.to_string() == text { Ok(shard) } else { Err(fault()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_its_text() {
        for text in ["1/1", "2/3", "3/3", "18446744073709551615/18446744073709551615"] {
            assert_eq!(text.parse::<ShardNumber>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "/", "2", "0/0", "0/3", "4/3", "-1/3", "+2/3", "02/3", "2/3/4", "2 /3", "two/3", "2/", "/3"] {
            let message = text.parse::<ShardNumber>().unwrap_err().to_string();
            assert!(message.contains("such as 2/3") && message.ends_with(&format!("found {text:?}")), "{message}");
        }
    }
}
