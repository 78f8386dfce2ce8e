//! A run: its configuration, its data, what it does and leaves behind.

pub mod config;
pub mod learn;
pub mod source;
