//! Adjacent positions as one: the shorter sequence that VQDNA's published cost hints at (`docs/vqdna.md`, A12).

use burn::prelude::*;

/// The mean vector of each `size` adjacent positions, over those that are real, and which of the means are real: those of at
/// least one real position. With a size of 1, what came in.
///
/// # Shapes
/// - `vectors`: `[batch, bases, d]`; `real`: `[batch, bases]`, 1 for a real base, 0 for padding; not differentiated
/// - output: `[batch, pools, d]` and `[batch, pools]`, where the last pool may hold fewer bases
pub fn pool(vectors: Tensor<3>, real: &Tensor<2>, size: usize) -> (Tensor<3>, Tensor<2>) {
    if size == 1 {
        return (vectors, real.clone());
    }
    let [batch, bases, d] = vectors.dims();
    let pools = bases.div_ceil(size);
    let (mut vectors, mut real) = (vectors * real.clone().unsqueeze_dim(2), real.clone());
    let missing = pools * size - bases;
    if missing > 0 {
        vectors = Tensor::cat(vec![vectors.clone(), Tensor::zeros([batch, missing, d], &vectors.device())], 1);
        real = Tensor::cat(vec![real.clone(), Tensor::zeros([batch, missing], &real.device())], 1);
    }
    let sums = vectors.reshape([batch, pools, size, d]).sum_dim(2).squeeze_dim::<3>(2);
    let counts = real.reshape([batch, pools, size]).sum_dim(2).squeeze_dim::<2>(2);
    (sums / counts.clone().clamp_min(1.0).unsqueeze_dim(2), counts.clamp_max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::to_array;

    #[test]
    fn means_leave_padding_out() {
        let device = Device::flex();
        let vectors = [1.0f32, 2.0, 3.0, 4.0, 5.0, 10.0, 99.0, 99.0, 99.0, 99.0];
        let vectors = Tensor::from_data(TensorData::new(vectors.to_vec(), [2, 5, 1]), &device);
        let real = [1.0f32, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let real = Tensor::from_data(TensorData::new(real.to_vec(), [2, 5]), &device);
        for (size, means, are_real) in [
            (2, vec![1.5, 3.5, 5.0, 10.0, 0.0, 0.0], vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
            (4, vec![2.5, 5.0, 10.0, 0.0], vec![1.0, 1.0, 1.0, 0.0]),
            (8, vec![3.0, 10.0], vec![1.0, 1.0]),
        ] {
            let (pooled, kept) = pool(vectors.clone(), &real, size);
            assert_eq!(pooled.dims(), [2, 5usize.div_ceil(size), 1]);
            assert_eq!((to_array(pooled).values, to_array(kept).values), (means, are_real), "{size}");
        }
        let (same, kept) = pool(vectors.clone(), &real, 1);
        assert_eq!((to_array(same), to_array(kept)), (to_array(vectors), to_array(real)));
    }
}
