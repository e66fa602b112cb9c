//! What is recorded of a run, in plain values: what streams handed out, what the log says, which writes were made.
//! The checkers know nothing else, so they judge any surface, and made-up streams too.

mod evidence;
mod log;
mod moment;
mod recording;
mod seen;
mod want;

pub use evidence::{Evidence, Fate, Picture, Write};
pub use log::{Cell, Log, State};
pub use moment::{Moment, Span, Ticker};
pub use recording::{Beginning, End, Heard, Note, Reading, Recording, Source, WatchSpec};
pub use seen::Seen;
pub use want::{Target, Want};
