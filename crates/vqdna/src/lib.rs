//! VQDNA
pub mod batch;
pub mod device;
pub mod layers;
pub mod objective;
pub mod ops;
pub mod quantizer;
pub mod run;
pub mod seed;
pub mod tokenizer;
pub mod train;
pub mod weights;
