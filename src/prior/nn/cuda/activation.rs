//! Pointwise nonlinearities.

use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{Result, Tensor};

use super::super::activation::Curve;
use super::tape::{GpuLayer, apply};
use super::{Arg, Data, Gpu, each};

/// See [`super::super::silu`] and its like.
pub(in crate::prior::nn) fn pointwise(curve: Curve, x: &Tensor) -> Result<Tensor> {
    apply(curve, &[x])
}

/// As the kernel numbers them.
fn number(curve: Curve) -> i32 {
    match curve {
        Curve::Silu => 0,
        Curve::Gelu => 1,
        Curve::QuickGelu => 2,
    }
}

/// See [`super::super::geglu`].
pub(in crate::prior::nn) fn geglu(x: &Tensor) -> Result<Tensor> {
    apply(Geglu, &[x])
}

impl GpuLayer for Curve {
    const NAME: &'static str = "activation";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let x = &args[0];
        let mut y = gpu.empty(x.len())?;
        let (count, curve) = (x.len() as u32, number(*self));
        launch!(gpu, "activation", each(x.len()), [&x.data, &mut y, &count, &curve]);
        Ok((y, x.dims.to_vec()))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        _: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let x = &args[0];
        let mut gx = gpu.empty(x.len())?;
        let (count, curve) = (x.len() as u32, number(*self));
        launch!(gpu, "activation_slope", each(x.len()), [&x.data, &grad.data, &mut gx, &count, &curve]);
        Ok(vec![Some(gx)])
    }
}

struct Geglu;

impl GpuLayer for Geglu {
    const NAME: &'static str = "geglu";

    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)> {
        let x = &args[0];
        let mut dims = x.dims.to_vec();
        let width = dims.last().map_or(1, |n| n / 2);
        if let Some(last) = dims.last_mut() {
            *last = width;
        }
        let n = x.len() / 2;
        let mut y = gpu.empty(n)?;
        let (count, width) = (n as u32, width as u32);
        launch!(gpu, "geglu", each(n), [&x.data, &mut y, &count, &width]);
        Ok((y, dims))
    }

    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        _: &Arg<'_>,
        grad: &Arg<'_>,
        _: &[bool],
    ) -> Result<Vec<Option<Data>>> {
        let x = &args[0];
        let mut gx = gpu.empty(x.len())?;
        let (count, width) = (grad.len() as u32, grad.dims.last().map_or(1, |&n| n as u32));
        launch!(gpu, "geglu_slope", each(grad.len()), [&x.data, &grad.data, &mut gx, &count, &width]);
        Ok(vec![Some(gx)])
    }
}
