//! Every public function of the kernels, called rightly and wrongly: see the documentation of this crate.

#![forbid(unsafe_code)]

mod attention;
mod blocks;
mod codes;
mod experts;
mod layers;
mod products;
mod quantize;
mod surface;

use vqdna_misuse::judge;

/// Reproducible numbers between −1 and 1, none of them 0.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + 11) % 64) as f32 / 32.0 - 0.984_375).collect()
}

fn all(parts: impl IntoIterator<Item = Vec<f32>>) -> Vec<f32> {
    parts.into_iter().flatten().collect()
}

#[test]
fn attention_refuses_what_does_not_fit() {
    judge(&attention::tried());
}

#[test]
fn blocks_refuse_what_does_not_fit() {
    judge(&blocks::tried());
}

#[test]
fn kernels_of_codes_refuse_what_does_not_fit() {
    judge(&codes::tried());
}

#[test]
fn experts_refuse_what_does_not_fit() {
    judge(&experts::tried());
}

#[test]
fn layers_refuse_what_does_not_fit() {
    judge(&layers::tried());
}

#[test]
fn products_refuse_what_does_not_fit() {
    judge(&products::tried());
}

#[test]
fn quantizing_refuses_what_does_not_fit() {
    judge(&quantize::tried());
}
