//! The first line of the text files: what the codes are and where they come from.
//!
//! It is a note, `# vqdna codes v1 model=… codebook_sizes=…`. Files of older programs have no blank after the `#`.

use super::error::Fault;
use super::{FORMAT_VERSION, Header};

const MARK: &str = "# vqdna codes v";
const OLD_MARK: &str = "#vqdna codes v";
/// Begins a word that whole files do not have.
const SHARD_KEY: &str = "shard=";
/// Begins the last word, which text for a pipe cannot have: the digest of all rows.
const DIGEST_KEY: &str = "blake3=";
/// Letters of a digest.
const DIGEST_LETTERS: usize = 64;

/// The line for a header, without its end.
pub(super) fn format(header: &Header) -> String {
    let sizes: Vec<String> = header.codebook_sizes.iter().map(ToString::to_string).collect();
    let shard = header.shard.map(|shard| format!(" {SHARD_KEY}{shard}")).unwrap_or_default();
    format!("{MARK}{FORMAT_VERSION} model={} codebook_sizes={}{shard}", header.model, sizes.join(","))
}

/// The line for a header and the digest of its rows; none has another length, so one can take the place of another.
pub(super) fn format_with_digest(header: &Header, digest: Option<&str>) -> String {
    let unknown = "0".repeat(DIGEST_LETTERS);
    format!("{} {DIGEST_KEY}{}", format(header), digest.unwrap_or(&unknown))
}

/// The header and the digest that a first line states.
pub(super) fn parse(line: &[u8]) -> Result<(Header, Option<String>), Fault> {
    let damaged = || Fault::NotCodes { missing: "the first line, `# vqdna codes v1 model=… codebook_sizes=…`," };
    let text = str::from_utf8(line).map_err(|_| damaged())?;
    let rest = text.strip_prefix(MARK).or_else(|| text.strip_prefix(OLD_MARK));
    let mut words = rest.ok_or_else(damaged)?.split(' ');
    let version = words.next().ok_or_else(damaged)?;
    if version != FORMAT_VERSION {
        return Err(Fault::Version { found: version.into() });
    }
    let mut value = |key: &str| words.next().and_then(|word| word.strip_prefix(key)).ok_or_else(damaged);
    let model = value("model=")?.to_owned();
    let sizes = value("codebook_sizes=")?.split(',').map(str::parse);
    let codebook_sizes = sizes.collect::<Result<_, _>>().map_err(|_| damaged())?;
    let mut words = words.peekable();
    let shard = words.next_if(|word| word.starts_with(SHARD_KEY));
    let shard = shard.map(|word| word[SHARD_KEY.len()..].parse()).transpose()?;
    let is_digest = |text: &&str| text.len() == DIGEST_LETTERS && text.bytes().all(|letter| letter.is_ascii_hexdigit());
    let digest = words.next().map(|word| word.strip_prefix(DIGEST_KEY).filter(is_digest).ok_or_else(damaged));
    let digest = digest.transpose()?.map(str::to_owned);
    if words.next().is_some() {
        return Err(damaged());
    }
    let header = Header { model, codebook_sizes, shard };
    header.check()?;
    Ok((header, digest))
}

#[cfg(test)]
mod tests {
    use super::super::ShardNumber;
    use super::*;

    #[test]
    fn a_header_survives_its_line() {
        let whole = Header { model: "6f1e".into(), codebook_sizes: vec![256, 512], shard: None };
        assert_eq!(format(&whole), "# vqdna codes v1 model=6f1e codebook_sizes=256,512");
        let shard = Header { shard: Some(ShardNumber { index: 2, count: 3 }), ..whole.clone() };
        assert_eq!(format(&shard), "# vqdna codes v1 model=6f1e codebook_sizes=256,512 shard=2/3");
        let digest = "0af1".repeat(16);
        for header in [whole, shard] {
            let line = format(&header);
            let old = line.replacen("# ", "#", 1);
            assert_eq!(parse(old.as_bytes()), Ok((header.clone(), None)), "of an older program");
            assert_eq!(parse(line.as_bytes()), Ok((header.clone(), None)));
            let [unknown, known] = [None, Some(&*digest)].map(|digest| format_with_digest(&header, digest));
            assert_eq!(unknown.len(), known.len());
            assert_eq!(parse(known.as_bytes()), Ok((header, Some(digest.clone()))));
        }
    }

    #[test]
    fn other_lines_are_refused() {
        let version = parse(b"#vqdna codes v2 model=m codebook_sizes=4");
        assert_eq!(version, Err(Fault::Version { found: "2".into() }));
        for line in [
            "",
            ">chr1",
            "#vqdna codes v1",
            "#vqdna codes v1 model=m",
            "#vqdna codes v1 model= codebook_sizes=4",
            "#vqdna codes v1 model=m codebook_sizes=4,",
            "#vqdna codes v1 model=m codebook_sizes=0",
            "#vqdna codes v1 model=m codebook_sizes=4 more",
            "#vqdna codes v1 model=m codebook_sizes=4 ",
            "#vqdna codes v1 model=m shard=2/3 codebook_sizes=4",
            "#vqdna codes v1 model=m codebook_sizes=4 shard=2/3 more",
            "#vqdna codes v1 model=m codebook_sizes=4 shard=2/3 shard=2/3",
            "#vqdna codes v1 model=m codebook_sizes=4 blake3=12",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse(&[b'#', 0xff]).is_err());
        for shard in ["", "0/3", "4/3", "two"] {
            let line = format!("#vqdna codes v1 model=m codebook_sizes=4 shard={shard}");
            assert_eq!(parse(line.as_bytes()), Err(Fault::Shard { found: shard.into() }));
        }
    }
}
