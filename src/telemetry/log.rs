//! Log lines on standard error: for people, or as JSON for machines.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

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
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false);
            registry.with(lines.with_filter(ours)).try_init()
        }
        LogFormat::Json => {
            let lines =
                fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_target(false);
            registry.with(lines.with_filter(ours)).try_init()
        }
    };
}
