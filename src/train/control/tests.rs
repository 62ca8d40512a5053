use super::*;
use crate::train::pictures::Pictures;

fn pictures(depth: bool) -> Pictures {
    let props = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
    let config = DataConfig { image_size: 64, supersample: 1, ..DataConfig::default() };
    let data = Dataset::open(None, &props, config, 3).unwrap();
    Pictures::draw(&data, Wanted { first: 0, count: 8, size: 64, depth }, |_| Ok(())).unwrap()
}

#[test]
fn hints_are_planes_of_edges_or_depth() {
    let pictures = pictures(true);
    for kind in [Kind::Edges, Kind::Depth] {
        let hints = Hints::of(&pictures, kind);
        let batch = hints.batch(&[5, 1], &Device::Cpu).unwrap();
        assert_eq!(batch.dims(), [2, 3, 64, 64]);
        let planes = batch.to_vec3_of_rows();
        for (plane, i) in planes.iter().zip([5, 1]) {
            let ink = plane.iter().filter(|v| **v > 0.0).count();
            assert!((60..3600).contains(&ink), "{kind:?} {i}: {ink}");
            let of_depth = &pictures.depth[i * 4096..(i + 1) * 4096];
            let seen = of_depth.iter().filter(|d| **d > 0).count();
            // Edges are lines, depth fills what is seen.
            assert_eq!(kind == Kind::Depth, ink == seen, "{kind:?} {ink} {seen}");
        }
    }
}

trait Planes {
    fn to_vec3_of_rows(&self) -> Vec<Vec<f32>>;
}

impl Planes for Tensor {
    fn to_vec3_of_rows(&self) -> Vec<Vec<f32>> {
        self.narrow(1, 0, 1).unwrap().flatten_from(1).unwrap().to_vec2().unwrap()
    }
}

/// Beside a fresh `ControlNet` the prior answers as if alone; a few steps lower the loss of their own batch
/// below that of the prior alone; and what is written steers as what was trained.
#[test]
fn a_fresh_net_is_silent_and_learns() {
    let prior = Prior::load("mini", &Device::Cpu).unwrap();
    let pictures = pictures(false);
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run { dir: dir.path().into(), device: Device::Cpu, progress: &mut |_, _, _, _| {} };
    let values =
        crate::train::vae::encode_all(&|x| prior.vae.encode_mean(x), &pictures, 8, &mut run).unwrap();
    let config = ControlTraining { batch: 4, parts: 1, caption_dropout: 1.0, ..ControlTraining::default() };
    let hints = Hints::of(&pictures, Kind::Edges);
    let latents = Latents { values, rays: None, pictures };
    let networks = Networks { config: &config, prior: &prior, latents, hints, contexts: Mutex::default() };
    let (net, mut adam) = networks.new_control(&Folder::named("mini").unwrap()).unwrap();
    let batch = networks.batch(0).unwrap();
    let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let [alone, beside] = [None, Some(&net)].map(|net| flat(networks.predicted(net, &batch).unwrap()));
    assert_eq!(alone, beside);
    let loss = |net: &ControlNet| networks.gradients(net, 0, 1).unwrap();
    let (before, _) = loss(&net);
    for _ in 0..8 {
        let (_, gradients) = loss(&net);
        adam.step_sum(&gradients.iter().collect::<Vec<_>>(), 1e-3).unwrap();
    }
    let (after, _) = loss(&net);
    assert!(after < 0.97 * before, "{before} {after}");
    let trained = flat(networks.predicted(Some(&net), &batch).unwrap());
    publish(dir.path(), &net.config, &adam).unwrap();
    let folder = Folder::Disk(dir.path().into());
    let read = crate::prior::network(&folder, ".", &Device::Cpu, ControlNet::new).unwrap();
    let steered = flat(networks.predicted(Some(&read), &batch).unwrap());
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    // The file has the average over the steps: on the way from the start to the end.
    assert!(off(&steered, &trained) < off(&alone, &trained) && off(&steered, &alone) > 0.0);
}

#[test]
fn bad_settings_are_named() {
    let bad = ControlTraining { caption_dropout: 1.5, ..ControlTraining::default() };
    assert!(bad.check().unwrap_err().to_string().contains("caption_dropout"));
    assert!(toml::from_str::<ControlTraining>("kind = \"poses\"").is_err());
    assert_eq!(toml::from_str::<ControlTraining>("kind = \"depth\"").unwrap().kind, Kind::Depth);
}
