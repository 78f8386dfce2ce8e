//! All integration tests of the library in one binary, because each binary links Burn again.

mod finetune;
mod floors;
mod golden;
mod golden_mxdna;
mod host;
mod infer;
mod laws;
mod learns;
mod mxdna;
mod pretrain;
mod resume;
mod transcode;
mod vectors;
