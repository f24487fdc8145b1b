//! kiegate: a gateway to the kie.ai API and an offline simulator of it, in one binary.
//!
//! In reading order: [`ids`] and [`clock`] are the words that all others share. [`media`] draws result files.

pub mod catalogue;
pub mod clock;
pub mod ids;
pub mod media;
