//! Large pictures in overlapping tiles, so that memory does not grow with them.

/// Largest side of a tile: a whole picture up to 1280x1280 is one.
const TILE: usize = 1280;
/// Pixels that neighbours share; a motion beyond them is not followed across a border.
const OVERLAP: usize = 256;

/// One tile in one dimension: its pixels, and their weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) weights: Vec<f32>,
}

/// Tiles over `length` pixels; their weights rise and fall where they overlap and sum to one everywhere.
pub(super) fn spans(length: usize) -> Vec<Span> {
    cut(length, TILE, OVERLAP)
}

fn cut(length: usize, tile: usize, overlap: usize) -> Vec<Span> {
    let mut out = Vec::new();
    let mut start = 0;
    loop {
        let end = (start + tile).min(length);
        let rise = |i: usize| (i as f32 + 0.5) / overlap as f32;
        let weight = |i: usize| {
            let up = if start > 0 { rise(i - start).min(1.0) } else { 1.0 };
            let down =
                if end < length { (1.0 - rise((i + overlap).saturating_sub(end))).min(1.0) } else { 1.0 };
            // Before the overlap nothing falls.
            if i + overlap < end { up } else { up * down }
        };
        out.push(Span { start, weights: (start..end).map(weight).collect() });
        if end == length {
            return out;
        }
        start += tile - overlap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one() {
        for (length, tile, overlap) in [(5, 8, 2), (8, 8, 2), (9, 8, 2), (100, 16, 4), (3840, TILE, OVERLAP)]
        {
            let spans = cut(length, tile, overlap);
            assert_eq!(spans.len() == 1, length <= tile);
            let mut sum = vec![0.0; length];
            for span in &spans {
                assert!(span.weights.len() <= tile && span.start % (tile - overlap) == 0);
                for (s, w) in sum[span.start..].iter_mut().zip(&span.weights) {
                    assert!((0.0..=1.0).contains(w));
                    *s += w;
                }
            }
            assert!(sum.iter().all(|s| (s - 1.0).abs() < 1e-5), "{length}: {sum:?}");
        }
    }
}
