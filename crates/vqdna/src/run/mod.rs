//! A run: its configuration, its data, what it does and leaves behind. One file per stage; [`stage`] holds what they share.

pub mod bpe;
pub mod changes;
pub mod codes;
pub mod config;
pub mod finetune;
pub mod kmers;
pub mod labelled;
pub mod learn;
pub mod pretrain;
pub mod recipe;
pub mod source;
pub mod stage;
