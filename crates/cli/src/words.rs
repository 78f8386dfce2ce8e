//! Numbers and what is counted, as people write them.

/// `1 sequence`, `2 sequences`.
pub fn counted(count: impl Into<u64>, one: &str) -> String {
    let count = count.into();
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// `1 sequence is`, `2 sequences are`.
pub fn are(count: impl Into<u64>, one: &str) -> String {
    let count = count.into();
    format!("{} {}", counted(count, one), if count == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0_u64, 1, 2].map(|count| counted(count, "row")), ["0 rows", "1 row", "2 rows"]);
        assert_eq!([1_u64, 2].map(|count| are(count, "row")), ["1 row is", "2 rows are"]);
    }
}
