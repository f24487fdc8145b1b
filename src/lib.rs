//! kiegate: a gateway to the kie.ai API and an offline simulator of it, in one binary.
//!
//! In reading order: [`ids`] and [`clock`] are the words that all others share; [`wire`] is how the upstream spells
//! what more than one module must speak; [`catalogue`] is what is known of the upstream, as data; [`media`] draws
//! result files; [`sim`] plays the upstream; [`error`] makes HTTP of what goes wrong on our side.

pub mod background;
pub mod catalogue;
pub mod clock;
pub mod error;
pub mod ids;
pub mod media;
pub mod sim;
pub mod wire;
