//! Clips in and out: streaming decode with rational times, streaming encode, everything else copied.

mod chroma;
mod clock;
mod codec;
mod color;
mod copy;
mod ff;
mod images;
mod layout;
mod picture;
mod reader;
mod series;
mod source;
mod tonemap;
mod transcode;
mod turn;
mod writer;

pub use clock::{Ratio, Stamp};
pub use codec::{Codec, Encoding};
pub use color::Tags;
pub use images::{is_series, pictures};
pub use picture::Picture;
pub use reader::{Damage, Frame, ReadOptions, Reader, stamps};
pub use source::{Info, MAX_PIXELS};
pub use transcode::{Flow, Progress, transcode};
pub use turn::Turn;
pub use writer::{Writer, Written};
