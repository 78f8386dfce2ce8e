//! From code vectors to hidden states: `[batch, bases, d_input]` → `[batch, pools, d_model]`, where a pool is a base or a few
//! adjacent ones. One file per kind; today there is [`transformer`].

pub mod pool;
pub mod transformer;
