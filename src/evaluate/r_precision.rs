//! R-precision: does a thing show its own caption rather than the others of a list?

use std::cmp::Ordering;

use serde::Serialize;

/// How one caption fared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// What was asked for.
    pub caption: String,
    /// True if it is a composition held out from training.
    pub unseen: bool,
    /// 1 if its own caption is nearer to what is shown than any other; `None` if nothing is there to see.
    pub rank: Option<usize>,
    /// Cosine between what is shown and its own caption.
    pub similarity: Option<f32>,
    /// The nearest of the other captions.
    pub rival: Option<String>,
}

/// Ranks the caption of each picture embedding among all; `None` stands for what is missing. `captions` are
/// the list's texts and whether they are unseen, `texts` and `images` unit vectors in the same order.
///
/// An equally near caption counts as nearer: who sees no difference has not recognised anything.
pub fn judge(captions: &[(String, bool)], texts: &[Vec<f32>], images: &[Option<Vec<f32>>]) -> Vec<Judged> {
    let one = |i: usize| {
        let (caption, unseen) = captions[i].clone();
        let Some(image) = &images[i] else {
            return Judged { caption, unseen, rank: None, similarity: None, rival: None };
        };
        let near: Vec<f32> = texts.iter().map(|t| dot(image, t)).collect();
        let others = || (0..near.len()).filter(|&j| j != i);
        // A similarity that is no number counts against the caption, whichever of the two it is.
        let nearer = |&j: &usize| near[j].partial_cmp(&near[i]).is_none_or(Ordering::is_ge);
        let rank = 1 + others().filter(nearer).count();
        let rival = others().max_by(|&a, &b| near[a].total_cmp(&near[b])).map(|j| captions[j].0.clone());
        Judged { caption, unseen, rank: Some(rank), similarity: Some(near[i]), rival }
    };
    (0..captions.len()).map(one).collect()
}

/// Share of rank 1 among those for which `which` holds, 0 … 1; `None` if there are none.
pub fn top1(judged: &[Judged], which: impl Fn(&Judged) -> bool) -> Option<f64> {
    let chosen: Vec<&Judged> = judged.iter().filter(|j| which(j)).collect();
    let right = chosen.iter().filter(|j| j.rank == Some(1)).count();
    (!chosen.is_empty()).then(|| right as f64 / chosen.len() as f64)
}

/// The direction of the mean of several unit vectors, itself a unit vector; `None` if there is none.
pub fn mean_embedding<'a>(views: impl IntoIterator<Item = &'a [f32]>) -> Option<Vec<f32>> {
    let mut sum: Vec<f32> = Vec::new();
    for view in views {
        sum.resize(view.len(), 0.0);
        sum.iter_mut().zip(view).for_each(|(s, v)| *s += v);
    }
    let length = dot(&sum, &sum).sqrt().max(1e-12);
    (!sum.is_empty()).then(|| sum.into_iter().map(|v| v / length).collect())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(n: usize) -> Vec<(String, bool)> {
        (0..n).map(|i| (format!("thing {i}"), i % 2 == 1)).collect()
    }

    fn axis(i: usize, n: usize) -> Vec<f32> {
        (0..n).map(|j| f32::from(u8::from(i == j))).collect()
    }

    #[test]
    fn perfect_and_permuted_pictures() {
        let n = 5;
        let texts: Vec<_> = (0..n).map(|i| axis(i, n)).collect();
        let own: Vec<_> = texts.iter().cloned().map(Some).collect();
        let perfect = judge(&list(n), &texts, &own);
        assert!(perfect.iter().all(|j| j.rank == Some(1) && j.similarity == Some(1.0)));
        assert_eq!(top1(&perfect, |_| true), Some(1.0));
        let mut swapped = own.clone();
        swapped.swap(1, 4);
        let found = judge(&list(n), &texts, &swapped);
        assert_eq!(top1(&found, |_| true), Some(0.6));
        assert_eq!((top1(&found, |j| j.unseen), top1(&found, |j| !j.unseen)), (Some(0.5), Some(2.0 / 3.0)));
        assert_eq!(found[1].rival.as_deref(), Some("thing 4"));
        // Nothing but the right one is nearer than an orthogonal picture, and all others tie.
        assert_eq!(found[1].rank, Some(5));
    }

    #[test]
    fn what_is_missing_or_the_same_for_all_is_wrong() {
        let texts: Vec<_> = (0..3).map(|i| axis(i, 3)).collect();
        let found = judge(&list(3), &texts, &[Some(texts[0].clone()), None, Some(vec![0.5; 3])]);
        assert_eq!(found.iter().map(|j| j.rank).collect::<Vec<_>>(), [Some(1), None, Some(3)]);
        assert_eq!(top1(&found, |_| true), Some(1.0 / 3.0));
        assert_eq!(top1(&found, |j| j.caption == "else"), None);
        let blind = judge(&list(1), &[vec![f32::NAN]], &[Some(vec![1.0])]);
        assert_eq!(blind[0].rank, Some(1), "alone in its list");
    }

    #[test]
    fn the_mean_has_length_one() {
        let mean = mean_embedding([&[1.0, 0.0][..], &[0.0, 1.0]]).unwrap();
        assert!((mean[0] - 0.5f32.sqrt()).abs() < 1e-6 && (dot(&mean, &mean) - 1.0).abs() < 1e-6);
        assert_eq!(mean_embedding([]), None);
    }
}
