//! Clips in and out: streaming decode with rational times, streaming encode, everything else copied.

mod chroma;
mod clock;
mod color;
mod ff;
mod images;
mod layout;
mod picture;
mod reader;
mod source;
mod tonemap;
mod turn;

pub use clock::{Ratio, Stamp};
pub use color::Tags;
pub use images::{is_series, pictures};
pub use picture::Picture;
pub use reader::{Damage, Frame, ReadOptions, Reader, stamps};
pub use source::{Info, MAX_PIXELS};
pub use turn::Turn;
