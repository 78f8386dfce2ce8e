//! Which positions are masked, and what the encoder sees in their place: BERT's rule (Devlin et al. 2019) for single positions or,
//! as in SpanBERT (Joshi et al. 2020), for spans of neighbours, each treated as one.
//!
//! A code sees the bases around it, so the neighbours of a single masked position still show it, as overlapping k-mers do. In
//! spans there is less to copy.

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::seed::Stream;

/// How positions are masked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskingConfig {
    /// Expected share of the positions that are masked. VQDNA: 0.25; MxDNA: 0.15.
    pub share: f64,
    /// Neighbouring bases that are masked together; 1 masks single bases.
    pub span: usize,
    /// Of the masked positions, the share that show the mask vector, or the mask letter.
    pub replaced: f64,
    /// Of the masked positions, the share that show random codes, or a random base; what is left over shows its own.
    pub random: f64,
}

impl Default for MaskingConfig {
    fn default() -> Self {
        // The share is VQDNA's; what is shown is BERT's, which the paper inherits without saying so.
        Self { share: 0.25, span: 1, replaced: 0.8, random: 0.1 }
    }
}

/// What becomes of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Seen, and not predicted.
    Seen,
    /// Masked; the mask vector is shown.
    Replaced,
    /// Masked; random codes are shown.
    Random,
    /// Masked; its own codes are shown.
    Kept,
}

impl MaskingConfig {
    /// The same masks with nothing but the mask vector shown: for measuring, where a position that shows its own codes would
    /// count as predicted.
    #[must_use]
    pub fn without_noise(&self) -> Self {
        Self { replaced: 1.0, random: 0.0, ..self.clone() }
    }

    /// Draws the treatment of each of `positions` positions in a row.
    ///
    /// A span begins at each position with the same chance, also before the first, so that every position is masked with a
    /// chance of exactly `share`: one that escapes escapes `span` beginnings. Of spans that overlap, the later one counts.
    #[must_use]
    pub fn draw(&self, positions: usize, random: &mut Stream) -> Vec<Treatment> {
        let begins = 1.0 - (1.0 - self.share).powf(1.0 / self.span as f64);
        let mut treatments = vec![Treatment::Seen; positions];
        for end in 1..positions + self.span {
            if random.random::<f64>() < begins {
                let treatment = self.treatment(random.random());
                treatments[end.saturating_sub(self.span)..end.min(positions)].fill(treatment);
            }
        }
        treatments
    }

    fn treatment(&self, drawn: f64) -> Treatment {
        if drawn < self.replaced {
            Treatment::Replaced
        } else if drawn < self.replaced + self.random {
            Treatment::Random
        } else {
            Treatment::Kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::stream;

    fn draw(masking: &MaskingConfig, positions: usize, window: u64) -> Vec<Treatment> {
        masking.draw(positions, &mut stream(1, "masks for a test", &[window]))
    }

    /// Shares over many windows, wherever a position stands and however short its window is.
    #[test]
    fn shares_are_as_configured() {
        for (span, positions) in [(1, 512), (1, 3), (8, 200), (41, 512), (41, 20)] {
            let masking = MaskingConfig { span, ..MaskingConfig::default() };
            let windows = 200_000 / positions as u64;
            let masks: Vec<Vec<Treatment>> = (0..windows).map(|window| draw(&masking, positions, window)).collect();
            let count = |place: Option<usize>, wanted: &dyn Fn(Treatment) -> bool| {
                let all = masks.iter().flatten().enumerate();
                all.filter(|&(i, &t)| place.is_none_or(|place| i % positions == place) && wanted(t)).count() as f64
            };
            let (all, is_masked) = ((windows * positions as u64) as f64, |t: Treatment| t != Treatment::Seen);
            // Spans of neighbours are one draw, so shares of long ones vary more: five standard errors.
            let near = |share: f64, expected: f64, draws: f64| {
                let error = (expected * (1.0 - expected) / draws).sqrt();
                assert!((share - expected).abs() < 5.0 * error, "span {span} of {positions}: {share}, not {expected}");
            };
            let draws = all / (2 * span) as f64;
            let masked = count(None, &is_masked);
            near(masked / all, 0.25, draws);
            for (treatment, expected) in [(Treatment::Replaced, 0.8), (Treatment::Random, 0.1), (Treatment::Kept, 0.1)]
            {
                near(count(None, &|t| t == treatment) / masked, expected, 0.25 * draws);
            }
            for place in [0, positions / 2, positions - 1] {
                near(count(Some(place), &is_masked) / windows as f64, 0.25, windows as f64);
            }
        }
    }

    #[test]
    fn spans_are_whole_and_treated_as_one() {
        let masking = MaskingConfig { share: 0.1, span: 7, replaced: 0.5, random: 0.25 };
        let mut whole = 0;
        for window in 0..200 {
            let drawn = draw(&masking, 300, window);
            let stretches: Vec<&[Treatment]> = drawn.chunk_by(|a, b| a == b).collect();
            let inner = stretches.get(1..stretches.len() - 1).unwrap_or_default();
            for stretch in inner.iter().filter(|stretch| stretch[0] != Treatment::Seen) {
                // Shorter only where a later span covers its end.
                whole += usize::from(stretch.len() == 7);
            }
        }
        assert!(whole > 300, "{whole} spans stand alone");
        let alone = MaskingConfig { share: 0.001, ..masking };
        for stretch in (0..400).flat_map(|window| draw(&alone, 300, window)).collect::<Vec<_>>().chunk_by(|a, b| a == b)
        {
            assert!(stretch[0] == Treatment::Seen || stretch.len() <= 14, "{}", stretch.len());
        }
    }

    #[test]
    fn masks_depend_on_the_stream_alone() {
        let masking = MaskingConfig { span: 5, ..MaskingConfig::default() };
        assert_eq!(draw(&masking, 100, 3), draw(&masking, 100, 3));
        assert_ne!(draw(&masking, 100, 3), draw(&masking, 100, 4));
        assert!(
            draw(&masking.without_noise(), 1000, 3).iter().all(|t| [Treatment::Seen, Treatment::Replaced].contains(t))
        );
        assert!(draw(&masking, 0, 1).is_empty());
    }
}
