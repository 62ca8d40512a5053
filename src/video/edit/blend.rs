//! The source's attention maps inside the edit's (FateZero, Qi et al. 2023; prompt-to-prompt).
//!
//! FateZero stores all maps of the inversion, 100 GB for eight frames. Here the source is evaluated once
//! more beside the edit, from its inverted latents of the same step, so that maps live for one window.

use std::collections::HashMap;
use std::sync::Mutex;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::attention::lock;
use super::grid;
use crate::Result;
use crate::prior::unet::attention::{Call, Site};

/// How long and where the source's maps are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlendConfig {
    /// Share of the steps in which cross-attention to words that both prompts have is the source's.
    pub cross_until: f64,
    /// Share of the steps in which self-attention outside the mask is the source's.
    pub self_until: f64,
    /// Attentions over more pixels than this are left alone: the maps' memory grows with the square.
    pub most_tokens: usize,
}

impl Default for BlendConfig {
    fn default() -> Self {
        Self { cross_until: 0.8, self_until: 0.8, most_tokens: 1024 }
    }
}

/// Maps by place and first row.
pub(super) type Maps = HashMap<(String, usize), Tensor>;

/// What is done with the maps of one evaluation.
pub(super) enum Role {
    /// They are kept for the edit.
    Take,
    /// The kept ones are used.
    Give,
}

/// Maps of the source in one window at one step.
pub(super) struct Blend<'a> {
    pub(super) maps: &'a Mutex<Maps>,
    pub(super) role: Role,
    pub(super) cross: bool,
    pub(super) own: bool,
    pub(super) most_tokens: usize,
    /// For each token of the target, the one of the source.
    pub(super) alignment: &'a [Option<usize>],
    /// `[W, 1, h, w]`, 1 where the edit's self-attention stays; nowhere if absent.
    pub(super) mask: Option<&'a Tensor>,
}

impl Blend<'_> {
    /// Cross-attention: the source's columns for common words.
    pub(super) fn cross(&self, site: &Site, call: &Call<'_>) -> Result<Tensor> {
        let (_, n, _) = call.q.dims3()?;
        if !self.cross || n > self.most_tokens {
            return call.attend();
        }
        let mut maps = lock(self.maps);
        let key = (site.name.clone(), 0);
        match self.role {
            Role::Take => {
                maps.insert(key, call.maps()?);
                call.attend()
            }
            Role::Give => match maps.remove(&key) {
                Some(source) => call.with_maps(&self.columns(&source, &call.maps()?)?),
                None => call.attend(),
            },
        }
    }

    /// Columns of `source` for aligned tokens, of `edited` for others.
    fn columns(&self, source: &Tensor, edited: &Tensor) -> Result<Tensor> {
        let length = edited.dim(3)?;
        let at = |j: usize| self.alignment.get(j).copied().flatten().filter(|i| *i < length);
        let index: Vec<u32> = (0..length).map(|j| at(j).unwrap_or(0) as u32).collect();
        let keep: Vec<f32> = (0..length).map(|j| f32::from(u8::from(at(j).is_some()))).collect();
        let index = Tensor::from_vec(index, length, edited.device())?;
        let keep = Tensor::from_vec(keep, (1, 1, 1, length), edited.device())?.to_dtype(edited.dtype())?;
        mix(&keep.affine(-1.0, 1.0)?, edited, &source.contiguous()?.index_select(&index, 3)?)
    }

    /// Self-attention of `count` frames from `row` on: M·A_edit + (1−M)·A_source.
    pub(super) fn frames(
        &self,
        site: &Site,
        call: &Call<'_>,
        (row, count): (usize, usize),
    ) -> Result<Tensor> {
        let (b, rows, _) = call.q.dims3()?;
        let n = b * rows / count;
        if !self.own || n > self.most_tokens {
            return call.attend();
        }
        let mut maps = lock(self.maps);
        let key = (site.name.clone(), row);
        match self.role {
            Role::Take => {
                maps.insert(key, call.maps()?);
                call.attend()
            }
            Role::Give => {
                let Some(source) = maps.remove(&key) else { return call.attend() };
                let Some(mask) = self.mask else { return call.with_maps(&source) };
                let (_, _, h, w) = mask.dims4()?;
                let mask = grid::resize(&mask.narrow(0, row, count)?, grid::level(n, (h, w))?)?;
                let mask = mask.contiguous()?.reshape((b, 1, rows, 1))?.to_dtype(source.dtype())?;
                call.with_maps(&mix(&mask, &call.maps()?, &source)?)
            }
        }
    }
}

/// `weight`·a + (1 − `weight`)·b.
fn mix(weight: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok((a.broadcast_mul(weight)? + b.broadcast_mul(&weight.affine(-1.0, 1.0)?)?)?)
}
