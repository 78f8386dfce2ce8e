//! k-means on rows (Lloyd 1982), to start a codebook where the data are.

use burn::prelude::*;
use rand::seq::index;

use crate::ops;
use crate::seed::Stream;
use crate::weights::to_array;

/// `size` means of `rows [n, d]` and how many rows each stands for. Starts from distinct random rows; an empty cluster keeps
/// its mean between iterations, and at the end takes a random row with a count of one, so that no code starts dead. Iterations end
/// once `go_on` says no.
pub fn kmeans(
    rows: Tensor<2>,
    size: usize,
    iterations: usize,
    random: &mut Stream,
    go_on: &dyn Fn() -> bool,
) -> (Tensor<2>, Tensor<1>) {
    let start = choose(&rows, size, random);
    let (means, counts) = lloyd(&rows, start, iterations, go_on);
    let empty: Vec<f32> = to_array(counts.clone()).values.iter().map(|&n| f32::from(n == 0.0)).collect();
    let empty = Tensor::<1>::from_data(TensorData::new(empty, [size]), &rows.device());
    let column = empty.clone().unsqueeze_dim::<2>(1);
    let means = means * column.clone().neg().add_scalar(1.0) + choose(&rows, size, random) * column;
    (means, counts + empty)
}

/// `size` rows, distinct as long as there are enough.
fn choose(rows: &Tensor<2>, size: usize, random: &mut Stream) -> Tensor<2> {
    let n = rows.dims()[0];
    let mut chosen: Vec<i32> = Vec::with_capacity(size);
    while chosen.len() < size {
        let more = index::sample(random, n, n.min(size - chosen.len()));
        chosen.extend(more.into_iter().map(|row| row as i32));
    }
    rows.clone().select(0, Tensor::from_data(TensorData::new(chosen, [size]), &rows.device()))
}

/// Means after `iterations` from `start`, and their counts in the last one.
fn lloyd(rows: &Tensor<2>, start: Tensor<2>, iterations: usize, go_on: &dyn Fn() -> bool) -> (Tensor<2>, Tensor<1>) {
    let (n, size) = (rows.dims()[0], start.dims()[0]);
    let weight = Tensor::ones([n], &rows.device());
    let mut means = start;
    let mut counts = Tensor::ones([size], &rows.device());
    for _ in (0..iterations).take_while(|_| go_on()) {
        let Some(index) = nearest(rows, &means, go_on) else { break };
        let (new_counts, sums) = ops::code_statistics(rows.clone(), index, weight.clone(), size);
        let used = new_counts.clone().greater_scalar(0.0).float().unsqueeze_dim::<2>(1);
        let mean = sums / new_counts.clone().clamp_min(1.0).unsqueeze_dim(1);
        means = mean * used.clone() + means * used.neg().add_scalar(1.0);
        counts = new_counts;
    }
    (means, counts)
}

/// The nearest of `codes [size, d]` to each of `rows [n, d]`, `[n]`; none if `go_on` says no before all are found. Large searches take
/// seconds, so `go_on` is called between parts of them, a tenth of a second each; a row's code is the same in any part.
pub(super) fn nearest(rows: &Tensor<2>, codes: &Tensor<2>, go_on: &dyn Fn() -> bool) -> Option<Tensor<1, Int>> {
    /// Multiplications of a part.
    const AT_ONCE: usize = 1 << 32;
    let ([n, d], size) = (rows.dims(), codes.dims()[0]);
    let part = (AT_ONCE / (d * size).max(1)).max(1);
    if n <= part {
        return Some(ops::nearest(rows.clone(), codes.clone()));
    }
    let mut found = Vec::new();
    for first in (0..n).step_by(part) {
        if !go_on() {
            return None;
        }
        found.push(ops::nearest(rows.clone().narrow(0, first, part.min(n - first)), codes.clone()));
    }
    Some(Tensor::cat(found, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::stream;

    fn rows(values: &[f32]) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), &Device::flex())
    }

    /// T3 of `docs/vectors.md`, from the start that it names.
    #[test]
    fn two_clusters_on_a_line() {
        let (means, counts) = lloyd(&rows(&[0.0, 0.2, 1.0, 1.2]), rows(&[0.0, 0.2]), 3, &|| true);
        let means = to_array(means).values;
        assert!((means[0] - 0.1).abs() < 1e-6 && (means[1] - 1.1).abs() < 1e-6, "{means:?}");
        assert_eq!(to_array(counts).values, [2.0, 2.0]);
    }

    #[test]
    fn iterations_end_when_nobody_wants_more() {
        let asked = std::cell::Cell::new(0);
        let twice = || {
            asked.set(asked.get() + 1);
            asked.get() <= 2
        };
        let data = rows(&[0.0, 0.2, 1.0, 1.2, 5.0]);
        let (stopped, two) =
            (lloyd(&data, rows(&[0.0, 0.2]), 100, &twice), lloyd(&data, rows(&[0.0, 0.2]), 2, &|| true));
        assert_eq!(to_array(stopped.0).values, to_array(two.0).values);
    }

    /// 2³² multiplications and more.
    #[test]
    fn a_large_search_in_parts_finds_the_same_and_can_be_ended() {
        let (n, size) = (70_000, 1 << 16);
        let rows = rows(&(0..n).map(|row| (row % size) as f32).collect::<Vec<_>>());
        let codes = rows.clone().narrow(0, 0, size);
        let found = to_array(nearest(&rows, &codes, &|| true).unwrap().float()).values;
        assert_eq!(found, to_array(ops::nearest(rows.clone(), codes.clone()).float()).values);
        assert!(nearest(&rows, &codes, &|| false).is_none());
    }

    /// T3: equal data leave a cluster empty, which is seeded from the data again and counts.
    #[test]
    fn an_empty_cluster_takes_a_row_of_the_data() {
        let (means, counts) = kmeans(rows(&[5.0, 5.0, 5.0]), 2, 3, &mut stream(1, "test", &[]), &|| true);
        assert_eq!(to_array(means).values, [5.0, 5.0]);
        assert_eq!(to_array(counts).values, [3.0, 1.0]);
    }
}
