//! Random numbers: every use has a stream of its own, derived from the run's one seed, its purpose and where it stands.
//!
//! A stream is a pure function of its key, so a run resumed at step *n* draws what the uninterrupted run drew there, and the
//! number of threads or workers changes nothing.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A reproducible source of random numbers.
pub type Stream = ChaCha8Rng;

/// The stream for one purpose at one place (a step, a level, an epoch).
#[must_use]
pub fn stream(seed: u64, purpose: &str, place: &[u64]) -> Stream {
    let mut key = blake3::Hasher::new_derive_key("vqdna random stream v1");
    key.update(&seed.to_le_bytes());
    key.update(&(purpose.len() as u64).to_le_bytes());
    key.update(purpose.as_bytes());
    for number in place {
        key.update(&number.to_le_bytes());
    }
    Stream::from_seed(*key.finalize().as_bytes())
}

/// A number from the standard normal distribution (Box and Muller 1958).
pub fn normal(random: &mut Stream) -> f64 {
    let (radius, angle) = (random.random::<f64>(), random.random::<f64>());
    // A draw may be 0 but not 1.
    (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_stream_depends_on_its_whole_key_and_nothing_else() {
        let first = |seed, purpose, place: &[u64]| stream(seed, purpose, place).next_u64();
        assert_eq!(first(1, "weights", &[2]), first(1, "weights", &[2]));
        let keys = [(1, "weights", 3), (2, "weights", 3), (1, "revive", 3), (1, "weights", 4)];
        let drawn: std::collections::HashSet<u64> = keys.iter().map(|&(s, p, n)| first(s, p, &[n])).collect();
        assert_eq!(drawn.len(), keys.len());
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let random = &mut stream(1, "numbers for a test", &[]);
        let drawn: Vec<f64> = (0..100_000).map(|_| normal(random)).collect();
        let moment = |power: i32| drawn.iter().map(|x| x.powi(power)).sum::<f64>() / drawn.len() as f64;
        // Within five standard errors.
        assert!(moment(1).abs() < 0.016 && (moment(2) - 1.0).abs() < 0.023, "{} {}", moment(1), moment(2));
    }
}
