//! Compute pipelines from assembled shaders.

use std::sync::LazyLock;

use super::device::Gpu;
use super::shader::{Assembled, BindingKind, Checked, Sources};
use crate::{Error, Result};

/// The shader files as they were when the crate was built (and validated then).
pub fn sources() -> &'static Sources {
    static SOURCES: LazyLock<Sources> = LazyLock::new(|| {
        let files: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
        Sources::new(files.iter().copied())
    });
    &SOURCES
}

/// A compute pipeline with an explicit layout taken from the shader's declarations.
pub(super) struct Pipeline {
    pub(super) label: String,
    pub(super) workgroup_size: usize,
    pub(super) pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl Pipeline {
    /// Compiles `shader`.
    pub(super) fn new(gpu: &Gpu, shader: &Assembled) -> Result<Self> {
        let checked = shader.check().map_err(|e| Error::Gpu(e.to_string()))?;
        let label = Some(checked.label.as_str());
        let device = &gpu.device;
        let (layout, pipeline) = gpu.scoped(&checked.label, || {
            let entries: Vec<_> = entries(&checked).collect();
            let layout = device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label,
                source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(&checked.entry_point),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every kernel writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            (layout, pipeline)
        })?;
        let workgroup_size = checked.workgroup_size.iter().product::<u32>() as usize;
        Ok(Self { label: checked.label, workgroup_size, pipeline, layout })
    }

    /// A bind group of a range of `params` at binding 0 and whole `buffers` from binding 1 on.
    pub(super) fn bind(
        &self,
        device: &wgpu::Device,
        params: &wgpu::Buffer,
        (offset, size): (u64, u64),
        buffers: &[&wgpu::Buffer],
    ) -> wgpu::BindGroup {
        let size = std::num::NonZeroU64::new(size);
        let params = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: params, offset, size });
        let rest = buffers.iter().map(|b| b.as_entire_binding());
        let entries: Vec<_> = std::iter::once(params)
            .chain(rest)
            .zip(0..)
            .map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&self.label),
            layout: &self.layout,
            entries: &entries,
        })
    }
}

fn entries(checked: &Checked) -> impl Iterator<Item = wgpu::BindGroupLayoutEntry> {
    checked.bindings.iter().map(|binding| wgpu::BindGroupLayoutEntry {
        binding: binding.index,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: match binding.kind {
                BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
                BindingKind::Read => wgpu::BufferBindingType::Storage { read_only: true },
                BindingKind::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
            },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    })
}
