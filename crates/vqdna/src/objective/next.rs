//! Causal language modelling: each token is predicted from those before it. Loss: the mean over levels of the mean cross-entropy over the
//! tokens of a window. The model must be causal: see [`BackboneConfig::causal`](crate::backbone::BackboneConfig::causal).
//!
//! The first token of a window is predicted where a special one stands before it. Levels of a token are predicted at once, each as if it did
//! not depend on the others.

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::f64::consts::LN_2;

use super::masked::level_measures;
use super::{Measures, Outcome, Over};
use crate::batch::{TokenBatch, TokenWindow, TokenWindows};
use crate::model::{LanguageModel, Masked, Predicted};
use crate::ops;
use crate::tokenizer::Tokenizer;

/// How tokens are predicted from those before them; there is nothing to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextConfig {}

/// Learns a causal [`LanguageModel`].
#[derive(Debug)]
pub struct NextTokens<'a> {
    /// The tokenizer of the windows, without autodiff.
    tokenizer: &'a Tokenizer,
    /// Number of levels.
    levels: usize,
    /// Whether the ids of tokens say which bases they stand for; codes that were learned see bases beyond theirs.
    is_exact: bool,
}

/// A batch with its targets: the tokens one position further.
struct ShiftedBatch {
    shown: TokenBatch,
    /// Which positions predict the token after them.
    predicting: Masked,
    /// Per level, the ids one position further, `[batch, positions]`.
    next: Vec<Tensor<2, Int>>,
    /// Bases that the predicted tokens add to those before them.
    bases: usize,
}

impl<'a> NextTokens<'a> {
    /// Over tokens of a tokenizer.
    #[must_use]
    pub fn new(over: Over<'a>) -> Self {
        let Over { named, tokenizer, .. } = over;
        Self { tokenizer, levels: named.sizes().len(), is_exact: named.learned().is_none() }
    }

    fn shift(&self, batch: &TokenWindows) -> ShiftedBatch {
        let special = self.tokenizer.special();
        let shape = [batch.windows.len(), special.positions(batch.width(), None)];
        let [_, positions] = shape;
        let before = special.before();
        let mut predicting = vec![false; shape[0] * positions];
        let mut bases = 0;
        for (row, window) in batch.windows.iter().enumerate() {
            let mut end = 0;
            for (token, &is_target) in window.is_target.iter().enumerate() {
                let span = window.tokens.spans.get(token);
                if let Some(at) = (before + token).checked_sub(1).filter(|_| is_target) {
                    predicting[row * positions + at] = true;
                    // Of tokens that overlap, only bases beyond those of the one before are news, whether that one was predicted or not.
                    bases += span.end - span.start.max(end);
                }
                end = span.end;
            }
        }
        let plain = batch.device.clone().without_autodiff();
        let row = |window: &TokenWindow| special.row(&window.tokens.levels, None);
        let rows: Vec<_> = batch.windows.iter().map(row).collect();
        let shown = self.tokenizer.batch(&rows, &plain);
        let later = |ids: &Tensor<2, Int>| match positions {
            0 => ids.clone(),
            _ => Tensor::cat(vec![ids.clone().narrow(1, 1, positions - 1), ids.clone().narrow(1, 0, 1)], 1),
        };
        let next: Vec<_> = shown.ids.iter().map(later).collect();
        let is_autodiff = batch.device.is_autodiff();
        let nowhere = vec![false; predicting.len()];
        ShiftedBatch {
            predicting: Masked::with_targets(&nowhere, &predicting, shape, 1, &batch.device),
            shown: if is_autodiff { shown.autodiff() } else { shown },
            next: if is_autodiff { next.into_iter().map(Tensor::from_inner).collect() } else { next },
            bases,
        }
    }

    /// Loss of one micro-batch.
    pub(super) fn forward(&self, model: &LanguageModel, batch: &TokenWindows) -> Outcome<()> {
        let ShiftedBatch { shown, predicting, next, bases } = self.shift(batch);
        let losses = model.losses(&shown, &predicting, &next, None);
        let all = Tensor::cat(losses.levels, 0);
        let nats = all.clone().inner().sum().mul_scalar(predicting.count() as f64);
        let parts = vec![(self.bits().to_owned(), nats.div_scalar(bases.max(1) as f64 * LN_2))];
        Outcome { loss: all.mean(), parts, carry: () }
    }

    /// Measures over all tokens of held-out windows, but for those that are never predicted.
    pub(super) fn evaluate(&self, model: &LanguageModel, batches: &mut dyn Iterator<Item = TokenWindows>) -> Measures {
        let (mut sums, mut tokens, mut bases) = (vec![Predicted::default(); self.levels], 0, 0);
        ops::with_frozen_weights(|| {
            for batch in batches {
                let shifted = self.shift(&batch);
                let (predicted, _) = model.predicted(&shifted.shown, &shifted.predicting, &shifted.next);
                for (sum, predicted) in sums.iter_mut().zip(predicted) {
                    sum.nats += predicted.nats;
                    sum.right += predicted.right;
                }
                tokens += shifted.predicting.count();
                bases += shifted.bases;
            }
        });
        let mut measures = Measures::new();
        if tokens > 0 {
            measures = level_measures(&sums, tokens, !self.is_exact);
            let nats: f64 = sums.iter().map(|predicted| predicted.nats).sum();
            measures.push((self.bits().to_owned(), nats / bases as f64 / LN_2));
        }
        measures.push(("predicted_tokens".to_owned(), tokens as f64));
        measures.push(("predicted_bases".to_owned(), bases as f64));
        measures
    }

    /// Name of the bits of tokens over bases. Those of learned codes are an upper bound of what the bases take where codes decode to them.
    fn bits(&self) -> &'static str {
        if self.is_exact { "bits_per_base" } else { "code_bits_per_base" }
    }
}
