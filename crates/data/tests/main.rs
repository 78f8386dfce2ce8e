//! Tests of the crate through its public face.

mod compressed;
mod edge_cases;
mod labelled;
mod laws;
mod malformed;
