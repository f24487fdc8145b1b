//! `kiegate verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Builder;

use super::{catalogue, complain, print};
use crate::catalogue::Catalogue;
use crate::record::{Damaged, Recording};
use crate::verify::{Report, Totals, Unplayable, verify};

/// Compares recordings with a fresh simulator each.
pub(super) fn run(files: &[PathBuf], json: bool, catalog: Option<PathBuf>) -> ExitCode {
    let catalogue = match catalogue(catalog) {
        Ok(catalogue) => Arc::new(catalogue),
        Err(error) => return complain(&error),
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    let reports = match runtime.block_on(verify_all(&catalogue, files)) {
        Ok(reports) => reports,
        Err(error) => return complain(&error),
    };
    let totals = Totals::of(&reports);
    let is_ok = totals.drifting == 0;
    let text = if json {
        format!("{:#}\n", json!({"ok": is_ok, "totals": totals, "recordings": reports}))
    } else {
        reports.iter().map(ToString::to_string).chain([totals.to_string()]).collect()
    };
    let printed = print(text.as_bytes());
    if is_ok { printed } else { ExitCode::FAILURE }
}

/// Why there are no reports.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error(transparent)]
    Unplayable(#[from] Unplayable),
}

/// One recording after the other: they may be large, and many.
async fn verify_all(catalogue: &Arc<Catalogue>, paths: &[PathBuf]) -> Result<Vec<Report>, Failure> {
    let listed = paths.iter().map(|path| Recording::files(path)).collect::<Result<Vec<_>, _>>()?;
    let mut reports = Vec::new();
    for file in listed.iter().flatten() {
        reports.push(verify_file(catalogue, file).await?);
    }
    Ok(reports)
}

async fn verify_file(catalogue: &Arc<Catalogue>, file: &Path) -> Result<Report, Failure> {
    let recording = Recording::read_file(catalogue, file)?;
    Ok(verify(catalogue, file.display().to_string(), &recording).await?)
}
