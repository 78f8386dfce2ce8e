//! The task for the loop: windows of codes are masked, shown to the model as the vectors of a frozen quantizer, and the codes of
//! what was masked are asked for.

use burn::prelude::*;
use rand::RngExt;

use super::masking::{MaskingConfig, Treatment};
use super::{Masked, MaskedModel, Told};
use crate::batch::CodeBatch;
use crate::objective::{Measures, Objective, Outcome};
use crate::quantizer::Quantizer;
use crate::seed::stream;

/// Learns a [`MaskedModel`].
pub struct Pretrain<'a> {
    /// Codes to vectors; frozen, without autodiff.
    pub quantizer: &'a Quantizer,
    /// Number of codes, level by level.
    pub codebook_sizes: Vec<usize>,
    /// How training masks.
    pub masking: MaskingConfig,
    /// Span in bases of the masks that are measured beside single positions.
    pub measured_span: usize,
    /// Adjacent bases that are one position of the model.
    pub pool: usize,
    /// The run's seed, from which masks are drawn.
    pub seed: u64,
}

/// A batch with its masks drawn, on its device.
struct Puzzle {
    /// `[batch, bases, d_code]`.
    vectors: Tensor<3>,
    masked: Masked,
    /// `[batch, bases]`.
    real: Tensor<2>,
    /// Per level `[batch, bases]`.
    codes: Vec<Tensor<2, Int>>,
}

impl Pretrain<'_> {
    /// Masks a batch. What is drawn for a window depends on the seed, the purpose, the span and the window's number alone.
    fn puzzle(&self, batch: &CodeBatch, masking: &MaskingConfig, purpose: &str) -> Puzzle {
        let (rows, width, pool) = (batch.windows.len(), batch.width(), self.pool);
        let pools = width.div_ceil(pool);
        let (mut masked, mut targets) = (vec![false; rows * pools], vec![false; rows * width]);
        let mut shown = CodeBatch { device: batch.device.clone().without_autodiff(), ..batch.clone() };
        let masking = MaskingConfig { span: masking.span.div_ceil(pool), ..masking.clone() };
        for (row, window) in shown.windows.iter_mut().enumerate() {
            let random = &mut stream(self.seed, purpose, &[window.number, masking.span as u64]);
            let treatments = masking.draw(window.bases().div_ceil(pool), random);
            for (position, treatment) in treatments.into_iter().enumerate() {
                let bases = position * pool..((position + 1) * pool).min(window.bases());
                let asked = &window.is_target[bases.clone()];
                if treatment == Treatment::Seen || !asked.contains(&true) {
                    continue;
                }
                targets[row * width..][bases.clone()].copy_from_slice(asked);
                match treatment {
                    Treatment::Replaced => masked[row * pools + position] = true,
                    Treatment::Random => {
                        for (codes, &codebook_size) in window.codes.iter_mut().zip(&self.codebook_sizes) {
                            codes[bases.clone()].fill_with(|| random.random_range(0..codebook_size) as u16);
                        }
                    }
                    Treatment::Kept | Treatment::Seen => {}
                }
            }
        }
        let vectors = self.quantizer.decode(&shown.codes());
        Puzzle {
            vectors: if batch.device.is_autodiff() { vectors.autodiff() } else { vectors },
            masked: Masked::with_targets(&masked, &targets, [rows, width], pool, &batch.device),
            real: batch.real(),
            codes: batch.codes(),
        }
    }
}

impl Objective for Pretrain<'_> {
    type Model = MaskedModel;
    type Batch = CodeBatch;
    type Carry = ();

    fn start(
        &self,
        model: MaskedModel,
        _: &mut dyn Iterator<Item = CodeBatch>,
        _: usize,
        _: &dyn Fn() -> bool,
    ) -> MaskedModel {
        model
    }

    fn forward(&self, model: &MaskedModel, batch: &CodeBatch) -> Outcome<()> {
        let Puzzle { vectors, masked, real, codes } = self.puzzle(batch, &self.masking, "masks");
        let losses = model.losses(vectors, &masked, &real, &codes);
        let all = Tensor::cat(losses.clone(), 0);
        let named = |(level, loss): (usize, Tensor<1>)| (format!("cross_entropy_nats_{level}"), loss.inner());
        let mut parts: Vec<_> = (1..).zip(losses).map(named).collect();
        parts.push(("masked_code_bits".to_owned(), all.clone().inner().sum().div_scalar(std::f64::consts::LN_2)));
        Outcome { loss: all.mean(), parts, carry: () }
    }

    fn after_step(&self, model: MaskedModel, _: Vec<()>, _: u64) -> MaskedModel {
        model
    }

    fn observe(&self, _: &MaskedModel) -> Measures {
        Measures::new()
    }

    /// Measures of masks that the seed fixes, twice: of single positions, and of spans. Masked positions show nothing but the
    /// mask vector, since one that shows its own codes would count as told. The measures without a suffix are those of masks as
    /// long as in training.
    fn evaluate(&self, model: &MaskedModel, batches: &mut dyn Iterator<Item = CodeBatch>) -> Measures {
        let levels = self.codebook_sizes.len();
        let (mut singles, mut spans) = (Tally::new(levels), Tally::new(levels));
        for batch in batches {
            for (tally, span) in [(&mut singles, 1), (&mut spans, self.measured_span)] {
                let masking = MaskingConfig { span, ..self.masking.without_noise() };
                tally.add(model, self.puzzle(&batch, &masking, "masks of held-out windows"));
            }
        }
        let mut measures = if self.masking.span == 1 { singles.measures() } else { spans.measures() };
        for (tally, name) in [(singles, "masked_code_bits_single"), (spans, "masked_code_bits_span")] {
            measures.extend(tally.code_bits().map(|bits| (name.to_owned(), bits)));
        }
        measures
    }
}

/// Sums over the masked bases of held-out windows.
struct Tally {
    bases: usize,
    told: Vec<Told>,
}

impl Tally {
    fn new(levels: usize) -> Self {
        Self { bases: 0, told: vec![Told::default(); levels] }
    }

    fn add(&mut self, model: &MaskedModel, Puzzle { vectors, masked, real, codes }: Puzzle) {
        self.bases += masked.count();
        for (sum, told) in self.told.iter_mut().zip(model.told(vectors, &masked, &real, &codes)) {
            sum.nats += told.nats;
            sum.right += told.right;
        }
    }

    /// Loss, and cross-entropy and accuracy of each level.
    fn measures(&self) -> Measures {
        let mut measures = Measures::new();
        // Without a masked base there is no mean over them.
        if self.bases > 0 {
            let mean = |sum: f64| sum / self.bases as f64;
            let nats: f64 = self.told.iter().map(|told| told.nats).sum();
            measures.push(("loss".to_owned(), mean(nats) / self.told.len() as f64));
            for (level, told) in (1..).zip(&self.told) {
                measures.push((format!("cross_entropy_nats_{level}"), mean(told.nats)));
                measures.push((format!("accuracy_{level}"), mean(told.right as f64)));
            }
        }
        measures.push(("masked_bases".to_owned(), self.bases as f64));
        measures
    }

    /// Bits that the codes of all levels of a masked base take.
    fn code_bits(&self) -> Option<f64> {
        let nats: f64 = self.told.iter().map(|told| told.nats).sum();
        (self.bases > 0).then(|| nats / self.bases as f64 / std::f64::consts::LN_2)
    }
}
