use super::*;
use crate::video::interpolate::IfNetConfig;

fn props() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props")
}

fn small() -> InterpolateTraining {
    InterpolateTraining {
        sequences: 6,
        size: 32,
        crop: 32,
        net: IfNetConfig { channels: vec![12, 8], depth: 1, from_flow: false },
        steps: 4,
        batch: 4,
        parts: 2,
        ..InterpolateTraining::default()
    }
}

fn rendered(count: usize, size: usize) -> Sequences {
    let cast = Cast::of(&props(), Split::Train, 5).unwrap();
    cast.sequences((0, count), size, 3, |_| Ok(())).unwrap()
}

#[test]
fn scenes_move_and_are_a_function_of_their_number() {
    let cast = Cast::of(&props(), Split::Train, 5).unwrap();
    let all = cast.sequences((0, 6), 32, 3, |_| Ok(())).unwrap();
    let alone = cast.sequences((4, 1), 32, 3, |_| Ok(())).unwrap();
    let [a, b] = [all.whole(4, 5).unwrap(), alone.whole(0, 1).unwrap()].map(|t| t.middle);
    assert_eq!((a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    let Triples { ends: [first, last], .. } = all.whole(0, 6).unwrap();
    let moved = (first - last).unwrap().abs().unwrap().mean((1, 2, 3)).unwrap().to_vec1::<f32>().unwrap();
    assert!(moved.iter().filter(|m| **m > 0.005).count() >= 4, "{moved:?}");
}

#[test]
fn the_loss_is_differentiated_exactly_through_the_network() {
    // One weight of each kind against central differences. The network is f32: the step is large, and the
    // tolerance what rounding leaves of it.
    let config = small();
    let store = Store::fresh(5, &Device::Cpu);
    let net = IfNet::fresh(config.net.clone(), &store).unwrap();
    for (name, var) in store.vars() {
        if name.ends_with("lastconv.weight") {
            var.set(&(var.as_tensor() * 100.0).unwrap()).unwrap();
        }
    }
    let batch = rendered(2, 32).batch(1, 0, 2, 32).unwrap();
    let value = || f64::from(loss(&net, &batch, 0.5).unwrap().to_scalar::<f32>().unwrap());
    let grads = loss(&net, &batch, 0.5).unwrap().backward().unwrap();
    for (name, var) in store.vars() {
        let gradient = grads.get(&var).unwrap_or_else(|| panic!("{name} has no gradient")).clone();
        let old = var.as_tensor().copy().unwrap();
        // Along its own gradient, where the change is largest.
        let norm = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        assert!(norm > 0.0, "{name}");
        let step = 2e-3 / f64::from(norm);
        let at = |sign: f64| {
            var.set(&(&old + (&gradient * (sign * step)).unwrap()).unwrap()).unwrap();
            value()
        };
        let (up, down) = (at(1.0), at(-1.0));
        var.set(&old).unwrap();
        let (numeric, exact) = ((up - down) / 4e-3, f64::from(norm));
        assert!((numeric - exact).abs() < 0.03 * exact + 2e-4, "{name}: {numeric} {exact}");
    }
}

#[test]
fn a_few_steps_learn_and_a_run_goes_on_where_it_was() {
    let run = |dir: &Path, steps: &[u32]| {
        let places = Places { props: props(), clips: None, run: dir.join("run"), out: dir.join("out") };
        for steps in steps {
            let config = InterpolateTraining { steps: *steps, warmup: 0, ..small() };
            // The schedule depends on the number of steps: only what it says of the first ones is compared.
            train(&config, &places, &mut |_, _, _, _| {}).unwrap();
        }
        std::fs::read(dir.join("out/model.safetensors")).unwrap()
    };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(run(one.path(), &[3]), run(two.path(), &[3]), "the same bytes each time");
    let log = std::fs::read_to_string(one.path().join("run/metrics.jsonl")).unwrap();
    assert!(log.contains("\"held out\"") && log.contains("psnr_of_average"), "{log}");
    run(two.path(), &[4]);
    assert_ne!(
        std::fs::read(one.path().join("out/model.safetensors")).unwrap(),
        std::fs::read(two.path().join("out/model.safetensors")).unwrap()
    );
    // Many steps on one batch: the loss falls well below that of the average of the frames.
    let config = small();
    let (data, (net, mut adam)) = (rendered(4, 32), fresh(&config).unwrap());
    let first = gradients(&config, &net, &data, 0).unwrap().0;
    for _ in 0..60 {
        let (_, grads) = gradients(&config, &net, &data, 0).unwrap();
        adam.step_sum(&grads.iter().collect::<Vec<_>>(), 3e-3).unwrap();
    }
    let last = gradients(&config, &net, &data, 0).unwrap().0;
    assert!(last < 0.85 * first, "{first} {last}");
}

#[test]
fn bad_settings_are_named() {
    let bad = InterpolateTraining { crop: 33, ..InterpolateTraining::default() };
    assert!(bad.check().unwrap_err().to_string().contains("crop"));
    let none = sequences::check(&Sequences::new(8)).unwrap_err();
    assert!(none.is_usage() && none.hint_text().is_some());
    InterpolateTraining::default().check().unwrap();
}
