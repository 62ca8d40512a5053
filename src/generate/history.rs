//! How a field came about: `history.png` beside `preview.png`, a row each few hundred steps.
//!
//! Which row a step writes depends on the step alone, so that a resumed run replaces the rows that it makes
//! again, and a run that begins anew begins with the first.

use std::path::{Path, PathBuf};

use image::{RgbImage, imageops};

use super::folder::RunFolder;
use super::preview::png;
use crate::config::Config;
use crate::{Result, asset};

/// Rows at most; in longer runs they stand for more steps.
const ROWS: u32 = 64;

/// Which pictures a step leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    preview: bool,
    /// The row's number, from 0.
    row: Option<u32>,
}

impl Due {
    /// What is due after `done` steps.
    pub(crate) fn after(done: u32, config: &Config) -> Self {
        let (c, steps) = (&config.output, config.steps());
        let preview = c.preview_every > 0 && (done.is_multiple_of(c.preview_every) || done == steps);
        let every = c.history_every.max(steps.div_ceil(ROWS));
        let row = (c.history_every > 0 && done.is_multiple_of(every)).then(|| done / every - 1);
        Self { preview, row }
    }

    pub(crate) fn any(self) -> bool {
        self.preview || self.row.is_some()
    }

    /// Writes what is due of both pictures; returns where.
    pub(crate) fn write(
        self,
        folder: &RunFolder,
        preview: &RgbImage,
        row: &RgbImage,
    ) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        if self.preview {
            let path = folder.file("preview.png");
            asset::replace(&path, &png(preview)?)?;
            written.push(path);
        }
        if let Some(number) = self.row {
            let path = folder.file("history.png");
            asset::replace(&path, &png(&with_row(&path, row, number))?)?;
            written.push(path);
        }
        Ok(written)
    }
}

/// The picture at `path` with its row `number` replaced and none after it. A file that is missing, damaged or
/// of another width has no rows; those that are missing are left black.
fn with_row(path: &Path, row: &RgbImage, number: u32) -> RgbImage {
    let (w, h) = row.dimensions();
    let mut picture = RgbImage::new(w, (number + 1) * h);
    if let Ok(before) = image::open(path).map(image::DynamicImage::into_rgb8)
        && before.width() == w
    {
        let kept = before.height().min(number * h);
        imageops::replace(&mut picture, &*imageops::crop_imm(&before, 0, 0, w, kept), 0, 0);
    }
    imageops::replace(&mut picture, row, 0, i64::from(number * h));
    picture
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn rows_are_added_replaced_and_cut_by_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.png");
        let write = |grey: u8, number| {
            let picture = with_row(&path, &RgbImage::from_pixel(4, 2, Rgb([grey; 3])), number);
            std::fs::write(&path, png(&picture).unwrap()).unwrap();
            (0..picture.height() / 2).map(|r| picture.get_pixel(0, 2 * r)[0]).collect::<Vec<_>>()
        };
        assert_eq!(write(10, 0), [10]);
        assert_eq!(write(20, 1), [10, 20]);
        assert_eq!(write(40, 3), [10, 20, 0, 40], "a row that was lost");
        assert_eq!(write(25, 1), [10, 25], "resumed from before");
        let wider = with_row(&path, &RgbImage::from_pixel(6, 2, Rgb([9; 3])), 1);
        assert_eq!((wider.dimensions(), wider.get_pixel(0, 0)[0]), ((6, 4), 0), "another size");
    }

    #[test]
    fn what_is_due_depends_on_the_step_alone_and_rows_are_few() {
        let mut config = Config::default();
        config.output.history_every = 10;
        config.output.preview_every = 15;
        config.optim.steps = 100;
        let due = |done| Due::after(done, &config);
        assert_eq!(due(10), Due { preview: false, row: Some(0) });
        assert_eq!(due(30), Due { preview: true, row: Some(2) });
        assert_eq!(due(100), Due { preview: true, row: Some(9) });
        assert!(!due(7).any());
        config.optim.steps = 100_000;
        let rows: Vec<u32> = (1..=100_000).filter_map(|d| Due::after(d, &config).row).collect();
        assert!(rows.len() <= 64 && rows.iter().enumerate().all(|(i, r)| i as u32 == *r), "{}", rows.len());
        (config.output.history_every, config.output.preview_every) = (0, 0);
        assert!((1..1000).all(|d| !Due::after(d, &config).any()));
    }
}
