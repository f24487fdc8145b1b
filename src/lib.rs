//! kiegate: a gateway to the kie.ai API and an offline simulator of it, in one binary.
//!
//! In reading order: [`ids`] and [`clock`] are the words that all others share.
//! [`config`] is what the operator says.

pub mod clock;
pub mod config;
pub mod ids;
