//! From device memory to candle's tape, as [`super::super::tape`] for the CPU.

use candle_core::cuda_backend::CudaStorage;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::{Arg, Data, Gpu, device_of};

/// An operation with one result, given on device memory.
pub(super) trait GpuLayer: Send + Sync + 'static {
    /// For error messages.
    const NAME: &'static str;
    /// The result and its shape.
    fn forward(&self, gpu: Gpu<'_>, args: &[Arg<'_>]) -> Result<(Data, Vec<usize>)>;
    /// The gradient of each argument with `needs[i]`, given the result and its gradient.
    fn backward(
        &self,
        gpu: Gpu<'_>,
        args: &[Arg<'_>],
        out: &Arg<'_>,
        grad: &Arg<'_>,
        needs: &[bool],
    ) -> Result<Vec<Option<Data>>>;
}

struct Node<L> {
    layer: L,
    needs: Vec<bool>,
}

/// Runs `layer` on one to three tensors and records it on the tape.
pub(super) fn apply<L: GpuLayer>(layer: L, args: &[&Tensor]) -> Result<Tensor> {
    let needs = args.iter().map(|t| t.track_op()).collect();
    let node = Node { layer, needs };
    match args {
        [a] => a.contiguous()?.apply_op1(node),
        [a, b] => a.contiguous()?.apply_op2(&b.contiguous()?, node),
        [a, b, c] => a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, node),
        _ => bail!("{}: {} arguments", L::NAME, args.len()),
    }
}

/// The elements of a contiguous tensor.
pub(super) fn arg<'a>(storage: &'a CudaStorage, layout: &'a Layout) -> Result<Arg<'a>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a kernel got a tensor that is not contiguous")
    };
    Ok(Arg { data: storage.as_cuda_slice::<f32>()?.slice(start..end), dims: layout.dims() })
}

/// A tensor of what a kernel wrote.
fn tensor(data: Data, dims: &[usize], gpu: Gpu<'_>) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(data, gpu.0.clone());
    Tensor::from_storage(Storage::Cuda(storage), Shape::from(dims), BackpropOp::none(), false)
}

impl<L: GpuLayer> Node<L> {
    fn fwd(&self, args: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        let device = device_of(args[0].0);
        let args = args.iter().map(|(s, l)| arg(s, l)).collect::<Result<Vec<_>>>()?;
        let (out, dims) = self.layer.forward(Gpu(device), &args)?;
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from(dims)))
    }

    fn bwd(&self, args: &[&Tensor], out: &Tensor, grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let grad = grad.contiguous()?;
        let all: Vec<&Tensor> = args.iter().copied().chain([out, &grad]).collect();
        let guards: Vec<_> = all.iter().map(|t| t.storage_and_layout()).collect();
        let storages = guards
            .iter()
            .map(|(s, _)| match &**s {
                Storage::Cuda(s) => Ok(s),
                _ => bail!("{}: a gradient left the GPU", L::NAME),
            })
            .collect::<Result<Vec<_>>>()?;
        let views = storages.iter().zip(&guards).map(|(s, (_, l))| arg(s, l)).collect::<Result<Vec<_>>>()?;
        let (gpu, n) = (Gpu(device_of(storages[0])), args.len());
        let grads = self.layer.backward(gpu, &views[..n], &views[n], &views[n + 1], &self.needs)?;
        let wanted = grads.into_iter().zip(&self.needs).map(|(g, &needed)| g.filter(|_| needed));
        Ok(wanted.zip(args).map(|(g, a)| g.map(|g| tensor(g, a.dims(), gpu))).collect())
    }
}

impl<L: GpuLayer> CustomOp1 for Node<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: a GPU's layer on the CPU", L::NAME)
    }
    fn cuda_fwd(&self, s: &CudaStorage, l: &Layout) -> Result<(CudaStorage, Shape)> {
        self.fwd(&[(s, l)])
    }
    fn bwd(&self, arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Node::bwd(self, &[arg], res, grad)?.remove(0))
    }
}

impl<L: GpuLayer> CustomOp2 for Node<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: a GPU's layer on the CPU", L::NAME)
    }
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.fwd(&[(s1, l1), (s2, l2)])
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut g = Node::bwd(self, &[a, b], res, grad)?.into_iter();
        Ok((g.next().flatten(), g.next().flatten()))
    }
}

impl<L: GpuLayer> CustomOp3 for Node<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("{}: a GPU's layer on the CPU", L::NAME)
    }
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.fwd(&[(s1, l1), (s2, l2), (s3, l3)])
    }
    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut g = Node::bwd(self, &[a, b, c], res, grad)?.into_iter();
        Ok((g.next().flatten(), g.next().flatten(), g.next().flatten()))
    }
}
