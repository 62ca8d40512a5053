//! "Did you mean": the nearest of the names that exist.

/// The candidate nearest to `word` by edit distance, if it is near enough to be a slip.
///
/// Near enough: at most a third of the longer word's letters differ (two for short words).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|c| (edit_distance(&word.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= 2.max(word.chars().count().max(c.chars().count()) / 3))
        .filter(|(d, c)| *d < c.chars().count())
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_and_slips() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(nearest("defualt", ["draft", "default"]), Some("default"));
        assert_eq!(nearest("optim.step", ["optim.steps", "camera.size"]), Some("optim.steps"));
        assert_eq!(nearest("zebra", ["draft", "default"]), None);
        assert_eq!(nearest("ab", ["xy"]), None);
    }
}
