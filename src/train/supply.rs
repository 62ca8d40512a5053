//! The pictures that a denoiser's training sees: all from the start, or more and more of them while it goes on,
//! drawn by the CPU beside a GPU that trains.
//!
//! How many a step sees is decided by the step alone, so that the run is the same however fast they are drawn.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, RwLock, RwLockReadGuard};

use super::batch::Latents;
use super::data::Dataset;
use super::pictures::{Pictures, Wanted};
use super::run::STOP;
use crate::error::{Error, Result};

/// Steps of a training, by which share of them all pictures are there.
const GROWN_AT: f64 = 0.8;

/// How the pictures become more.
#[derive(Clone, Copy)]
pub(super) struct Growth {
    /// Pictures that are there from the start, and that come at a time.
    pub(super) first: usize,
    /// Pictures in the end.
    pub(super) total: usize,
    /// Steps of the training.
    pub(super) steps: u32,
}

impl Growth {
    /// Pictures that `step` sees.
    pub(super) fn at(&self, step: u32) -> usize {
        if self.first == 0 || self.first >= self.total {
            return self.total;
        }
        let parts = self.total.div_ceil(self.first);
        let done = f64::from(step) / (GROWN_AT * f64::from(self.steps)).max(1.0);
        self.first.saturating_mul(1 + (done * (parts - 1) as f64) as usize).min(self.total)
    }
}

/// What turns pictures into latents, and adds them to others.
pub(super) type Add<'a> = dyn Fn(&mut Latents, Pictures) -> Result<()> + Sync + 'a;

/// See the module's text.
pub(super) struct Supply<'a> {
    growth: Growth,
    latents: RwLock<Latents>,
    rest: Option<(Mutex<Receiver<Result<Pictures>>>, &'a Add<'a>)>,
}

impl<'a> Supply<'a> {
    /// All at once.
    pub(super) fn whole(latents: Latents) -> Self {
        let total = latents.pictures.len();
        Self { growth: Growth { first: 0, total, steps: 0 }, latents: RwLock::new(latents), rest: None }
    }

    /// What comes through `rest` is added by `add`.
    pub(super) fn growing(
        growth: Growth,
        latents: Latents,
        rest: Receiver<Result<Pictures>>,
        add: &'a Add<'a>,
    ) -> Self {
        Self { growth, latents: RwLock::new(latents), rest: Some((Mutex::new(rest), add)) }
    }

    /// Waits until everything is there that `step` sees.
    ///
    /// # Errors
    /// If it could not be drawn.
    pub(super) fn wait(&self, step: u32) -> Result<()> {
        let Some((rest, add)) = &self.rest else { return Ok(()) };
        let wanted = self.growth.at(step);
        while self.latents().pictures.len() < wanted {
            let next = rest.lock().expect("no panic while held").recv();
            let next = next.map_err(|_| Error::Failed("the pictures stopped coming".into()))??;
            add(&mut self.latents.write().expect("no panic while held"), next)?;
        }
        Ok(())
    }

    /// Pictures that `step` sees.
    pub(super) fn count(&self, step: u32) -> usize {
        self.growth.at(step)
    }

    /// What is there.
    pub(super) fn latents(&self) -> RwLockReadGuard<'_, Latents> {
        self.latents.read().expect("no panic while held")
    }
}

/// Draws the pictures after the first `growth.first`, part by part, until all are drawn or nobody takes them.
pub(super) fn draw_rest(data: &Dataset, size: usize, growth: Growth, to: &SyncSender<Result<Pictures>>) {
    let threads = rayon::current_num_threads().saturating_sub(2).max(1);
    let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(threads).build() else { return };
    for first in (growth.first..growth.total).step_by(growth.first.max(1)) {
        let wanted = Wanted { first, count: growth.first.min(growth.total - first), size, depth: false };
        let watched = |_| {
            if STOP.load(std::sync::atomic::Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
        };
        let part = pool.install(|| Pictures::draw(data, wanted, watched));
        let failed = part.is_err();
        if to.send(part).is_err() || failed {
            return;
        }
    }
}

/// A channel that holds one part ready.
pub(super) fn channel() -> (SyncSender<Result<Pictures>>, Receiver<Result<Pictures>>) {
    sync_channel(1)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::train::data::DataConfig;

    fn data() -> Dataset {
        let props = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenes/props");
        let small = DataConfig { image_size: 16, supersample: 1, ..DataConfig::default() };
        Dataset::open(None, &props, small, 1).unwrap()
    }

    /// What came in parts is what would have been drawn at once, when a step asks for it and not before.
    #[test]
    fn parts_are_the_whole() {
        let data = data();
        let draw = |first, count| {
            Pictures::draw(&data, Wanted { first, count, size: 16, depth: false }, |_| Ok(())).unwrap()
        };
        let growth = Growth { first: 9, total: 23, steps: 10 };
        let values = |n: usize| Tensor::zeros((n, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let add = |latents: &mut Latents, more: Pictures| {
            latents.values = Tensor::cat(&[&latents.values, &values(more.len())], 0)?;
            latents.pictures.append(more);
            Ok(())
        };
        let (to, rest) = channel();
        let start = Latents { values: values(9), rays: None, pictures: draw(0, 9) };
        let supply = Supply::growing(growth, start, rest, &add);
        std::thread::scope(|scope| {
            scope.spawn(|| draw_rest(&data, 16, growth, &to));
            for step in 0..10 {
                supply.wait(step).unwrap();
                let there = supply.latents().pictures.len();
                assert!(there >= supply.count(step) && supply.count(step) == growth.at(step), "{step}");
            }
        });
        let (whole, latents) = (draw(0, 23), supply.latents());
        let parts = &latents.pictures;
        assert_eq!((parts.len(), latents.values.dim(0).unwrap()), (23, 23));
        assert_eq!(
            (&parts.bytes, &parts.cameras, &parts.fronted),
            (&whole.bytes, &whole.cameras, &whole.fronted)
        );
        assert!((0..23).all(|i| parts.caption(i) == whole.caption(i)));
        assert_eq!(parts.captions, whole.captions);
    }

    /// A part that could not be drawn ends the training with its reason.
    #[test]
    fn failures_come_out() {
        let add = |_: &mut Latents, _: Pictures| Ok(());
        let none =
            || Pictures::draw(&data(), Wanted { first: 0, count: 1, size: 16, depth: false }, |_| Ok(()));
        let values = Tensor::zeros((1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let start = || Latents { values: values.clone(), rays: None, pictures: none().unwrap() };
        let growth = Growth { first: 1, total: 3, steps: 1 };
        let (to, rest) = channel();
        to.send(Err(Error::Failed("no such recipe".into()))).unwrap();
        let error = Supply::growing(growth, start(), rest, &add).wait(1).unwrap_err();
        assert!(error.to_string().contains("no such recipe"));
        let (to, rest) = channel();
        drop(to);
        let error = Supply::growing(growth, start(), rest, &add).wait(1).unwrap_err();
        assert!(error.to_string().contains("stopped coming"));
    }

    #[test]
    fn a_step_sees_what_it_should() {
        let growth = Growth { first: 100, total: 450, steps: 1000 };
        assert_eq!(
            [0, 199, 200, 400, 799, 800, 999].map(|s| growth.at(s)),
            [100, 100, 200, 300, 400, 450, 450]
        );
        assert_eq!(Growth { first: 0, ..growth }.at(0), 450);
        assert_eq!(Growth { first: 450, ..growth }.at(0), 450);
    }
}
