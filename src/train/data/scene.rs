//! From a plan to things in their places, and to one asset.

use std::sync::Arc;

use glam::Mat4;

use super::caption::Relation;
use super::plan::{Plan, Thing};
use super::prop::Prop;
use super::{Dataset, Draw, compose};
use crate::asset::Asset;
use crate::error::Result;
use crate::render::raster::{Instance, PreparedAsset};
use crate::rng::{Rng, Stream};

/// Things in their places, before the whole is turned, centred and scaled.
pub(super) struct Scene {
    /// In the order of [`Plan::things`].
    pub(super) parts: Vec<(Arc<PreparedAsset>, Mat4)>,
    /// Degrees by which the whole is turned about the vertical axis.
    pub(super) yaw: f32,
}

impl Scene {
    fn one(asset: PreparedAsset, yaw: f32) -> Self {
        Self { parts: vec![(Arc::new(asset), Mat4::IDENTITY)], yaw }
    }

    /// What the rasteriser draws.
    pub(super) fn instances(&self) -> Vec<Instance<'_>> {
        self.parts.iter().map(|(asset, place)| Instance::new(asset, *place)).collect()
    }
}

impl Dataset {
    /// What `plan` shows; `None` if a corpus model cannot be read.
    pub(super) fn scene(&self, plan: &Plan, draw: &Draw) -> Result<Option<Scene>> {
        let turn = |prop: &Prop| if prop.recipe.has_front() { 0.0 } else { draw.uniform(8) * 360.0 };
        Ok(Some(match plan {
            Plan::Model(i) => {
                let entry = &self.entries[*i];
                let Ok(asset) = crate::asset::load(&entry.path) else { return Ok(None) };
                let yaw = if entry.has_front { 0.0 } else { draw.uniform(8) * 360.0 };
                Scene::one(PreparedAsset::with_texture_limit(&asset, 128), yaw)
            }
            Plan::Single(thing) => {
                let yaw = turn(&self.props[thing.prop]);
                Scene { parts: vec![(self.prepared(thing)?, Mat4::IDENTITY)], yaw }
            }
            Plan::Several { prop, looks } => {
                let prop = &self.props[*prop];
                let assets = looks.iter().map(|l| prop.prepared(*l, None)).collect::<Result<Vec<_>>>()?;
                let yaws = (0..4).map(|i| turn(prop) + 40.0 * (draw.uniform(80 + i) - 0.5));
                let places = compose::arrange(&assets, &yaws.collect::<Vec<_>>());
                Scene { parts: assets.into_iter().zip(places).collect(), yaw: 0.0 }
            }
            Plan::Scene { first, relation, second, third, heroes } => {
                let share = match relation {
                    // The hero is what the picture is about.
                    _ if *heroes => 0.95 + 0.3 * draw.uniform(24),
                    Relation::On | Relation::Carrying => 0.75 + 0.35 * draw.uniform(24),
                    Relation::NextTo | Relation::Beside => 0.8 + 0.4 * draw.uniform(24),
                };
                let third = third.as_ref().map(|third| (third, 0.6 + 0.3 * draw.uniform(29)));
                self.composed([first, second], *relation, share, third)?
            }
        }))
    }

    /// Two things, the first `share` times the second's size, and perhaps a third on their right.
    fn composed(
        &self,
        [first, second]: [&Thing; 2],
        relation: Relation,
        share: f32,
        third: Option<(&Thing, f32)>,
    ) -> Result<Scene> {
        let settle = self.props[first.prop].recipe.settle();
        let pair = [self.prepared(first)?, self.prepared(second)?];
        let places = compose::place(&pair[0], &pair[1], relation, share, settle);
        let mut scene = Scene { parts: pair.into_iter().zip(places).collect(), yaw: 0.0 };
        if let Some((third, share)) = third {
            let third = self.prepared(third)?;
            let place = compose::right_of(&third, &scene.instances(), share);
            scene.parts.push((third, place));
        }
        Ok(scene)
    }

    fn prepared(&self, thing: &Thing) -> Result<Arc<PreparedAsset>> {
        self.props[thing.prop].prepared(thing.look, thing.edit)
    }

    /// The recipes' own answer to a caption, as one asset: what training pictures of it show. `None` if
    /// the caption is not of this engine's making.
    ///
    /// # Errors
    /// If a recipe cannot be built.
    pub fn asset_of(&self, caption: &str) -> Result<Option<Asset>> {
        let Some(plan) = self.plan_of(caption) else { return Ok(None) };
        let draw = Draw { rng: Rng::new(self.seed, Stream::Data, 0), base: 0 };
        let Some(scene) = self.scene(&plan, &draw)? else { return Ok(None) };
        let mut whole = Asset::default();
        for ((prop, look, edit), (_, place)) in plan.things().into_iter().zip(&scene.parts) {
            whole.append(self.props[prop].build(look, edit)?, *place);
        }
        Ok(Some(whole))
    }
}
