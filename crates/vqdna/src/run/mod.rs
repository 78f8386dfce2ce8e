//! A run: its configuration, its data, its folder.

pub mod config;
pub mod folder;
pub mod learn;
pub mod source;
