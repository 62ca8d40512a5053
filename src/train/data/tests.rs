//! Tests of the data engine.

use super::split::Split;
use super::*;

fn dataset(seed: u64) -> Dataset {
    let props = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
    let config = DataConfig { image_size: 16, supersample: 1, ..DataConfig::default() };
    Dataset::open(None, &props, config, seed).unwrap()
}

#[test]
fn a_sample_is_a_pure_function_of_seed_and_index() {
    let (a, b, other) = (dataset(1), dataset(1), dataset(2));
    let mut same = 0;
    for i in (0..20).rev() {
        let (x, y, z) = (a.sample(i).unwrap(), b.sample(i).unwrap(), other.sample(i).unwrap());
        assert_eq!((&x.rgb, &x.caption, x.camera), (&y.rgb, &y.caption, y.camera));
        same += usize::from(x.rgb == z.rgb);
    }
    assert_eq!(same, 0, "another seed gives other pictures");
}

#[test]
fn favourites_are_drawn_more_often_and_must_be_known() {
    let props = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
    let open = |favourites: &[&str]| {
        let favourites = favourites.iter().map(|f| (*f).to_owned()).collect();
        let config = DataConfig {
            image_size: 8,
            supersample: 1,
            recipes: 1.0,
            scenes: 0.0,
            favourites,
            favourite_weight: 30.0,
            ..DataConfig::default()
        };
        Dataset::open(None, &props, config, 1)
    };
    let count =
        |data: &Dataset| (0..100).filter(|i| data.sample(*i).unwrap().caption.contains("apple")).count();
    let (plain, often) = (count(&open(&[]).unwrap()), count(&open(&["apple"]).unwrap()));
    assert!(plain <= 8 && often >= 15, "{plain} {often}");
    assert!(open(&["zebra"]).err().unwrap().to_string().contains("zebra"));
}

#[test]
fn pictures_show_something_and_heroes_are_frequent() {
    let data = dataset(3);
    let samples: Vec<Sample> = (0..300).map(|i| data.sample(i).unwrap()).collect();
    for s in &samples {
        let first = s.rgb[0];
        assert!(s.rgb.iter().all(|v| v.is_finite() && v.abs() <= 1.0));
        assert!(s.rgb.iter().any(|v| (v - first).abs() > 0.05), "empty picture of {}", s.caption);
    }
    let share = |text: &str| samples.iter().filter(|s| s.caption.contains(text)).count();
    assert!(share("blue jay on macarons") >= 10 && share("macarons") >= 20, "{}", share("macarons"));
    let words = data.words().seen;
    assert!(["blue", "jay", "macarons", "on", "beside"].iter().all(|w| words.contains(*w)));
}

#[test]
fn no_training_sample_shows_what_is_held_out() {
    let props = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
    let open = |split| {
        let config = DataConfig { image_size: 8, supersample: 1, split, ..DataConfig::default() };
        Dataset::open(None, &props, config, 5).unwrap()
    };
    let plans = |data: &Dataset, n: u64| -> Vec<Plan> {
        (0..n)
            .flat_map(|index| (0..3).map(move |attempt| (index, attempt)))
            .map(|(index, attempt)| {
                let rng = Rng::new(data.seed, Stream::Data, u32::MAX - attempt);
                let draw = Draw { rng, base: index * DRAWS };
                Planner { data, draw: &draw }.plan()
            })
            .filter(|p| data.config.split.admits(&p.compositions(data)))
            .collect()
    };
    let looks = |plan: &Plan| match plan {
        Plan::Model(_) => vec![],
        Plan::Single(t) => vec![t.look],
        Plan::Several { looks, .. } => looks.clone(),
        Plan::Scene { first, second, third, .. } => {
            [Some(first), Some(second), third.as_ref()].into_iter().flatten().map(|t| t.look).collect()
        }
    };
    let (train, held) = (open(Split::Train), open(Split::Compositions));
    let (trained, unseen) = (plans(&train, 2000), plans(&held, 2000));
    let of = |data: &Dataset, plans: &[Plan]| -> BTreeSet<String> {
        plans.iter().flat_map(|p| p.compositions(data)).collect()
    };
    let (seen, fresh) = (of(&train, &trained), of(&held, &unseen));
    assert!(seen.len() > 500 && unseen.len() > 50, "{} {}", seen.len(), unseen.len());
    assert!(seen.iter().all(|c| !split::is_held_out(c)));
    for plan in &unseen {
        assert!(plan.compositions(&held).iter().any(|c| !seen.contains(c)), "{}", plan.caption(&held));
    }
    // Every kind of composition is tried.
    for kind in ["on: ", "next to: ", "two ", "golden ", "red "] {
        assert!(fresh.iter().any(|c| c.starts_with(kind) && split::is_held_out(c)), "{kind}");
    }
    assert!(trained.iter().flat_map(looks).all(|l| l < split::LOOKS));
    assert!(unseen.iter().flat_map(looks).all(|l| l >= split::LOOKS));
    // The main example must be learned.
    assert!(!split::is_held_out("on: blue jay, macarons"));
}

#[test]
fn a_synonym_is_no_other_recipes_name() {
    // Or a caption would name another composition than the split was asked for.
    let data = dataset(1);
    let nouns: BTreeSet<&str> = data.props.iter().map(Prop::noun).collect();
    for prop in &data.props {
        let other = prop.recipe.names().iter().find(|n| *n != prop.noun() && nouns.contains(n.as_str()));
        assert_eq!(other, None, "of {}", prop.noun());
    }
}

#[test]
fn captions_name_their_compositions() {
    let data = dataset(4);
    let (mut read, mut kinds) = (0, BTreeSet::new());
    for index in 0..4000 {
        let draw = Draw { rng: Rng::new(9, Stream::Data, 0), base: index * DRAWS };
        let plan = Planner { data: &data, draw: &draw }.plan();
        let caption = plan.caption(&data);
        // Synonyms ("a jay") name no recipe's first noun, and nouns that two recipes share have two sets
        // of natural words.
        let Some(mut found) = data.compositions_of(&caption) else { continue };
        let mut expected = plan.compositions(&data);
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{caption}");
        read += 1;
        kinds.extend(expected.iter().filter_map(|c| c.split(' ').next().map(str::to_owned)));
    }
    assert!(read > 2000, "{read}");
    assert!(["on:", "next", "two", "three", "golden", "red"].iter().all(|k| kinds.contains(*k)));
    assert_eq!(data.compositions_of("a zebra on macarons"), None);
    assert_eq!(data.compositions_of("an owl"), Some(vec![]));
}

#[test]
fn fronts_are_those_of_the_first_thing() {
    let data = dataset(6);
    let samples: Vec<Sample> = (0..200).map(|i| data.sample(i).unwrap()).collect();
    for (caption, fronted) in [("a blue jay on macarons", true), ("macarons", false)] {
        let same: Vec<_> = samples.iter().filter(|s| s.caption == caption).collect();
        assert!(!same.is_empty() && same.iter().all(|s| s.fronted == fronted), "{caption}");
    }
}

#[test]
fn captions_are_read_back() {
    let data = dataset(7);
    let (mut single, mut several, mut scenes) = (0, 0, 0);
    for i in 0..300 {
        let draw = Draw { rng: Rng::new(7, Stream::Data, u32::MAX), base: i * DRAWS };
        let plan = Planner { data: &data, draw: &draw }.plan();
        let caption = plan.caption(&data);
        // Further names ("a wooden barrel" is any barrel) are not read.
        let Some(read) = data.plan_of(&caption) else { continue };
        assert_eq!(read.caption(&data), caption);
        assert_eq!(read.compositions(&data), plan.compositions(&data), "{caption}");
        let kind = match (&plan, &read) {
            (Plan::Single(_), Plan::Single(_)) => &mut single,
            (Plan::Several { looks: a, .. }, Plan::Several { looks: b, .. }) if a.len() == b.len() => {
                &mut several
            }
            (Plan::Scene { third: a, .. }, Plan::Scene { third: b, .. }) if a.is_some() == b.is_some() => {
                &mut scenes
            }
            _ => panic!("{caption} was read as another kind of picture"),
        };
        *kind += 1;
    }
    assert!(single > 100 && several > 8 && scenes > 30, "{single} {several} {scenes}");
    for text in ["a thing", "an owl beside", "five owls", "a golden thing", "an owl with a hat", ""] {
        assert!(data.plan_of(text).is_none(), "{text:?}");
    }
}

#[test]
fn the_answer_to_a_caption_is_one_asset_of_its_things() {
    let data = dataset(7);
    let of = |caption: &str| data.asset_of(caption).unwrap().unwrap();
    let [owl, golden, three] = ["an owl", "a golden owl", "three owls"].map(of);
    assert_eq!(golden.triangle_count(), owl.triangle_count());
    assert!(golden.materials.iter().all(|m| m.metallic > 0.5) && owl.materials[0].metallic < 0.5);
    assert!(three.meshes.len() == 3 * owl.meshes.len() && three.materials.len() == 3 * owl.materials.len());
    let stacked = of("an owl on a crate");
    let tops = |a: &crate::asset::Asset| {
        let n = a.meshes.len() - owl.meshes.len();
        let top = |m: &[crate::asset::Mesh]| {
            m.iter().flat_map(|m| &m.positions).map(|p| p.y).fold(f32::MIN, f32::max)
        };
        (top(&a.meshes[..owl.meshes.len()]), top(&a.meshes[a.meshes.len() - n..]))
    };
    let (head, lid) = tops(&stacked);
    assert!(head > lid, "the owl stands on the crate: {head} {lid}");
    assert!(data.asset_of("a theory").unwrap().is_none());
}
