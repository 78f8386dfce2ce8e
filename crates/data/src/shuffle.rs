//! Shuffled controls of a sequence: what is left when its order is taken away.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::{random, span::Span};

/// Shuffles a sequence so that each pair of neighbouring letters occurs as often as before; first and last letter stay.
///
/// Every letter keeps the list of letters that follow it. The lists are shuffled but for their last entries, so that the walk
/// through them, from the first letter on, cannot get stuck before it has used them all (DART-Eval, task 1).
///
/// The result depends on the sequence, the seed and the place alone, so every model sees the same control. Letters are bytes:
/// upper and lower case are different ones.
#[must_use]
pub fn dinucleotides(sequence: &[u8], seed: u64, place: &Span) -> Vec<u8> {
    let Some(&first) = sequence.first() else { return Vec::new() };
    let mut followers: [Vec<u8>; 256] = std::array::from_fn(|_| Vec::new());
    for pair in sequence.windows(2) {
        followers[usize::from(pair[0])].push(pair[1]);
    }
    let mut random = stream(seed, place);
    for letters in &mut followers {
        if let Some((_last, others)) = letters.split_last_mut() {
            random::shuffle(others, &mut random);
        }
    }
    let mut followers = followers.map(Vec::into_iter);
    let mut shuffled = vec![first];
    while let Some(next) = followers[usize::from(shuffled[shuffled.len() - 1])].next() {
        shuffled.push(next);
    }
    shuffled
}

/// The random numbers for one place; its strand makes no difference.
fn stream(seed: u64, place: &Span) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    for number in [seed, place.start, place.end] {
        hasher.update(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(hasher.update(place.contig.as_bytes()).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Strand;
    use proptest::{collection::vec, prelude::*};

    fn place(start: u64) -> Span {
        Span { contig: "chr1".into(), start, end: start + 350, strand: Strand::Forward }
    }

    fn pairs(sequence: &[u8]) -> Vec<&[u8]> {
        let mut pairs: Vec<_> = sequence.windows(2).collect();
        pairs.sort_unstable();
        pairs
    }

    proptest! {
        #[test]
        fn pairs_and_ends_stay(
            sequence in vec(prop::sample::select(b"ACGTNacgt".to_vec()), 0..400), seed: u64, start in 0_u64..1 << 40,
        ) {
            let shuffled = dinucleotides(&sequence, seed, &place(start));
            prop_assert_eq!(shuffled.len(), sequence.len());
            prop_assert_eq!((shuffled.first(), shuffled.last()), (sequence.first(), sequence.last()));
            prop_assert_eq!(pairs(&shuffled), pairs(&sequence));
            prop_assert_eq!(&shuffled, &dinucleotides(&sequence, seed, &place(start)));
        }
    }

    #[test]
    fn seed_and_place_decide() {
        let sequence = crate::synthetic::genome(1, 350, 0.5);
        let shuffled = dinucleotides(&sequence, 1, &place(0));
        assert_ne!(shuffled, sequence);
        assert_ne!(shuffled, dinucleotides(&sequence, 2, &place(0)));
        assert_ne!(shuffled, dinucleotides(&sequence, 1, &place(1)));
        let reverse = Span { strand: Strand::Reverse, ..place(0) };
        assert_eq!(shuffled, dinucleotides(&sequence, 1, &reverse));
    }

    #[test]
    fn what_has_one_order_stays() {
        for sequence in [&b""[..], b"A", b"AC", b"AAAAAAAA", b"ACACACA"] {
            assert_eq!(dinucleotides(sequence, 7, &place(0)), sequence);
        }
    }
}
