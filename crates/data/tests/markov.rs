//! Markov models on real chromosomes cost what our specification of objectives says, where the genome is at hand.

use vqdna_data::corpus::Corpus;
use vqdna_data::markov::{Costs, Markov};
use vqdna_data::segment::Policy;

use crate::shared;

/// Training on chromosomes I to XV of yeast, both strands; bits per base of XVI by order, add-one, and by back-off of order 8.
#[test]
fn yeast_costs_what_it_should() {
    let Some(genomes) = shared("data/genomes") else { return };
    let corpus = Corpus::read(&[genomes.join("yeast.fa.gz")], Policy::default(), 1 << 30).expect("readable");
    let (mut markov, mut found) = (Markov::new(9), Vec::new());
    let whole = |segment: usize| {
        let bases = corpus.segments()[segment].bases as usize;
        corpus.window(segment, 0..bases).expect("readable").0
    };
    let named = |segment: usize| corpus.filed_under(segment).to_string();
    let segments = 0..corpus.segments().len();
    for segment in segments.clone().filter(|&segment| !["XVI", "Mito"].contains(&&*named(segment))) {
        markov.add_both(&whole(segment));
    }
    for segment in segments.filter(|&segment| named(segment) == "XVI") {
        found.push(markov.costs(&whole(segment), 64.0));
    }
    let [Costs { add_one, back_off, bases }] = &found[..] else { panic!("{} chromosomes XVI", found.len()) };
    assert_eq!(*bases, 948_066);
    let expected = [1.95852, 1.94823, 1.94461, 1.94062, 1.93938, 1.93848, 1.93629, 1.93426, 1.93198, 1.93419, 1.93068];
    for (order, (bits, expected)) in add_one.iter().chain([&back_off[8]]).zip(expected).enumerate() {
        let found = bits / *bases as f64;
        assert!((found - expected).abs() < 1e-5, "number {order}: {found}, not {expected}");
    }
}
