//! A run: its configuration, its data, what it does and leaves behind. One file per stage; [`stage`] holds what they share.

pub mod codes;
pub mod config;
pub mod learn;
pub mod pretrain;
pub mod source;
pub mod stage;
