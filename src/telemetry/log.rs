//! Log lines on standard error: for people, or as JSON for machines.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat, LogLevel};

/// Starts writing log lines. A second call in the same process changes nothing, so that tests may call it freely.
pub fn start(config: &Log) {
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Lines of the libraries below us matter when somebody hunts a fault, not otherwise.
    let ours = tracing_subscriber::filter::Targets::new()
        .with_target("kiegate", level)
        .with_default(level.min(LevelFilter::WARN));
    let registry = tracing_subscriber::registry();
    let _ = match config.format {
        LogFormat::Pretty => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            let lines = fmt::layer().with_writer(standard_error()).with_ansi(colours).with_target(false);
            registry.with(ours).with(lines).try_init()
        }
        LogFormat::Json => {
            let lines =
                fmt::layer().json().flatten_event(true).with_writer(standard_error()).with_target(false);
            registry.with(ours).with(lines).try_init()
        }
    };
}

/// Standard error without the standard library's lock. A line is one write, which the system does not mix with others,
/// so threads need not wait for each other.
fn standard_error() -> BoxMakeWriter {
    match io::stderr().as_fd().try_clone_to_owned() {
        Ok(same) => BoxMakeWriter::new(Arc::new(File::from(same))),
        Err(_) => BoxMakeWriter::new(io::stderr),
    }
}
