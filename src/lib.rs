//! kiegate: a gateway to the kie.ai API and an offline simulator of it, in one binary.
//!
//! In reading order. The words that all others share: [`ids`], [`clock`], [`wire`] (forms that the upstream
//! prescribes), [`heard`] (bodies that are looked at while they pass), [`config`]. What is known of the upstream: [`catalogue`], told
//! to others by [`openapi`]. The upstream played offline: [`sim`], with
//! [`media`] to draw its results. The way of a request: [`gateway`], which asks [`tenants`] who calls and hands on to
//! a [`proxy`], with [`record`] beside it. What it asks on the way: [`limits`] whether there is room, [`cache`] what is known already, [`tasks`] whose
//! a task is, how far it is and whom it tells, [`store`] what was so far. [`outbound`] opens connections, [`error`] makes
//! HTTP of what goes wrong. Beside it: [`verify`] (does the simulator behave as what was recorded?), [`telemetry`],
//! [`admin`], [`background`]. And what ties it together: [`app`], started by [`cli`], or by [`testing`] inside of a test.

pub mod admin;
pub mod app;
pub mod background;
pub mod cache;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod gateway;
pub mod gather;
pub mod heard;
pub mod ids;
pub mod limits;
pub mod media;
pub mod openapi;
pub mod outbound;
pub mod proxy;
pub mod record;
pub mod sim;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod tenants;
pub mod testing;
pub mod verify;
pub mod wire;
