//! Both stacks with real traffic, in network namespaces that each test makes for itself.
//!
//! Every test runs over the user-space stack and over the kernel's; what cannot run here says SKIPPED.

mod damage;
mod echo;
mod ends;
mod many;
mod network;
mod paths;
mod peer;
