//! What `ovl` does with clusters, a file for each verb.

pub mod cp;
pub mod impair;
pub mod run;
pub mod scale;
pub mod start;
pub mod status;
pub mod stop;
