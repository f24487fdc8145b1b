//! `/_mock/snapshot`: the whole sandbox as one document.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::json;

use super::super::snapshot::{SavedUpload, Snapshot};
use super::super::upload::Upload;
use super::super::{Event, Sim, collect};
use super::{Answer, Caller};
use crate::clock::Timestamp;
use crate::error::ProblemDocument;

/// A snapshot does not hold more bytes of uploaded files.
const MOST_UPLOADED: u64 = 64 * 1024 * 1024;
/// So long a snapshot waits for callbacks that are on their way: somewhat more than a receiver may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes a snapshot, once no callback is on its way.
pub(super) async fn take(State(sim): State<Sim>, caller: Caller) -> Result<Json<Snapshot>, ProblemDocument> {
    if caller.sandbox.world().guest.is_there() {
        let what = "a recording plays in this sandbox, and is no part of a snapshot";
        return Err(ProblemDocument::new(StatusCode::CONFLICT, what));
    }
    let deadline = sim.parts().clock.instant() + PATIENCE;
    let (mut snapshot, uploads) = loop {
        let changed = caller.sandbox.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let taken = caller.with_world(&sim, |world, now| {
            let taken = || (Snapshot::take(sim.catalogue(), world, now), world.shelf.all(now));
            (!world.is_calling()).then(taken)
        });
        match taken {
            Some(taken) => break taken,
            None if tokio::time::timeout_at(deadline, changed).await.is_ok() => {}
            None => {
                let what = "a callback has been on its way for too long; wait for it, or reset the sandbox";
                return Err(ProblemDocument::new(StatusCode::CONFLICT, what));
            }
        }
    };
    let bytes: u64 = uploads.iter().map(|(_, upload, _)| upload.stored.size()).sum();
    if bytes > MOST_UPLOADED {
        let what = format!("the uploaded files take {bytes} bytes; a snapshot holds {MOST_UPLOADED} at most");
        return Err(ProblemDocument::new(StatusCode::PAYLOAD_TOO_LARGE, what));
    }
    for (path, upload, until) in uploads {
        let size = upload.stored.size();
        let read = Arc::clone(&upload.stored).read(0..size).await.map_err(axum::Error::new);
        let bytes = match read {
            Ok(body) => collect(body).await,
            Err(error) => Err(error),
        };
        let unreadable =
            |_| ProblemDocument::new(StatusCode::INTERNAL_SERVER_ERROR, "an uploaded file cannot be read");
        snapshot.uploads.push(SavedUpload {
            path: path.to_string(),
            content_type: upload.content_type.to_string(),
            until,
            base64: STANDARD.encode(bytes.map_err(unreadable)?),
        });
    }
    Ok(Json(snapshot))
}

/// Puts a snapshot in the place of all that is in the sandbox.
pub(super) async fn put_back(State(sim): State<Sim>, caller: Caller, body: Bytes) -> Answer {
    let wrong = |what: String| ProblemDocument::bad_request(format!("snapshot: {what}"));
    let mut snapshot: Snapshot = serde_json::from_slice(&body)
        .map_err(|error| wrong(format!("{error}; send what GET /_mock/snapshot gave")))?;
    let uploads = uploads(&sim, &caller, std::mem::take(&mut snapshot.uploads)).await?;
    let fresh = super::fresh_world(&sim);
    let mut world = snapshot.restore(sim.catalogue(), fresh, sim.real_now()).map_err(wrong)?;
    for (path, upload, until) in uploads {
        world.shelf.put(&path, upload, until);
    }
    let tasks = world.tasks.len();
    let (running, due) = world.unsettled();
    super::replace_world(&sim, &caller, world);
    let (owner, observer) = (&caller.sandbox.owner, &sim.parts().observer);
    observer.observe(&Event::TasksRestored { owner, running });
    observer.observe(&Event::CallbacksPlanned { owner, count: due });
    sim.drive(&caller.sandbox);
    Ok(Json(json!({"ok": true, "tasks": tasks})))
}

/// Brings the files of a snapshot into the spool.
async fn uploads(
    sim: &Sim,
    caller: &Caller,
    saved: Vec<SavedUpload>,
) -> Result<Vec<(String, Upload, Timestamp)>, ProblemDocument> {
    let mut uploads = Vec::new();
    for SavedUpload { path, content_type, until, base64 } in saved {
        let bytes = STANDARD.decode(base64).map_err(|error| {
            ProblemDocument::bad_request(format!("snapshot: uploads: {path}: base64: {error}"))
        })?;
        let stored = sim.parts().spool.keep(&caller.sandbox.share, bytes.into()).await;
        let stored = stored
            .map_err(|error| ProblemDocument::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()))?;
        uploads.push((path, Upload { stored: Arc::new(stored), content_type: content_type.into() }, until));
    }
    Ok(uploads)
}
