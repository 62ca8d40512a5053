//! From slices to candle's tape: a [`Layer`] computes on plain slices, [`apply`] records it.
//!
//! candle asks a custom op for the gradients of all its arguments. Which of them are wanted is known
//! when the op is built (`Tensor::track_op` is true for variables and for results that depend on one),
//! so it is kept with the op, and frozen weights and constant inputs cost nothing.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor,
};

use super::real::Real;

/// A contiguous argument.
pub(crate) struct Arg<'a, T> {
    /// The elements, row-major.
    pub(crate) data: &'a [T],
    /// The shape.
    pub(crate) dims: &'a [usize],
}

/// An operation with one result, given on slices.
pub(crate) trait Layer: Send + Sync + 'static {
    /// For error messages.
    const NAME: &'static str;
    /// The result and its shape.
    fn forward<T: Real>(&self, args: &[Arg<T>]) -> Result<(Vec<T>, Vec<usize>)>;
    /// The gradient of each argument with `needs[i]`, given the result and its gradient.
    fn backward<T: Real>(
        &self,
        args: &[Arg<T>],
        out: &[T],
        grad: &[T],
        needs: &[bool],
    ) -> Result<Vec<Option<Vec<T>>>>;
}

struct Node<L> {
    layer: L,
    needs: Vec<bool>,
}

/// True when the CPU kernels can take these tensors (all f32 or all f64, on the CPU).
pub(crate) fn on_cpu(args: &[&Tensor]) -> bool {
    let dtype = args[0].dtype();
    matches!(dtype, DType::F32 | DType::F64)
        && args.iter().all(|t| t.dtype() == dtype && matches!(t.device(), Device::Cpu))
}

/// Runs `layer` on one to three tensors and records it on the tape.
pub(crate) fn apply<L: Layer>(layer: L, args: &[&Tensor]) -> Result<Tensor> {
    super::memory::keep_freed_blocks();
    let needs = args.iter().map(|t| t.track_op()).collect();
    let node = Node { layer, needs };
    match args {
        [a] => a.contiguous()?.apply_op1(node),
        [a, b] => a.contiguous()?.apply_op2(&b.contiguous()?, node),
        [a, b, c] => a.contiguous()?.apply_op3(&b.contiguous()?, &c.contiguous()?, node),
        _ => candle_core::bail!("{}: {} arguments", L::NAME, args.len()),
    }
}

/// The elements of a contiguous tensor in CPU storage.
fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => candle_core::bail!("a kernel got a tensor that is not contiguous"),
    }
}

impl<L: Layer> Node<L> {
    fn fwd(&self, args: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        match args[0].0 {
            CpuStorage::F32(_) => self.fwd_as::<f32>(args),
            CpuStorage::F64(_) => self.fwd_as::<f64>(args),
            _ => candle_core::bail!("{}: only f32 and f64 on the CPU", L::NAME),
        }
    }

    fn fwd_as<T: Real>(&self, args: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let args = args
            .iter()
            .map(|(s, l)| Ok(Arg { data: slice::<T>(s, l)?, dims: l.dims() }))
            .collect::<Result<Vec<_>>>()?;
        let (out, dims) = self.layer.forward(&args)?;
        Ok((T::to_cpu_storage_owned(out), Shape::from(dims)))
    }

    fn bwd(&self, args: &[&Tensor], out: &Tensor, grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        match out.dtype() {
            DType::F32 => self.bwd_as::<f32>(args, out, grad),
            _ => self.bwd_as::<f64>(args, out, grad),
        }
    }

    fn bwd_as<T: Real>(&self, args: &[&Tensor], out: &Tensor, grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let grad = grad.contiguous()?;
        let all: Vec<&Tensor> = args.iter().copied().chain([out, &grad]).collect();
        let guards: Vec<_> = all.iter().map(|t| t.storage_and_layout()).collect();
        let slices = guards
            .iter()
            .map(|(s, l)| match &**s {
                candle_core::Storage::Cpu(s) => slice::<T>(s, l),
                _ => candle_core::bail!("{}: a gradient left the CPU", L::NAME),
            })
            .collect::<Result<Vec<_>>>()?;
        let n = args.len();
        let views: Vec<Arg<T>> = (0..n).map(|i| Arg { data: slices[i], dims: args[i].dims() }).collect();
        let grads = self.layer.backward(&views, slices[n], slices[n + 1], &self.needs)?;
        // Layers may compute cheap gradients that nobody wants: they stop here.
        let wanted = grads.into_iter().zip(&self.needs).map(|(g, &needed)| g.filter(|_| needed));
        wanted
            .zip(args)
            .map(|(g, a)| g.map(|g| Tensor::from_vec(g, a.shape(), a.device())).transpose())
            .collect()
    }
}

impl<L: Layer> CustomOp1 for Node<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }
    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        self.fwd(&[(s, l)])
    }
    fn bwd(&self, arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Node::bwd(self, &[arg], res, grad)?.remove(0))
    }
}

impl<L: Layer> CustomOp2 for Node<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
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

impl<L: Layer> CustomOp3 for Node<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
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
