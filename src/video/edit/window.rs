//! A clip in windows of frames that are edited together.

/// Consecutive frames, evaluated as one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its number.
    pub index: usize,
    /// First frame.
    pub start: usize,
    /// One past the last frame.
    pub end: usize,
}

impl Window {
    /// Number of frames, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a window is never empty")]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True for the frames it holds.
    pub fn contains(&self, frame: usize) -> bool {
        (self.start..self.end).contains(&frame)
    }
}

/// `frames` frames in windows of `size` (the last one may be shorter).
pub fn windows(frames: usize, size: usize) -> Vec<Window> {
    let size = size.max(1);
    let at = |index: usize| Window { index, start: index * size, end: ((index + 1) * size).min(frames) };
    (0..frames.div_ceil(size)).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_every_frame_once() {
        for (frames, size) in [(0, 8), (1, 8), (8, 8), (9, 8), (16, 5), (3, 1)] {
            let all = windows(frames, size);
            let covered: Vec<usize> = all.iter().flat_map(|w| w.start..w.end).collect();
            assert_eq!(covered, (0..frames).collect::<Vec<_>>());
            assert!(all.iter().enumerate().all(|(i, w)| w.index == i && w.len() <= size));
        }
    }
}
