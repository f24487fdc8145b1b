//! Recordings: what was asked of the live API and what it answered, as a file that browsers and other tools read.
//!
//! A recording is HAR 1.2 (`har`) with a word of its own on every entry: which task it is about, how long after its create
//! it happened, whether it is a call or a callback, and, where it was a simulator that answered, what decided how. In reading order: `asked` (what a request asks for, so that two can be
//! compared), `redact` (what must not be written down), `recorder` (writes, while it happens), `lifecycle` (reads, as the
//! stories of tasks), `replay` (which recorded answer is due), `verify` (where something that should behave alike does not).
//!
//! Nothing here opens a connection or knows who answers: it is told what passes by, and asked what passed.

mod asked;
mod har;
mod lifecycle;
mod recorder;
mod redact;
mod replay;

pub use asked::Asked;
pub use har::{Circumstances, Damaged, Entry};
pub use lifecycle::{Answer, Broken, Called, Lifecycle, Recording, Seen, Told};
pub use recorder::{Calling, Exchange, Recorder, Sent, Steering, file_for};
pub use redact::Redactor;
pub use replay::{Asking, Callback, Library, NotRecorded, Played, Progress};
