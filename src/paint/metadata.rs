//! PNG files that tell how they were made.

use image::RgbImage;

use crate::{Error, Result};

/// A PNG of `picture` with UTF-8 texts (keyword and text) in its metadata.
///
/// # Errors
/// [`Error::Failed`] if a keyword is no PNG keyword (1 to 79 Latin-1 characters).
pub fn png_with_text(picture: &RgbImage, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
    let failed = |e: png::EncodingError| Error::Failed(format!("the picture cannot be encoded: {e}"));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, text) in texts {
        encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(failed)?;
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(picture.as_raw()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}
