//! Colours at points against the f64 reference: values, and gradients by parameters and by the points.

use glam::DVec3;

use super::reference::field;
use super::rough;
use crate::field::DensityActivation;
use crate::rng::{Rng, Stream};

#[test]
fn colors_and_their_gradients_by_points_and_parameters() {
    let mut renderer = rough(DensityActivation::Softplus);
    let (state, config) = (renderer.state().unwrap(), renderer.field_config().clone());
    let wide = |name: &str| state[name].iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let mut params = ["field.grid", "field.mlp", "background.mlp"].map(wide);
    let rng = Rng::new(4, Stream::Probe, 9);
    let n = 50;
    // Not a multiple of the lanes; the last ones lie beyond the box.
    let points: Vec<f32> =
        (0..3 * n).map(|i| rng.range(i as u64, -0.95, 0.95) * if i < 3 * 46 { 1.0 } else { 1.8 }).collect();
    let weights: Vec<f32> = (0..3 * n).map(|i| rng.range(500 + i as u64, -1.0, 1.0)).collect();
    let loss = |points: &[f64], params: &super::reference::Params| -> f64 {
        let color = |p: &[f64]| field(&config, params, DVec3::from_slice(p)).1.to_array();
        points.chunks(3).flat_map(color).zip(&weights).map(|(c, w)| c * f64::from(*w)).sum()
    };
    let colors = renderer.colors(&points, 0).unwrap();
    let mut at: Vec<f64> = points.iter().map(|&x| f64::from(x)).collect();
    for (i, c) in colors.iter().enumerate() {
        let want = field(&config, &params, DVec3::from_slice(&at[i / 3 * 3..])).1[i % 3];
        assert!((want - f64::from(*c)).abs() < 2e-6, "{i}: {want} {c}");
    }
    let by_points = renderer.colors_backward(&weights).unwrap();
    let largest = by_points.iter().fold(0f32, |m, g| m.max(g.abs()));
    assert!(largest > 0.1, "{largest}");
    for (i, g) in by_points.iter().enumerate() {
        // A hundredth of the shortest way to a cell's border that a point of these has.
        let (kept, h) = (at[i], 1e-7);
        at[i] = kept + h;
        let above = loss(&at, &params);
        at[i] = kept - h;
        let want = (above - loss(&at, &params)) / (2.0 * h);
        at[i] = kept;
        assert!((want - f64::from(*g)).abs() < 5e-5 * f64::from(largest), "{i}: {want} {g}");
    }
    assert!(by_points[3 * 46..].iter().zip(&points[3 * 46..]).any(|(g, x)| x.abs() > 1.0 && *g == 0.0));
    let gradient = renderer.gradient().unwrap();
    for (group, found) in gradient.iter().enumerate().take(2) {
        let scale = found.iter().fold(0f32, |m, g| m.max(g.abs()));
        assert!(scale > 1e-3, "group {group} gets no gradient");
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by(|&a, &b| found[b].abs().total_cmp(&found[a].abs()));
        for i in order.into_iter().take(200).step_by(10) {
            let (kept, h) = (params[group][i], 1e-6);
            params[group][i] = kept + h;
            let above = loss(&at, &params);
            params[group][i] = kept - h;
            let want = (above - loss(&at, &params)) / (2.0 * h);
            params[group][i] = kept;
            let error = (want - f64::from(found[i])).abs();
            assert!(error < 1e-4 * f64::from(scale), "{group} {i}: {want} {}", found[i]);
        }
    }
    assert!(renderer.colors_backward(&weights).is_err(), "used up");
    assert!(renderer.colors(&[], 0).unwrap().is_empty() && renderer.colors_backward(&[]).unwrap().is_empty());
}
