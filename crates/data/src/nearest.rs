//! The known name that an unknown one probably meant, for error messages.

/// Finds the known name closest to `name`, if one is close enough to be worth suggesting.
///
/// Upper and lower case, a leading `chr` and the two names of the mitochondrion (`M`, `MT`) count as no difference, because
/// that is how the same contig differs between assemblies.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = plain(name);
    known
        .into_iter()
        .map(|candidate| (edits(&wanted, &plain(candidate)), candidate))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, candidate)| *edits * 2 <= name.len().max(candidate.len()))
        .map(|(_, candidate)| candidate)
}

/// The question "did you mean …?" for the end of an error message, or nothing.
pub(crate) fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn plain(name: &str) -> Vec<u8> {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("chr").unwrap_or(&name) {
        "mt" => b"m".to_vec(),
        rest => rest.as_bytes().to_vec(),
    }
}

/// Levenshtein distance in bytes.
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_of_a_textbook_pair() {
        assert_eq!(edits(b"kitten", b"sitting"), 3);
        assert_eq!(edits(b"", b"abc"), 3);
    }

    #[test]
    fn names_of_the_same_contig_are_nearest() {
        assert_eq!(nearest("1", ["chr10", "2", "chr1"]), Some("chr1"));
        assert_eq!(nearest("chrX", ["1", "x"]), Some("x"));
        assert_eq!(nearest("MT", ["chr1", "chrM"]), Some("chrM"));
    }

    #[test]
    fn nothing_is_suggested_when_all_are_far() {
        assert_eq!(nearest("plasmid", ["chr1", "chr2"]), None);
        assert_eq!(nearest("chr1", []), None);
    }
}
