//! Captions from names, adjectives, counts and relations.

/// `noun` with an indefinite article, unless it is a plural or mass noun.
pub(super) fn with_article(noun: &str, plural: bool) -> String {
    if plural {
        return noun.to_owned();
    }
    // "a unicorn", "a ukulele", "a ufo": the sound is that of "you".
    let starts = |beginnings: &[&str]| beginnings.iter().any(|b| noun.starts_with(b));
    let vowel = starts(&["a", "e", "i", "o", "u", "hour"]) && !starts(&["uni", "uku", "ufo", "use"]);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

/// `adjective noun` (if there is one) with its article.
pub(super) fn described(adjective: Option<&str>, noun: &str, plural: bool) -> String {
    match adjective {
        Some(adjective) => with_article(&format!("{adjective} {noun}"), plural),
        None => with_article(noun, plural),
    }
}

/// Number words from two on.
pub(super) const COUNTS: [&str; 3] = ["two", "three", "four"];

/// The plural of an English noun (its last word).
pub(super) fn plural(noun: &str) -> String {
    const IRREGULAR: [(&str, &str); 16] = [
        ("mouse", "mice"),
        ("man", "men"),
        ("goose", "geese"),
        ("sheep", "sheep"),
        ("fish", "fish"),
        ("deer", "deer"),
        ("knife", "knives"),
        ("shelf", "shelves"),
        ("scarf", "scarves"),
        ("wolf", "wolves"),
        ("loaf", "loaves"),
        ("leaf", "leaves"),
        ("elf", "elves"),
        ("tooth", "teeth"),
        ("foot", "feet"),
        ("dice", "dice"),
    ];
    for (one, many) in IRREGULAR {
        if let Some(stem) = noun.strip_suffix(one) {
            return format!("{stem}{many}");
        }
    }
    let mut end = noun.chars().rev();
    let consonant_y = end.next() == Some('y') && !matches!(end.next(), Some('a' | 'e' | 'i' | 'o' | 'u'));
    let hisses = ["s", "x", "z", "ch", "sh"].iter().any(|e| noun.ends_with(e));
    let o = ["tomato", "potato"].iter().any(|e| noun.ends_with(e));
    match (consonant_y, hisses || o) {
        (true, _) => format!("{}ies", &noun[..noun.len() - 1]),
        (_, true) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// How one thing stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// The first stands on top of the second.
    On,
    /// The same, told from below: the second "with" the first "on top".
    Carrying,
    /// The first stands to the left (−X) of the second, both on the ground.
    NextTo,
    /// The same in another word.
    Beside,
}

impl Relation {
    /// `first` and `second` are captions with their articles.
    pub(super) fn caption(self, first: &str, second: &str) -> String {
        match self {
            Self::On => format!("{first} on {second}"),
            Self::Carrying => format!("{second} with {first} on top"),
            Self::NextTo => format!("{first} next to {second}"),
            Self::Beside => format!("{first} beside {second}"),
        }
    }

    /// True if the first stands on the second.
    pub(super) fn stacked(self) -> bool {
        matches!(self, Self::On | Self::Carrying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_follow_the_sound_and_plurals_take_none() {
        assert_eq!(with_article("blue jay", false), "a blue jay");
        assert_eq!(with_article("unicorn", false), "a unicorn");
        assert_eq!(with_article("umbrella", false), "an umbrella");
        assert_eq!(with_article("hourglass", false), "an hourglass");
        assert_eq!(with_article("house", false), "a house");
        assert_eq!(described(Some("orange"), "cat", false), "an orange cat");
        assert_eq!(described(Some("golden"), "macarons", true), "golden macarons");
        assert_eq!(Relation::On.caption("a blue jay", "macarons"), "a blue jay on macarons");
        assert_eq!(Relation::Carrying.caption("a blue jay", "macarons"), "macarons with a blue jay on top");
    }

    #[test]
    fn plurals() {
        let pairs = [
            ("apple", "apples"),
            ("cherry", "cherries"),
            ("blue jay", "blue jays"),
            ("toy", "toys"),
            ("box", "boxes"),
            ("torch", "torches"),
            ("snowman", "snowmen"),
            ("mouse", "mice"),
            ("tomato", "tomatoes"),
            ("piano", "pianos"),
            ("bookshelf", "bookshelves"),
            ("glass", "glasses"),
        ];
        for (one, many) in pairs {
            assert_eq!(plural(one), many);
        }
    }
}
