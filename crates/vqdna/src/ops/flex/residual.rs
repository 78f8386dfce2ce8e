//! What the next level of a hierarchy searches, in one pass over the rows.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{contiguous, dims, floats, integers};

/// Rows that a thread takes at a time: a few hundred kilobytes, and the same part of a tensor for any number of threads.
const ROWS: usize = 256;

pub(in crate::ops) fn residual(
    tap: Tensor<2>,
    scale: f64,
    sum: Option<Tensor<2>>,
    codes: Tensor<2>,
    index: Tensor<1, Int>,
) -> Tensor<2> {
    // The macro that generates dispatch knows no optional tensors; one without rows stands for none.
    let sum = sum.unwrap_or_else(|| Tensor::empty([0, tap.dims()[1]], &tap.device()));
    Tensor::from_dispatch(Dispatch::vqdna_residual(
        tap.into_dispatch(),
        sum.into_dispatch(),
        codes.into_dispatch(),
        index.into_dispatch(),
        scale as f32,
    ))
}

#[backend_extension(Flex)]
pub(super) trait ResidualOps: Backend {
    fn vqdna_residual(
        tap: FloatTensor<Self>,
        sum: FloatTensor<Self>,
        codes: FloatTensor<Self>,
        index: IntTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
}

impl ResidualOps for Flex {
    fn vqdna_residual(
        tap: FlexTensor,
        sum: FlexTensor,
        codes: FlexTensor,
        index: FlexTensor,
        scale: f32,
    ) -> FlexTensor {
        let [mut tap, sum, codes, index] = contiguous([tap, sum, codes, index]);
        let [_, d] = dims(&tap);
        let (sum, codes, index) = (floats(&sum), floats(&codes), integers(&index));
        // In place where nobody else holds the tap.
        let taps: &mut [f32] = tap.storage_mut();
        taps.par_chunks_mut(ROWS * d).zip(index.par_chunks(ROWS)).enumerate().for_each(|(part, (taps, index))| {
            for (n, (row, &code)) in taps.chunks_exact_mut(d).zip(index).enumerate() {
                let code = &codes[code as usize * d..][..d];
                if sum.is_empty() {
                    row.iter_mut().zip(code).for_each(|(z, e)| *z = scale * *z - e);
                } else {
                    let sum = &sum[(part * ROWS + n) * d..][..d];
                    row.iter_mut().zip(code).zip(sum).for_each(|((z, e), s)| *z = scale * *z - (s + e));
                }
            }
        });
        tap
    }
}
