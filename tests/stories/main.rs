//! Stories: what users of kiegate see, told over the whole program in process.
#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking, and is no library")]

mod account;
mod again;
mod bad_input;
mod callbacks;
mod catalogue;
mod chat;
mod contract;
mod control;
mod discovery;
mod exchanges;
mod faults;
mod journal;
mod keys;
mod lifecycle;
mod live;
mod market_videos;
mod openapi;
mod outcomes;
mod pictures;
mod requests;
mod results;
mod rules;
mod schemas;
mod snapshot;
mod songs;
mod support;
mod testing;
mod tls;
mod uploads;
