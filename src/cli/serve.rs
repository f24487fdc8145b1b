//! `kiegate serve` and `kiegate health`.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{ServeArgs, complain};
use crate::app::{App, Handle, ReloadError, reachable};
use crate::background::{self, Lanes};
use crate::config::{Config, Mode};
use crate::outbound::{Client, reasons};
use crate::sim::SandboxId;
use crate::telemetry;

/// Serves until a signal comes.
pub(super) fn run(args: &ServeArgs) -> ExitCode {
    let config = match args.config() {
        Ok(config) => config,
        Err(error) => return complain(&error),
    };
    telemetry::start_logging(&config.log);
    raise_descriptor_limit();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    let lanes = match Lanes::start(background::cores()) {
        Ok(lanes) => Arc::new(lanes),
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    runtime.block_on(async {
        let mode = config.mode;
        match App::start(config) {
            Ok(app) => {
                let app = app.on_lanes(Arc::clone(&lanes));
                announce(&app, mode);
                background::spawn(reload_on_hangup(args.clone(), app.handle()));
                let (first, second) = stop_signals();
                tokio::select! {
                    () = app.run(first) => {}
                    () = second => tracing::warn!("stopped at once: a second signal came"),
                }
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error),
        }
    })
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name("kiegate").build()
}

/// As many open connections as the system lets us have.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
}

/// Says where everything is. In mock mode with a line that works when pasted.
fn announce(app: &App, mode: Mode) {
    let scheme = app.scheme();
    let base = format!("{scheme}://{}", reachable(app.data_address()));
    let admin = format!("{scheme}://{}", reachable(app.admin_address()));
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "kiegate {} in {} mode at {base}", env!("CARGO_PKG_VERSION"), mode.as_str());
    if mode == Mode::Mock {
        let inbox = format!("{base}/_mock/inbox/{}/hello", SandboxId::of("demo"));
        let _ = writeln!(
            out,
            "\nTry it:\n  curl -s {base}/api/v1/runway/generate -H 'Authorization: Bearer demo' -H 'Content-Type: application/json' \
             -d '{{\"prompt\":\"A paper boat on a rainy street\",\"duration\":5,\"quality\":\"720p\",\"aspectRatio\":\"16:9\",\"callBackUrl\":\"{inbox}\"}}'\n"
        );
    }
    let _ = writeln!(out, "Dashboard at {admin}/");
    let _ = out.flush();
}

/// What is ready when the process is asked to stop, and when it is asked once more.
fn stop_signals() -> (impl Future<Output = ()>, impl Future<Output = ()>) {
    let (tell, told) = oneshot::channel();
    let second = async {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            // Without handlers the signals end the process as they always did.
            return std::future::pending().await;
        };
        for tell in [Some(tell), None] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tell.map(|tell| tell.send(()));
        }
    };
    let first = async {
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    (first, second)
}

/// Reads the configuration again at each SIGHUP; one with problems changes nothing.
async fn reload_on_hangup(args: ServeArgs, handle: Handle) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        match args.config() {
            Ok(config) => match handle.reload(&config) {
                Ok(()) => tell_reloaded(&config),
                Err(error @ ReloadError::Tls(_)) => {
                    tracing::error!("tenants reloaded; the old certificate holds: {error}");
                }
                Err(error) => {
                    tracing::error!("the configuration was not reloaded, the old one holds: {error}");
                }
            },
            Err(error) => tracing::error!("the configuration was not reloaded, the old one holds:\n{error}"),
        }
    }
}

fn tell_reloaded(config: &Config) {
    tracing::info!(
        tenants = config.tenants.len(),
        "tenants and certificate reloaded; other settings take effect at the next start"
    );
}

/// Asks the admin plane at `admin` whether the gateway is ready.
pub(super) fn health(admin: &str) -> ExitCode {
    let url = format!("{}/readyz", admin.trim_end_matches('/'));
    let Ok(request) = Request::get(&url).body(Body::empty()) else {
        return complain(&format!("\"{admin}\" is no URL; write it as http://127.0.0.1:8788"));
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    runtime.block_on(async {
        let patience = Duration::from_secs(5);
        let client = Client::new(patience, patience);
        match tokio::time::timeout(patience, client.send(request)).await {
            Ok(Ok(response)) if response.status().is_success() => {
                let _ = writeln!(io::stdout(), "ready");
                ExitCode::SUCCESS
            }
            Ok(Ok(response)) => not_ready(&format!("{url} answers {}", response.status())),
            Ok(Err(error)) => not_ready(&format!("{url} does not answer: {}", reasons(&error))),
            Err(_) => not_ready(&format!("{url} does not answer within {} s", patience.as_secs())),
        }
    })
}

fn not_ready(why: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "kiegate: not ready: {why}");
    ExitCode::FAILURE
}
