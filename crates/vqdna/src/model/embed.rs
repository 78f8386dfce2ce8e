//! Tokens to what an encoder sees: learned vectors projected to its width, or rows of a table; then pooled.

use burn::module::Param;
use burn::prelude::*;

use crate::backbone::{Backbone, BackboneConfig, pool};
use crate::batch::{Layout, TokenBatch};
use crate::layers::Linear;
use crate::seed::{Stream, stream};
use crate::tokenizer::Source;
use crate::weights::normal;

/// Standard deviation of initial values of vectors that stand for tokens.
const DEVIATION: f64 = 0.02;

/// The first layer.
#[derive(Module, Debug)]
pub enum Embed {
    /// Over vectors that a tokenizer has learned.
    Projection(Projection),
    /// Over ids.
    Table(Table),
}

/// Learned vectors to the width of an encoder.
#[derive(Module, Debug)]
pub struct Projection {
    /// Vectors to `d_model`.
    pub proj: Linear,
    /// What stands for a masked position, `[d_model]`.
    pub mask_vector: Param<Tensor<1>>,
    /// Adjacent tokens that are one position.
    pub pool: usize,
}

/// A vector for each id.
#[derive(Module, Debug)]
pub struct Table {
    /// `[ids, d_model]`.
    pub weight: Param<Tensor<2>>,
    /// Adjacent tokens that are one position.
    pub pool: usize,
}

/// A fresh first layer and the encoder over it, pure functions of the seed.
#[must_use]
pub fn encoder(config: &BackboneConfig, source: Source, seed: u64, device: &Device) -> (Embed, Backbone) {
    let random = &mut stream(seed, config.stream(), &[]);
    let embed = Embed::new(source, config, random, device);
    (embed, config.init(random, seed, device))
}

impl Embed {
    fn new(source: Source, config: &BackboneConfig, random: &mut Stream, device: &Device) -> Self {
        let (d, pool) = (config.width(), config.pool());
        match source {
            Source::Vectors(width) => {
                let proj = Linear::new(width, d, random, device);
                Self::Projection(Projection { proj, mask_vector: normal([d], DEVIATION, random, device), pool })
            }
            Source::Table(ids) => Self::Table(Table { weight: normal([ids, d], DEVIATION, random, device), pool }),
        }
    }

    /// Adjacent tokens that are one position.
    #[must_use]
    pub fn pool(&self) -> usize {
        match self {
            Self::Projection(projection) => projection.pool,
            Self::Table(table) => table.pool,
        }
    }

    /// What stands for each token before anything is projected or pooled.
    ///
    /// # Shapes
    /// - output: `[batch, positions, d]`
    ///
    /// # Panics
    /// If the batch has no vectors, but the layer is over vectors.
    pub fn vectors(&self, batch: &TokenBatch) -> Tensor<3> {
        match self {
            Self::Projection(_) => batch.vectors.clone().expect("vectors of learned tokens"),
            Self::Table(table) => {
                let [rows, positions] = batch.ids[0].dims();
                let d = table.weight.dims()[1];
                let ids = batch.ids[0].clone().reshape([rows * positions]);
                table.weight.val().select(0, ids).reshape([rows, positions, d])
            }
        }
    }

    /// What the encoder sees, and which of its positions are real: those of a pool with a real token.
    ///
    /// # Shapes
    /// - `masked`: `[batch, pools]`, true where the mask vector takes the place of the vector; over ids, those show what is masked
    /// - output: `[batch, pools, d_model]`
    pub fn forward(&self, batch: &TokenBatch, masked: Option<Tensor<2, Bool>>) -> (Tensor<3>, Layout) {
        let (vectors, real) = pool(self.vectors(batch), &batch.layout.real, self.pool());
        let x = match self {
            Self::Projection(projection) => {
                let x = projection.proj.forward(vectors);
                match masked {
                    None => x,
                    Some(masked) => {
                        let shape = x.dims();
                        let instead = projection.mask_vector.val().unsqueeze::<3>().expand(shape);
                        x.mask_where(masked.unsqueeze_dim::<3>(2).expand(shape), instead)
                    }
                }
            }
            Self::Table(_) => vectors,
        };
        (x, self.pooled(&batch.layout, real))
    }

    fn pooled(&self, layout: &Layout, real: Tensor<2>) -> Layout {
        let size = self.pool();
        if size == 1 {
            return Layout { real, ..layout.clone() };
        }
        let all = |row: &[bool]| row.chunks(size).map(|pool| pool.iter().all(|&special| special)).collect::<Vec<_>>();
        Layout {
            real,
            lengths: layout.lengths.iter().map(|length| length.div_ceil(size)).collect(),
            special: layout.special.chunks(layout.positions().max(1)).flat_map(all).collect(),
        }
    }

    /// The layer whose mask vector does not learn, where nothing is masked.
    #[must_use]
    pub fn without_mask(self) -> Self {
        match self {
            Self::Projection(projection) => {
                let mask_vector = projection.mask_vector.set_require_grad(false);
                Self::Projection(Projection { mask_vector, ..projection })
            }
            Self::Table(_) => self,
        }
    }
}
