//! Validation by naga, messages in terms of the original files, and reflection of bindings.

use super::{Assembled, ShaderError};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, Span, StorageAccess};
use std::error::Error as _;
use std::fmt::Write as _;

/// How a kernel sees a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingKind {
    /// `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// One buffer binding of group 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// `@binding` number.
    pub index: u32,
    /// Name of the variable.
    pub name: String,
    /// How it is declared.
    pub kind: BindingKind,
}

/// A parsed and validated shader with exactly one compute entry point.
#[derive(Debug)]
pub struct Checked {
    /// Entry file and defines.
    pub label: String,
    /// naga's representation.
    pub module: Module,
    /// What the validator found out.
    pub info: ModuleInfo,
    /// Name of the entry point.
    pub entry_point: String,
    /// `@workgroup_size`.
    pub workgroup_size: [u32; 3],
    /// Bindings of group 0 by index.
    pub bindings: Vec<Binding>,
}

impl Assembled {
    /// Parses and validates. All capabilities are allowed here: which of them a device has is
    /// decided when its permutation is chosen.
    pub fn check(&self) -> Result<Checked, ShaderError> {
        let module = naga::front::wgsl::parse_str(&self.source).map_err(|e| {
            let labels: Vec<_> = e.labels().map(|(span, text)| (span, text.to_owned())).collect();
            let notes: Vec<_> = e.notes().map(str::to_owned).collect();
            self.explain(e.message(), &labels, &notes)
        })?;
        let info =
            Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).map_err(|e| {
                let labels: Vec<_> = e.spans().cloned().collect();
                let error = e.into_inner();
                let mut notes = Vec::new();
                let mut source = error.source();
                while let Some(cause) = source {
                    notes.push(cause.to_string());
                    source = cause.source();
                }
                self.explain(&error.to_string(), &labels, &notes)
            })?;
        let [entry] = module.entry_points.as_slice() else {
            let n = module.entry_points.len();
            return Err(ShaderError(format!("{}: {n} entry points, 1 expected", self.label)));
        };
        let (entry_point, workgroup_size) = (entry.name.clone(), entry.workgroup_size);
        let bindings = self.bindings(&module)?;
        Ok(Checked { label: self.label.clone(), module, info, entry_point, workgroup_size, bindings })
    }

    fn bindings(&self, module: &Module) -> Result<Vec<Binding>, ShaderError> {
        let mut bindings = Vec::new();
        for (_, var) in module.global_variables.iter() {
            let Some(at) = &var.binding else { continue };
            let name = var.name.clone().unwrap_or_default();
            let kind = match var.space {
                AddressSpace::Uniform => BindingKind::Uniform,
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                    BindingKind::ReadWrite
                }
                AddressSpace::Storage { .. } => BindingKind::Read,
                _ => return Err(ShaderError(format!("{}: {name} is not a buffer", self.label))),
            };
            if at.group != 0 {
                return Err(ShaderError(format!("{}: {name} is not in group 0", self.label)));
            }
            bindings.push(Binding { index: at.binding, name, kind });
        }
        bindings.sort_by_key(|b| b.index);
        match bindings.windows(2).find(|pair| pair[0].index == pair[1].index) {
            Some([a, b]) => {
                let reason = format!("{} and {} share binding {}", a.name, b.name, a.index);
                Err(ShaderError(format!("{}: {reason}", self.label)))
            }
            _ => Ok(bindings),
        }
    }

    /// A message with the original file, line and text of every label.
    fn explain(&self, message: &str, labels: &[(Span, String)], notes: &[String]) -> ShaderError {
        let mut text = format!("{}: {message}", self.label);
        for (span, label) in labels {
            if !span.is_defined() {
                continue;
            }
            let at = span.location(&self.source);
            let row = at.line_number as usize - 1;
            let line = self.source.lines().nth(row).unwrap_or("");
            let origin = self.origins.get(row).map_or(("?", 0), |(file, number)| (file.as_str(), *number));
            let _ = write!(text, "\n  --> {}:{}:{}", origin.0, origin.1, at.line_position);
            let _ = write!(text, "\n   | {line}\n   | {}", " ".repeat(at.line_position as usize - 1));
            let width = (at.length as usize).clamp(1, line.len().max(1));
            let _ = write!(text, "{} {label}", "^".repeat(width));
        }
        for note in notes {
            let _ = write!(text, "\n   = {note}");
        }
        ShaderError(text)
    }
}
