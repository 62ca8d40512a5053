use super::*;
use crate::prior::Prior;
use crate::sample::NoisePredictor;
use image::{GrayImage, Luma, Rgb};

fn mini() -> Prior {
    Prior::load("mini", &Device::Cpu).unwrap()
}

fn painting(count: u32) -> Painting {
    let camera = |i: u32| Camera::orbit(90.0 * i as f32, 15.0, 2.4, glam::Vec3::ZERO, 0.7, 64);
    Painting {
        prompt: "a pumpkin".into(),
        negative_prompt: String::new(),
        size: (64, 64),
        count,
        sampler: "dpm-solver++".into(),
        steps: 3,
        guidance: Guidance::scale(2.0),
        seed: 4,
        cameras: (0..count).map(camera).collect(),
        start: None,
        clip_skip: 0,
    }
}

fn run(prior: &Prior, what: &Painting) -> Vec<RgbImage> {
    paint(prior, what, &[], &mut |_, _| Ok(())).unwrap()
}

fn distance(a: &RgbImage, b: &RgbImage) -> f64 {
    let sum: f64 = a.iter().zip(b.iter()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / a.len() as f64
}

#[test]
fn a_picture_depends_on_the_seed_and_not_on_its_company() {
    let prior = mini();
    let (two, one) = (run(&prior, &painting(2)), run(&prior, &painting(1)));
    assert_eq!(two[0], one[0]);
    assert_ne!(two[0], two[1]);
    assert_ne!(run(&prior, &Painting { seed: 5, ..painting(1) })[0], one[0]);
    let steps = std::cell::RefCell::new(Vec::new());
    let stopped = paint(&prior, &painting(1), &[], &mut |step, of| {
        steps.borrow_mut().push((step, of));
        if step == 2 { Err(Error::Interrupted) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert_eq!(*steps.borrow(), [(1, 3), (2, 3)]);
}

#[test]
fn the_less_strength_the_more_of_the_picture_stays() {
    let prior = mini();
    let picture = RgbImage::from_fn(64, 64, |x, y| Rgb([(4 * x) as u8, (4 * y) as u8, 99]));
    let with = |strength| {
        let start = Start { picture: picture.clone(), strength, mask: None };
        let what = Painting { steps: 10, start: Some(start), ..painting(1) };
        distance(&run(&prior, &what)[0], &picture)
    };
    let distances = [with(0.1), with(0.5), with(1.0)];
    // The first of ten steps undone leaves little more than what the VAE loses.
    let reconstruction = {
        let x: Vec<f32> = (0..3 * 64 * 64)
            .map(|i| f32::from(picture.as_raw()[i % 4096 * 3 + i / 4096]) / 127.5 - 1.0)
            .collect();
        let x = Tensor::from_vec(x, (1, 3, 64, 64), &Device::Cpu).unwrap();
        let y = prior.vae.decode(&prior.vae.encode_mean(&x).unwrap()).unwrap();
        distance(&pictures(&y).unwrap()[0], &picture)
    };
    assert!(distances.is_sorted(), "{distances:?}");
    assert!(distances[0] < reconstruction + 10.0 && distances[2] > distances[0] + 10.0, "{distances:?}");
}

#[test]
fn inpainting_leaves_what_is_not_masked() {
    let prior = mini();
    let picture = RgbImage::from_fn(64, 64, |x, _| Rgb([if x % 8 < 4 { 250 } else { 5 }, 30, 30]));
    let mask = GrayImage::from_fn(64, 64, |x, _| Luma([if x < 32 { 255 } else { 0 }]));
    let start = Start { picture: picture.clone(), strength: 1.0, mask: Some(mask) };
    let new = &run(&prior, &Painting { start: Some(start), ..painting(1) })[0];
    let changed = |range: std::ops::Range<u32>| {
        range
            .flat_map(|x| (0..64).map(move |y| (x, y)))
            .any(|(x, y)| new.get_pixel(x, y) != picture.get_pixel(x, y))
    };
    assert!(changed(0..30) && !changed(34..64));
}

#[test]
fn the_known_part_of_latents_comes_out_exactly_with_any_sampler() {
    use crate::prior::schedule::{Config, Schedule};
    struct Zero;
    impl NoisePredictor for Zero {
        fn predict(&self, x: &Tensor, _: &[f32]) -> Result<Tensor> {
            Ok(x.zeros_like()?)
        }
    }
    let schedule = Schedule::new(Config { set_alpha_to_one: true, ..Config::default() }).unwrap();
    let z0 = Tensor::new(&[[[[0.3f64, -2.0], [1.5, 0.1]]]], &Device::Cpu).unwrap();
    let keep = Tensor::new(&[[[[1f64, 0.0], [1.0, 0.0]]]], &Device::Cpu).unwrap();
    let filled = start::Inpainting { predictor: &Zero, schedule: &schedule, z0: &z0, keep: &keep };
    let x = Tensor::new(&[[[[1f64, 1.0], [1.0, 1.0]]]], &Device::Cpu).unwrap();
    for name in ["ddim", "ddpm", "dpm-solver++", "unipc"] {
        let (sampler, path) = sampler::by_name(name, &schedule, 10).unwrap();
        let y = sampler.sample(&filled, &x, &path, 0, &mut |_| Ok(())).unwrap();
        let off = ((y - &z0).unwrap() * &keep).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f64>().unwrap() < 1e-9, "{name}");
    }
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let prior = mini();
    let start = |strength| Some(Start { picture: RgbImage::new(2, 2), strength, mask: None });
    let bad = [
        Painting { size: (65, 64), ..painting(1) },
        Painting { size: (0, 64), ..painting(1) },
        Painting { count: 0, ..painting(0) },
        Painting { cameras: Vec::new(), ..painting(1) },
        Painting { steps: 0, ..painting(1) },
        Painting { sampler: "magic".into(), ..painting(1) },
        Painting { start: start(1.5), ..painting(1) },
        Painting { guidance: Guidance::scale(f64::NAN), ..painting(1) },
    ];
    for what in bad {
        let error = paint(&prior, &what, &[], &mut |_, _| Ok(())).unwrap_err();
        assert!(error.is_usage(), "{what:?}: {error}");
    }
}

#[test]
fn the_settings_travel_in_the_picture() {
    let picture = RgbImage::from_pixel(3, 2, Rgb([1, 2, 3]));
    let bytes = png_with_text(&picture, &[("gen3d", "{\"prompt\": \"ein Häher\"}")]).unwrap();
    assert_eq!(image::load_from_memory(&bytes).unwrap().to_rgb8(), picture);
    let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
    let text = &reader.info().utf8_text[0];
    assert_eq!(
        (text.keyword.as_str(), text.get_text().unwrap().as_str()),
        ("gen3d", "{\"prompt\": \"ein Häher\"}")
    );
    assert!(png_with_text(&picture, &[("", "x")]).is_err());
}
