//! stub
pub mod optimizer;
pub mod schedule;
