//! The files that a task makes, as data: which format, how many, how large, how long. Drawn elsewhere.

use std::time::Duration;

use super::{Pick, Template};

/// Files that a task makes.
#[derive(Debug)]
pub struct ResultKind {
    /// `mp4`, `png`, `jpeg`.
    pub format: Pick,
    /// Name of a file; `${index}` is its number, from 0.
    pub file: Template,
    /// How many.
    pub count: Option<Pick>,
    /// How large the picture is.
    pub size: Size,
    /// Length in seconds.
    pub seconds: Option<Seconds>,
    /// The parent's length comes on top.
    pub joins_parent: bool,
    /// Whether a video has a sound track.
    pub audio: Option<Pick>,
    /// Whether a picture's background is removed.
    pub transparent: Option<Pick>,
    /// How many pictures an animated one has.
    pub pictures: Option<Pick>,
    /// The shorter side in pixels when the backup model made it.
    pub fallback_short_side: Option<u32>,
    /// How long the file is kept, where that is shorter than for the family.
    pub kept: Option<Duration>,
    /// The state, as text, from which the file is there though the task still runs.
    pub ready_at: Option<String>,
}

/// Where the length of a file comes from.
#[derive(Debug)]
pub enum Seconds {
    /// From the request.
    Pick(Pick),
    /// From what is known of the task.
    Template(Template),
}

/// How large a picture is, in pixels.
#[derive(Debug)]
pub enum Size {
    /// Width and height from a table: `[1536, 1024]`.
    Exact(Pick),
    /// A ratio such as `16:9` and the shorter side.
    ShortSide(Pick, Pick),
    /// A ratio and the side of a square of the same area.
    AreaSide(Pick, Pick),
    /// As the result of that name of the parent.
    LikeParent {
        /// The name.
        slot: String,
        /// The ratio where there is no parent.
        aspect: Pick,
        /// Scaled to another shorter side.
        short_side: Option<Pick>,
        /// Times a factor.
        scale: Option<Pick>,
    },
    /// A sound has none.
    None,
}
