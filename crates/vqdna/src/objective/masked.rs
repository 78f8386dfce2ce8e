//! Masked modelling: some tokens are masked, and predicted from the context. Loss: the mean over levels of the mean cross-entropy over
//! masked tokens, and what the encoder adds to it.
//!
//! VQDNA's second stage masks the codes of a frozen vocabulary, MxDNA's pre-training bases.

use burn::prelude::*;

use super::masking::{MaskingConfig, Treatment};
use super::{Measures, Objective, Outcome, Over};
use crate::batch::{TokenBatch, TokenWindow, TokenWindows};
use crate::model::{LanguageModel, Masked, Predicted};
use crate::ops;
use crate::seed::stream;
use crate::tokenizer::Tokenizer;

/// Learns a [`LanguageModel`].
#[derive(Debug)]
pub struct MaskedTokens<'a> {
    /// The tokenizer of the windows, without autodiff.
    pub tokenizer: &'a Tokenizer,
    /// Number of ids, level by level.
    pub sizes: Vec<usize>,
    /// How training masks.
    pub masking: MaskingConfig,
    /// Span in tokens of the masks that are measured beside single positions, where tokens see beyond the bases that they stand for; none
    /// where they do not.
    pub measured_span: Option<usize>,
    /// Adjacent tokens that are one position of the model.
    pub pool: usize,
    /// Weight in the loss of what the encoder adds.
    pub balance: f64,
    /// The run's seed, from which masks and jitter are drawn.
    pub seed: u64,
}

/// A batch with its masks drawn, on its device.
struct MaskedBatch {
    shown: TokenBatch,
    masked: Masked,
    /// Per level, what stands there, `[batch, positions]`.
    ids: Vec<Tensor<2, Int>>,
    /// Bases that the tokens to predict stand for, each token by itself.
    bases: usize,
}

impl<'a> MaskedTokens<'a> {
    /// Masks by `masking`; where tokens overlap, spans are measured too, in which there is a base that nothing outside of them shows.
    #[must_use]
    pub fn new(masking: MaskingConfig, over: Over<'a>) -> Self {
        let Over { named, tokenizer, pool, balance, seed } = over;
        let overlap = named.overlap();
        let measured = if masking.span > 1 { masking.span } else { overlap };
        let measured_span = (overlap > 1).then_some(measured);
        Self { tokenizer, sizes: named.sizes(), masking, measured_span, pool, balance, seed }
    }

    /// Masks a batch. What is drawn for a window depends on the seed, the purpose, the span and the window's number alone.
    fn mask(&self, batch: &TokenWindows, masking: &MaskingConfig, purpose: &str) -> MaskedBatch {
        let (special, pool) = (self.tokenizer.special(), self.pool);
        let masking = MaskingConfig { span: masking.span.div_ceil(pool), ..masking.clone() };
        let positions = special.positions(batch.width(), None);
        let pools = positions.div_ceil(pool);
        let shape = [batch.windows.len(), positions];
        let (mut masked, mut targets) = (vec![false; shape[0] * pools], vec![false; shape[0] * positions]);
        let before = special.before();
        let (mut rows, mut bases) = (Vec::new(), 0);
        for (row, window) in batch.windows.iter().enumerate() {
            let random = &mut stream(self.seed, purpose, &[window.number, masking.span as u64]);
            let tokens = window.tokens.len();
            let first_pool = before / pool;
            let drawn = (before + tokens).div_ceil(pool).saturating_sub(first_pool);
            let mut levels = window.tokens.levels.clone();
            for (place, treatment) in masking.draw(drawn, random).into_iter().enumerate() {
                let place = first_pool + place;
                // Tokens of the pool, in which special positions may stand, too.
                let here = (place * pool).max(before) - before..((place + 1) * pool - before).min(tokens);
                let wanted = &window.is_target[here.clone()];
                if treatment == Treatment::Seen || !wanted.contains(&true) {
                    continue;
                }
                targets[row * positions + before..][here.clone()].copy_from_slice(wanted);
                let spans = here.clone().zip(wanted).filter(|(_, is_target)| **is_target);
                bases += spans.map(|(token, _)| window.tokens.spans.get(token).len()).sum::<usize>();
                match treatment {
                    Treatment::Replaced => {
                        masked[row * pools + place] = true;
                        if let Some(mask) = special.mask {
                            for ids in &mut levels {
                                ids[here.clone()].fill(mask as u32);
                            }
                        }
                    }
                    Treatment::Random => {
                        for (ids, &size) in levels.iter_mut().zip(&self.sizes) {
                            ids[here.clone()].fill_with(|| self.tokenizer.draw(size, random));
                        }
                    }
                    Treatment::Kept | Treatment::Seen => {}
                }
            }
            rows.push(special.row(&levels, None));
        }
        let plain = batch.device.clone().without_autodiff();
        let own = |window: &TokenWindow| special.row(&window.tokens.levels, None);
        let ids = self.tokenizer.ids(&batch.windows.iter().map(own).collect::<Vec<_>>(), &plain);
        let shown = self.tokenizer.batch(&rows, &plain);
        let is_autodiff = batch.device.is_autodiff();
        MaskedBatch {
            shown: if is_autodiff { shown.autodiff() } else { shown },
            masked: Masked::with_targets(&masked, &targets, shape, pool, &batch.device),
            ids: if is_autodiff { ids.into_iter().map(Tensor::from_inner).collect() } else { ids },
            bases,
        }
    }

    /// Whether tokens stand for bases that nothing else shows: then bits of tokens are bits of bases.
    fn is_exact(&self) -> bool {
        self.measured_span.is_none()
    }
}

impl Objective for MaskedTokens<'_> {
    type Model = LanguageModel;
    type Batch = TokenWindows;
    type Carry = ();

    fn forward(&self, model: &LanguageModel, batch: &TokenWindows) -> Outcome<()> {
        let MaskedBatch { shown, masked, ids, .. } = self.mask(batch, &self.masking, "masks");
        let first = batch.windows.first().map_or(0, |window| window.number);
        let random = &mut stream(self.seed, "jitter of scored states", &[first]);
        let losses = model.losses(&shown, &masked, &ids, Some(random));
        let all = Tensor::cat(losses.levels.clone(), 0);
        let mut parts: Vec<_> = if self.is_exact() {
            vec![("cross_entropy_nats".to_owned(), all.clone().inner())]
        } else {
            let named = |(level, loss): (usize, Tensor<1>)| (format!("cross_entropy_nats_{level}"), loss.inner());
            let bits = all.clone().inner().sum().div_scalar(std::f64::consts::LN_2);
            (1..).zip(losses.levels).map(named).chain([("masked_code_bits".to_owned(), bits)]).collect()
        };
        if let Some(penalty) = &losses.penalty {
            parts.push(("balance".to_owned(), penalty.clone().inner()));
        }
        if let Some(units) = losses.units {
            let size = batch.bases() as f64 / units.max(1) as f64;
            let plain = batch.device.clone().without_autodiff();
            parts.push(("bases_per_unit".to_owned(), Tensor::<1>::full([1], size, &plain)));
        }
        let loss = match losses.penalty {
            Some(penalty) => all.mean() + penalty.mul_scalar(self.balance),
            None => all.mean(),
        };
        Outcome { loss, parts, carry: () }
    }

    /// Measures of masks that the seed fixes; where tokens see beyond their bases twice: of single positions, and of spans. Masked
    /// positions show nothing but that they are masked, since one that shows its own ids would count as predicted. The measures without a
    /// suffix are those of masks as long as in training.
    fn evaluate(&self, model: &LanguageModel, batches: &mut dyn Iterator<Item = TokenWindows>) -> Measures {
        const PURPOSE: &str = "masks of held-out windows";
        let mut spans = match self.measured_span {
            None => vec![self.masking.span],
            Some(measured) => vec![1, measured],
        };
        spans.dedup();
        let mut tallies: Vec<(usize, Tally)> =
            spans.into_iter().map(|span| (span, Tally::new(self.sizes.len()))).collect();
        ops::with_frozen_weights(|| {
            for batch in batches {
                for (span, tally) in &mut tallies {
                    let masking = MaskingConfig { span: *span, ..self.masking.without_noise() };
                    tally.add(model, &self.mask(&batch, &masking, PURPOSE), batch.bases());
                }
            }
        });
        let usual = tallies.iter().find(|(span, _)| *span == self.masking.span).or(tallies.last());
        let mut measures = usual.map(|(_, tally)| tally.measures(self.is_exact())).unwrap_or_default();
        if !self.is_exact() {
            let ends = [(tallies.first(), "masked_code_bits_single"), (tallies.last(), "masked_code_bits_span")];
            for (tally, name) in ends {
                measures.extend(tally.and_then(|(_, tally)| tally.bits()).map(|bits| (name.to_owned(), bits)));
            }
        }
        measures
    }
}

/// Sums over the masked tokens of held-out windows.
struct Tally {
    tokens: usize,
    /// Bases that they stand for.
    masked_bases: usize,
    predicted: Vec<Predicted>,
    bases: usize,
    units: Option<usize>,
}

impl Tally {
    fn new(levels: usize) -> Self {
        Self { tokens: 0, masked_bases: 0, predicted: vec![Predicted::default(); levels], bases: 0, units: None }
    }

    fn add(&mut self, model: &LanguageModel, masked_batch: &MaskedBatch, bases: usize) {
        let MaskedBatch { shown, masked, ids, bases: masked_bases } = masked_batch;
        self.tokens += masked.count();
        self.masked_bases += masked_bases;
        self.bases += bases;
        let (predicted, units) = model.predicted(shown, masked, ids);
        for (sum, predicted) in self.predicted.iter_mut().zip(predicted) {
            sum.nats += predicted.nats;
            sum.right += predicted.right;
        }
        if let Some(units) = units {
            *self.units.get_or_insert(0) += units;
        }
    }

    /// Loss, and cross-entropy and accuracy of each level; of exact tokens, which have one, without its number and as bits of bases.
    fn measures(&self, is_exact: bool) -> Measures {
        let mut measures = level_measures(&self.predicted, self.tokens, !is_exact);
        let mut add = |name: String, value: f64| measures.push((name, value));
        if is_exact && self.tokens > 0 {
            let nats: f64 = self.predicted.iter().map(|predicted| predicted.nats).sum();
            add("bits_per_base".to_owned(), nats / self.masked_bases as f64 / std::f64::consts::LN_2);
        }
        if let Some(units) = self.units {
            add("bases_per_unit".to_owned(), self.bases as f64 / units.max(1) as f64);
        }
        if is_exact && self.masked_bases != self.tokens {
            add("masked_tokens".to_owned(), self.tokens as f64);
            add("masked_bases".to_owned(), self.masked_bases as f64);
        } else {
            add("masked_bases".to_owned(), self.tokens as f64);
        }
        measures
    }

    /// Bits that the ids of all levels of a masked token take.
    fn bits(&self) -> Option<f64> {
        let nats: f64 = self.predicted.iter().map(|predicted| predicted.nats).sum();
        (self.tokens > 0).then(|| nats / self.tokens as f64 / std::f64::consts::LN_2)
    }
}

/// Loss, and cross-entropy and accuracy of each level, with its number in the name if `numbered`. Without a token there is no mean over them.
pub(super) fn level_measures(levels: &[Predicted], tokens: usize, numbered: bool) -> Measures {
    if tokens == 0 {
        return Measures::new();
    }
    let mean = |sum: f64| sum / tokens as f64;
    let nats: f64 = levels.iter().map(|predicted| predicted.nats).sum();
    let of_level = |(level, predicted): (usize, &Predicted)| {
        let suffix = if numbered { format!("_{level}") } else { String::new() };
        let right = mean(predicted.right as f64);
        [(format!("cross_entropy_nats{suffix}"), mean(predicted.nats)), (format!("accuracy{suffix}"), right)]
    };
    let loss = ("loss".to_owned(), mean(nats) / levels.len() as f64);
    std::iter::once(loss).chain((1..).zip(levels).flat_map(of_level)).collect()
}
