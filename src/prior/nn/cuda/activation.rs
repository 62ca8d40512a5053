//! Pointwise nonlinearities.

use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{Error, Result, Tensor};

use super::tape::{GpuLayer, apply};
use super::{Arg, Data, Gpu, each};

/// Numbered as the kernel does.
#[derive(Clone, Copy)]
pub(in crate::prior::nn) enum Curve {
    Silu = 0,
    Gelu = 1,
    QuickGelu = 2,
}

pub(in crate::prior::nn) fn pointwise(curve: Curve, x: &Tensor) -> Result<Tensor> {
    apply(curve, &[x])
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
        let (count, curve) = (x.len() as u32, *self as i32);
        let kernel = gpu.kernel("activation")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(&mut y).arg(&count).arg(&curve);
        // SAFETY: the kernel's arguments, and memory of the sizes it is told.
        unsafe { launch.launch(each(x.len())) }.map_err(Error::wrap)?;
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
        let (count, curve) = (x.len() as u32, *self as i32);
        let kernel = gpu.kernel("activation_slope")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(&grad.data).arg(&mut gx).arg(&count).arg(&curve);
        // SAFETY: as above.
        unsafe { launch.launch(each(x.len())) }.map_err(Error::wrap)?;
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
        let kernel = gpu.kernel("geglu")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(&mut y).arg(&count).arg(&width);
        // SAFETY: as above.
        unsafe { launch.launch(each(n)) }.map_err(Error::wrap)?;
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
        let kernel = gpu.kernel("geglu_slope")?;
        let mut launch = kernel.builder();
        launch.arg(&x.data).arg(&grad.data).arg(&mut gx).arg(&count).arg(&width);
        // SAFETY: as above.
        unsafe { launch.launch(each(grad.len())) }.map_err(Error::wrap)?;
        Ok(vec![Some(gx)])
    }
}
