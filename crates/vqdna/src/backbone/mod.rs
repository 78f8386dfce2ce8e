//! From code vectors to hidden states: `[batch, bases, d_input]` → `[batch, bases, d_model]`. One file per kind; today there is
//! [`transformer`].

pub mod transformer;
