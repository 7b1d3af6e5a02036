//! What `ovl` does with clusters, a file for each verb.

pub mod cp;
mod cp_machines;
pub mod impair;
pub mod run;
pub mod scale;
pub mod start;
pub mod status;
pub mod stop;
