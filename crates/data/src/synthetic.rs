//! Seeded small genomes with planted motifs, for tests and examples.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A random sequence of `bases` upper-case letters; each is G or C with probability `gc`.
///
/// The same arguments give the same letters on every machine.
#[must_use]
pub fn genome(seed: u64, bases: usize, gc: f64) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // A coin of 32 bits chooses the pair, one further bit the base of it.
    let threshold = gc.clamp(0.0, 1.0) * 2f64.powi(32);
    let letter = |_| {
        let pair = if f64::from(random.next_u32()) < threshold { b"GC" } else { b"AT" };
        pair[usize::from(random.next_u32() & 1 == 1)]
    };
    (0..bases).map(letter).collect()
}

/// Writes `motif` over the genome once in every `every` bases, at a random place of each such stretch.
///
/// Returns where, counted from 0. A stretch shorter than the motif, such as the genome's last, gets none.
///
/// # Panics
/// If `every` is 0.
pub fn plant(genome: &mut [u8], motif: &[u8], every: usize, seed: u64) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut places = Vec::new();
    for (index, stretch) in genome.chunks_mut(every).enumerate() {
        let Some(room) = stretch.len().checked_sub(motif.len()) else { continue };
        let offset = usize::try_from(random.next_u64() % (room as u64 + 1)).unwrap_or(0);
        stretch[offset..offset + motif.len()].copy_from_slice(motif);
        places.push(index * every + offset);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_genome_is_a_function_of_its_seed() {
        assert_eq!(genome(7, 50, 0.5), genome(7, 50, 0.5));
        assert_ne!(genome(7, 50, 0.5), genome(8, 50, 0.5));
    }

    #[test]
    fn gc_is_as_asked() {
        let gc = genome(1, 10_000, 0.3).iter().filter(|letter| b"GC".contains(letter)).count();
        assert!((2800..3200).contains(&gc), "{gc}");
        assert!(genome(1, 100, 0.0).iter().all(|letter| b"AT".contains(letter)));
        assert!(genome(1, 100, 1.0).iter().all(|letter| b"GC".contains(letter)));
    }

    #[test]
    fn motifs_are_where_it_says() {
        let mut genome = genome(1, 1005, 0.5);
        let places = plant(&mut genome, b"TATAAAA", 100, 2);
        assert_eq!(places.len(), 10);
        assert!(places.iter().all(|&place| genome[place..].starts_with(b"TATAAAA")));
    }
}
