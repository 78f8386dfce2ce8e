//! What must hold for every kind of vocabulary and every sequence.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::tokens::{Context, Spans, Tokens};

type Method<From, To> = Box<dyn Fn(&From) -> To>;

/// The methods that all kinds share.
struct Any {
    context: Context,
    size: usize,
    ordinary: std::ops::Range<u32>,
    special: Special,
    encode: Method<[BaseId], Tokens>,
    decode: Method<[u32], Option<Vec<BaseId>>>,
    token: Method<u32, Option<String>>,
}

macro_rules! any {
    ($vocabulary:expr) => {{
        let vocabulary = std::rc::Rc::new($vocabulary);
        let [encoder, decoder, namer] = [vocabulary.clone(), vocabulary.clone(), vocabulary.clone()];
        Any {
            context: vocabulary.context(),
            size: vocabulary.size(),
            ordinary: vocabulary.ordinary(),
            special: vocabulary.special(),
            encode: Box::new(move |bases| encoder.encode(bases)),
            decode: Box::new(move |ids| decoder.decode(ids)),
            token: Box::new(move |&id| namer.token(id)),
        }
    }};
}

fn trained(corpus: &[BaseId], size: usize) -> Bpe {
    let mut trainer = bpe::Trainer::new(BpeConfig { size, ..BpeConfig::default() }).unwrap();
    trainer.add(corpus);
    trainer.train()
}

fn kinds(corpus: &[BaseId], size: usize) -> Vec<Any> {
    let mut kinds = vec![any!(trained(corpus, size))];
    let layouts = [CharacterIds::HyenaDna, CharacterIds::MxDna];
    kinds.extend(layouts.map(|ids| any!(Character::new(CharacterConfig { ids }).unwrap())));
    kinds.extend((3..=8).map(|k| any!(Kmer::new(KmerConfig { k }).unwrap())));
    for layout in [BlocksLayout::V1, BlocksLayout::V2] {
        kinds.extend((1..=8).map(|k| any!(Blocks::new(BlocksConfig { k, layout }).unwrap())));
    }
    kinds
}

/// Sequences with repeats, homopolymers and some N.
fn sequence() -> impl Strategy<Value = Vec<BaseId>> {
    let motif = prop_oneof![
        4 => vec(0..N, 1..6).boxed(),
        1 => vec(0..=N, 1..3).boxed(),
    ];
    vec((motif, 1..12_usize), 0..12)
        .prop_map(|parts| parts.into_iter().flat_map(|(motif, times)| motif.repeat(times)).collect())
}

proptest! {
    #[test]
    fn tokens_cover_their_sequence(corpus in sequence(), size in 9_usize..60, bases in sequence()) {
        for kind in kinds(&corpus, size) {
            let tokens = (kind.encode)(&bases);
            prop_assert_eq!(tokens.levels.len(), 1);
            prop_assert_eq!(tokens.levels[0].len(), tokens.len());
            if let Spans::Fixed { width, stride, count, .. } = tokens.spans {
                prop_assert_eq!(stride, 1);
                prop_assert_eq!(count, (bases.len() + 1).saturating_sub(width));
            } else {
                let mut end = 0;
                for span in tokens.spans.iter() {
                    prop_assert_eq!(span.start, end);
                    prop_assert!(span.end > end);
                    end = span.end;
                }
                prop_assert_eq!(end, bases.len());
            }
            for (&id, span) in tokens.levels[0].iter().zip(tokens.spans.iter()) {
                prop_assert!(kind.ordinary.contains(&id) || id == kind.special.unknown);
                let name = (kind.token)(&id).unwrap();
                let is_unknown = id == kind.special.unknown && bases[span.clone()].contains(&N);
                prop_assert!(is_unknown || name == text(bases[span].iter().copied()));
            }
        }
    }

    #[test]
    fn what_is_decoded_is_what_was_encoded(corpus in sequence(), size in 9_usize..60, bases in sequence()) {
        for kind in kinds(&corpus, size) {
            let tokens = (kind.encode)(&bases);
            let decoded = (kind.decode)(&tokens.levels[0]).unwrap();
            if let Spans::Fixed { width, count, .. } = tokens.spans {
                // Bases of which every k-mer has N are lost.
                prop_assert_eq!(decoded.len(), if count == 0 { 0 } else { bases.len() });
                for (at, &base) in decoded.iter().enumerate() {
                    let runs = bases.chunk_by(|&a, &b| (a == N) == (b == N)).scan(0, |end, run| {
                        *end += run.len();
                        Some((*end, run.len()))
                    });
                    let run = runs.into_iter().find(|(end, _)| at < *end).map_or(0, |(_, length)| length);
                    prop_assert_eq!(base, if run >= width { bases[at] } else { N });
                }
            } else {
                prop_assert_eq!(decoded, bases.clone());
            }
        }
    }

    #[test]
    fn pieces_with_their_context_have_the_ids_of_the_whole(
        corpus in sequence(), size in 9_usize..60, bases in sequence(), cuts: [prop::sample::Index; 2],
    ) {
        let [a, b] = cuts.map(|cut| cut.index(bases.len() + 1));
        let piece = a.min(b)..a.max(b);
        for kind in kinds(&corpus, size) {
            let within = |tokens: &Tokens, shift: usize| -> Vec<_> {
                let spans = tokens.spans.iter().map(|span| span.start + shift..span.end + shift);
                let all = tokens.levels[0].iter().copied().zip(spans);
                all.filter(|(_, span)| piece.contains(&span.start)).collect()
            };
            let wider = kind.context.widen(&bases, piece.clone());
            let of_piece = (kind.encode)(&bases[wider.clone()]);
            prop_assert_eq!(within(&of_piece, wider.start), within(&(kind.encode)(&bases), 0), "{:?}", kind.context);
        }
    }

    #[test]
    fn ids_and_names_are_one_to_one(corpus in sequence(), size in 9_usize..60) {
        for kind in kinds(&corpus, size) {
            let names: Vec<String> = (0..).take(kind.size).map(|id| (kind.token)(&id).unwrap()).collect();
            let different: std::collections::HashSet<_> = names.iter().collect();
            prop_assert_eq!(different.len(), kind.size);
            let Special { padding, unknown, mask, first, last } = kind.special;
            for id in [Some(padding), Some(unknown), Some(mask), first, last].into_iter().flatten() {
                prop_assert!(!kind.ordinary.contains(&id) && (id as usize) < kind.size);
                prop_assert_eq!(names[id as usize].len() > 4, true);
            }
            for id in kind.ordinary.clone() {
                prop_assert!((kind.decode)(&[id]).is_some());
            }
            prop_assert_eq!((kind.token)(&u32::try_from(kind.size).unwrap()), None);
        }
    }
}
