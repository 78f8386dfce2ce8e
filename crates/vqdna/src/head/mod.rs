//! From hidden states to what a task asks for. One file per kind; today there is [`masked`], which tells the codes of masked
//! positions.

pub mod masked;
