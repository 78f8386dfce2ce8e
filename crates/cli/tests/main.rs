//! The program as its users meet it: command lines in; files, exit codes and messages out.

mod cases;
mod edge_cases;
mod errors;
mod finetune;
mod formats;
mod inputs;
mod mxdna;
mod next;
mod pipeline;
mod predictions;
mod program;
mod quickstart;
mod reports;
mod runs;
mod signals;
mod tokenizers;
