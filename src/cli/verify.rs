//! `kiegate verify`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Builder;

use super::{catalogue, complain, print};
use crate::record::Recording;
use crate::verify::{Report, verify};

/// Compares recordings with a fresh simulator each.
pub(super) fn run(files: &[PathBuf], json: bool, catalog: Option<PathBuf>) -> ExitCode {
    let catalogue = match catalogue(catalog) {
        Ok(catalogue) => Arc::new(catalogue),
        Err(error) => return complain(&error),
    };
    let listed = files.iter().map(|path| Recording::files(path)).collect::<Result<Vec<_>, _>>();
    let read = listed.and_then(|listed| {
        let files = listed.into_iter().flatten();
        files
            .map(|file| Ok((file.clone(), Recording::read_file(&catalogue, &file)?)))
            .collect::<Result<Vec<_>, _>>()
    });
    let recordings = match read {
        Ok(recordings) => recordings,
        Err(error) => return complain(&error),
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    let reports: Vec<Report> = runtime.block_on(async {
        let mut reports = Vec::new();
        for (file, recording) in recordings {
            reports.push(verify(&catalogue, file.display().to_string(), &recording).await);
        }
        reports
    });
    let is_ok = reports.iter().all(Report::is_ok);
    let text = if json {
        format!("{:#}\n", json!({"ok": is_ok, "recordings": reports}))
    } else {
        reports.iter().map(ToString::to_string).collect()
    };
    let printed = print(text.as_bytes());
    if is_ok { printed } else { ExitCode::FAILURE }
}
