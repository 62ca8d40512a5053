//! What `--method` may name: a loss, or a published system (its loss and its settings).

use super::layers::Layer;
use super::nearest;
use crate::{Error, Result};

/// The losses, as `method` in a scene names them.
pub const LOSSES: [&str; 6] = ["sds", "sjc", "vsd", "csd", "nfsd", "ism"];

macro_rules! system {
    ($name:literal) => {
        ($name, include_str!(concat!("../../scenes/methods/", $name, ".toml")))
    };
}

/// Systems: scaled to the embedded prior, and with the numbers of the originals.
pub const SYSTEMS: [(&str, &str); 14] = [
    system!("dreamfusion"),
    system!("dreamfusion-original"),
    system!("sjc"),
    system!("sjc-original"),
    system!("prolificdreamer"),
    system!("prolificdreamer-original"),
    system!("hifa"),
    system!("luciddreamer"),
    system!("latent-nerf"),
    system!("latent-paint"),
    system!("magic3d"),
    system!("magic3d-original"),
    system!("fantasia3d"),
    system!("fantasia3d-original"),
];

/// The layer that `--method NAME` stands for; a system's whole, or of a run that goes on (which has all
/// its settings already) its loss alone.
///
/// # Errors
/// [`Error::Invalid`] for a name that is neither loss nor system; the hint lists them.
pub fn layer(name: &str, resumed: bool) -> Result<Layer> {
    let origin = format!("--method {name}");
    if let Some((_, text)) = SYSTEMS.iter().find(|(n, _)| *n == name) {
        let whole = Layer::parse(text, &origin)?;
        return Ok(if resumed { whole.only("method") } else { whole });
    }
    if LOSSES.contains(&name) {
        return Ok(Layer::one(&origin, "method", name));
    }
    let error = Error::invalid("--method", format!("there is no method `{name}`"));
    let names = LOSSES.into_iter().chain(SYSTEMS.iter().map(|(n, _)| *n));
    Err(match nearest(name, names) {
        Some(near) => error.hint(format!("did you mean `{near}`? {}", list())),
        None => error.hint(list()),
    })
}

fn list() -> String {
    let systems: Vec<&str> = SYSTEMS.iter().map(|(n, _)| *n).collect();
    format!("losses: {}; systems: {}", LOSSES.join(", "), systems.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Method, RefineStart, layers};

    #[test]
    fn every_method_resolves_over_the_defaults_and_losses_are_those_of_the_configuration() {
        for name in LOSSES {
            let config = layers::resolve(&[layer(name, false).unwrap()]).unwrap();
            assert_eq!(config.to_toml().unwrap().matches(&format!("method = \"{name}\"")).count(), 1);
        }
        for (name, _) in SYSTEMS {
            let config = layers::resolve(&[layer(name, false).unwrap()]).unwrap();
            assert!(config != Config::default(), "{name}");
            // Going on takes the loss alone.
            let on = layers::resolve(&[layer(name, true).unwrap()]).unwrap();
            assert_eq!(on, Config { method: config.method, ..Config::default() }, "{name}");
        }
        let dreamfusion = layers::resolve(&[layer("dreamfusion", false).unwrap()]).unwrap();
        let r = &dreamfusion.regularize;
        assert_eq!(dreamfusion.method, Method::Sds);
        // A hundredth at the start, the whole from half way on.
        assert!((r.at(0.0).orientation / r.orientation - 0.01).abs() < 1e-12);
        assert!((r.at(0.25).orientation / r.orientation - 0.505).abs() < 1e-12);
        assert_eq!(r.at(0.5).orientation, r.orientation);
        let prolific = layers::resolve(&[layer("prolificdreamer-original", false).unwrap()]).unwrap();
        assert_eq!((prolific.method, prolific.regularize.at(0.39).opaque), (Method::Vsd, 0.0));
        assert_eq!(prolific.regularize.at(0.4).opaque, 1000.0);
    }

    #[test]
    fn second_stages_are_those_of_their_systems() {
        let of = |name| layers::resolve(&[layer(name, false).unwrap()]).unwrap();
        let [magic, fantasia] = ["magic3d-original", "fantasia3d-original"].map(of);
        assert_eq!((magic.optim.steps, magic.refine.steps, magic.refine.size), (10_000, 5000, 512));
        assert_eq!((fantasia.optim.steps, fantasia.refine.start), (0, RefineStart::Ball));
        // The field, its shape by normals, its colours: 25,000, 15,000 and 30,000 steps.
        let prolific = of("prolificdreamer-original");
        let shape = prolific.refine.normals_until * f64::from(prolific.refine.steps);
        assert_eq!((prolific.optim.steps, prolific.refine.steps, shape.round()), (25_000, 45_000, 15_000.0));
        assert!(prolific.refine.freeze && prolific.method == Method::Vsd);
        // 1000 of 10,000 steps of geometry by latents; 5000 of appearance.
        let at = |share: f64| (share * f64::from(fantasia.refine.steps)).round();
        assert_eq!(
            (at(fantasia.refine.latents_until), at(fantasia.refine.normals_until)),
            (1000.0, 10_000.0)
        );
    }

    #[test]
    fn what_is_not_there_says_what_there_is() {
        let e = layer("dreamfuson", false).unwrap_err();
        assert!(e.hint_text().unwrap().starts_with("did you mean `dreamfusion`? losses: sds, sjc, vsd"));
    }
}
