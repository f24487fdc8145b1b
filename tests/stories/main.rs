//! Stories: what users of kiegate see, told over the whole program in process.

mod bad_input;
mod callbacks;
mod contract;
mod control;
mod keys;
mod lifecycle;
mod live;
mod outcomes;
mod results;
mod support;
