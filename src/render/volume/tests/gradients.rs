//! The kernels against the f64 reference: values, and gradients by central differences.

use glam::Vec3;

use super::super::{Background, RenderGrad, RenderOutput, VolumeRenderer};
use super::reference::{Channel, Params, Scene};
use super::{cameras, options, rough};
use crate::field::DensityActivation;
use crate::rng::{Rng, Stream};

const COLORS: [Vec3; 2] = [Vec3::new(0.9, 0.8, 0.7), Vec3::new(0.1, 0.5, 0.2)];

fn params(renderer: &VolumeRenderer) -> Params {
    let state = renderer.state().unwrap();
    ["field.grid", "field.mlp", "background.mlp"].map(|n| state[n].iter().map(|&x| f64::from(x)).collect())
}

fn channel(output: &RenderOutput, channel: Channel) -> &[f32] {
    match channel {
        Channel::Rgb => &output.rgb,
        Channel::Opacity => &output.opacity,
        Channel::Depth => &output.depth,
        Channel::ZVariance => &output.z_variance,
        Channel::Normal => output.normal.as_deref().unwrap(),
        Channel::Orientation => output.orientation.as_deref().unwrap(),
    }
}

fn grad_of(channel: Channel, values: &[f32]) -> RenderGrad<'_> {
    let mut grad = RenderGrad::default();
    let slot = match channel {
        Channel::Rgb => &mut grad.rgb,
        Channel::Opacity => &mut grad.opacity,
        Channel::Depth => &mut grad.depth,
        Channel::ZVariance => &mut grad.z_variance,
        Channel::Normal => &mut grad.normal,
        Channel::Orientation => &mut grad.orientation,
    };
    *slot = Some(values);
    grad
}

/// Values and gradients of one channel; `groups` are those that must receive a gradient.
fn check(activation: DensityActivation, background: Background<'_>, tested: Channel, groups: &[usize]) {
    let mut renderer = rough(activation);
    let normals = matches!(tested, Channel::Normal | Channel::Orientation);
    let output = renderer.render(&cameras(2, 5), background, options(3, normals)).unwrap();
    let scene = Scene::of(&renderer);
    let mut params = params(&renderer);
    let want = scene.render(&params, tested);
    let got = channel(&output, tested);
    assert_eq!(want.len(), got.len());
    assert!(want.iter().any(|x| x.abs() > 1e-3), "{tested:?}: nothing to see");
    for (want, got) in want.iter().zip(got) {
        // f32 against f64 through a sum of some tens of samples; normals divide by 4ε = 0.04.
        let tolerance = if normals { 5e-4 } else { 2e-5 };
        assert!((want - f64::from(*got)).abs() < tolerance, "{tested:?}: {want} {got}");
    }

    let rng = Rng::new(1, Stream::Probe, 1);
    let loss_grad: Vec<f32> = (0..got.len() as u64).map(|i| rng.range(i, -1.0, 1.0)).collect();
    renderer.backward(&grad_of(tested, &loss_grad)).unwrap();
    let gradient = renderer.gradient().unwrap();
    let loss = |params: &Params| -> f64 {
        scene.render(params, tested).iter().zip(&loss_grad).map(|(x, g)| x * f64::from(*g)).sum()
    };
    let table = renderer.field_config().table();
    assert_eq!(table.iter().map(|l| l.hashed).collect::<Vec<_>>(), [0, 0, 1, 1]);
    for group in 0..3 {
        // Each level of the grid and each matrix on its own.
        let parts: Vec<std::ops::Range<usize>> = match group {
            0 => table.iter().map(|l| 2 * l.offset as usize..2 * (l.offset + l.entries) as usize).collect(),
            1 => vec![0..16 * 8, 16 * 8..16 * 8 + 64],
            _ => vec![0..16 * 9, 16 * 9..16 * 12],
        };
        for part in parts {
            let grads = &gradient[group][part.clone()];
            let scale = grads.iter().fold(0f32, |a, g| a.max(g.abs()));
            if !groups.contains(&group) {
                assert_eq!(scale, 0.0, "{tested:?}: group {group} must not get a gradient");
                continue;
            }
            assert!(scale > 1e-6, "{tested:?}: group {group} {part:?} gets no gradient");
            // The strongest parameters and some arbitrary ones.
            let mut order: Vec<usize> = (0..grads.len()).collect();
            order.sort_by(|&a, &b| grads[b].abs().total_cmp(&grads[a].abs()));
            order.truncate(4);
            order.extend((0..4).map(|i| rng.below(100 + i, grads.len() as u32) as usize));
            for i in order {
                let (at, h) = (part.start + i, 1e-6);
                let kept = params[group][at];
                params[group][at] = kept + h;
                let above = loss(&params);
                params[group][at] = kept - h;
                let below = loss(&params);
                params[group][at] = kept;
                let want = (above - below) / (2.0 * h);
                let error = (want - f64::from(grads[i])).abs();
                // f32 sums over samples against f64; the differences themselves are good to 1e-8.
                let tolerance = if normals { 3e-3 } else { 2e-4 } * f64::from(scale);
                assert!(error < tolerance, "{tested:?} {group} {part:?} {i}: {want} {} ({scale})", grads[i]);
            }
        }
    }
}

#[test]
fn gradient_through_rgb() {
    check(DensityActivation::Softplus, Background::Solid(&COLORS), Channel::Rgb, &[0, 1]);
}

#[test]
fn gradient_through_rgb_with_an_exponential_density() {
    check(DensityActivation::TruncExp, Background::Solid(&COLORS), Channel::Rgb, &[0, 1]);
}

#[test]
fn gradient_through_rgb_and_a_background_network() {
    check(DensityActivation::Softplus, Background::Mlp, Channel::Rgb, &[0, 1, 2]);
}

#[test]
fn gradient_through_opacity() {
    check(DensityActivation::Softplus, Background::Solid(&COLORS), Channel::Opacity, &[0, 1]);
}

#[test]
fn gradient_through_depth() {
    check(DensityActivation::Softplus, Background::Solid(&COLORS), Channel::Depth, &[0, 1]);
}

#[test]
fn gradient_through_z_variance() {
    check(DensityActivation::Softplus, Background::Solid(&COLORS), Channel::ZVariance, &[0, 1]);
}

#[test]
fn gradient_through_normals() {
    check(DensityActivation::Softplus, Background::Solid(&COLORS), Channel::Normal, &[0, 1]);
}

#[test]
fn gradient_through_orientation() {
    check(DensityActivation::TruncExp, Background::Solid(&COLORS), Channel::Orientation, &[0, 1]);
}

#[test]
fn a_gradient_that_is_not_finite_is_refused() {
    let mut renderer = rough(DensityActivation::Softplus);
    let mut go = |grad: RenderGrad<'_>| {
        renderer.render(&cameras(2, 5), Background::Solid(&COLORS), options(3, false)).unwrap();
        renderer.backward(&grad).unwrap_err().to_string()
    };
    let mut grad = vec![0.0; 2 * 25 * 3];
    grad[31] = f32::NAN;
    assert!(go(grad_of(Channel::Rgb, &grad)).contains("rgb is not finite at pixel 10"));
    assert!(go(grad_of(Channel::Rgb, &grad[..30])).contains("30 numbers"));
    assert!(go(grad_of(Channel::Normal, &[0.0; 150])).contains("normals"));
    assert!(renderer.backward(&RenderGrad::default()).is_err(), "the pass is used up");
}

#[test]
fn gradient_of_a_loss_on_densities_at_points() {
    for activation in [DensityActivation::Softplus, DensityActivation::TruncExp] {
        let mut renderer = rough(activation);
        let rng = Rng::new(2, Stream::Probe, 7);
        let at = |i: u64| {
            Vec3::new(
                rng.range(3 * i, -0.9, 0.9),
                rng.range(3 * i + 1, -0.9, 0.9),
                rng.range(3 * i + 2, -0.9, 0.9),
            )
        };
        let points: Vec<Vec3> = (0..70).map(at).collect();
        let weights: Vec<f32> = (0..70).map(|i| rng.range(1000 + i, -1.0, 1.0)).collect();
        renderer.render(&cameras(1, 2), Background::Solid(&COLORS[..1]), options(3, false)).unwrap();
        let scene = Scene::of(&renderer);
        let mut told = Vec::new();
        renderer
            .density_backward(&points, |density| {
                told = density.to_vec();
                weights.clone()
            })
            .unwrap();
        let mut params = params(&renderer);
        let densities = |params: &Params| -> Vec<f64> {
            points.iter().map(|p| scene.density(params, p.as_dvec3())).collect()
        };
        for (want, got) in densities(&params).iter().zip(&told) {
            assert!((want - f64::from(*got)).abs() < 1e-4 * (1.0 + want.abs()), "{want} {got}");
        }
        let loss = |params: &Params| -> f64 {
            densities(params).iter().zip(&weights).map(|(d, w)| d * f64::from(*w)).sum()
        };
        let gradient = renderer.gradient().unwrap();
        assert!(gradient[2].iter().all(|g| *g == 0.0), "the background has no density");
        for group in 0..2 {
            let scale = gradient[group].iter().fold(0f32, |a, g| a.max(g.abs()));
            let mut order: Vec<usize> = (0..gradient[group].len()).collect();
            order.sort_by(|&a, &b| gradient[group][b].abs().total_cmp(&gradient[group][a].abs()));
            order.truncate(8);
            for i in order {
                let (kept, h) = (params[group][i], 1e-6);
                params[group][i] = kept + h;
                let above = loss(&params);
                params[group][i] = kept - h;
                let below = loss(&params);
                params[group][i] = kept;
                let want = (above - below) / (2.0 * h);
                let error = (want - f64::from(gradient[group][i])).abs();
                assert!(
                    error < 2e-4 * f64::from(scale),
                    "{activation:?} {group} {i}: {want} {}",
                    gradient[group][i]
                );
            }
        }
        assert!(renderer.density_backward(&points, |_| vec![0.0]).is_err());
        let nan = renderer.density_backward(&points, |d| vec![f32::NAN; d.len()]).unwrap_err();
        assert!(nan.is_not_finite());
    }
}
