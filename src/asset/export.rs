//! What is made beside the asset when it is written.

use serde::{Deserialize, Serialize};

use super::lod::MAX_LEVELS;
use crate::{Error, Result};

/// How an asset is delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// Coarser versions, each with half the triangles of the one before, 0..=8: within a GLB (`MSFT_lod`), or else
    /// as `<stem>_lod<n>` beside the file.
    pub lods: u32,
    /// The coarser versions are files of their own also for GLB.
    pub lod_files: bool,
    /// The convex hull as `<stem>_collision` beside the file.
    pub collision: bool,
    /// GLB with small integers in place of floats (`KHR_mesh_quantization`): about half the geometry's bytes.
    pub quantize: bool,
}

impl ExportOptions {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the value.
    pub fn validate(&self) -> Result<()> {
        if self.lods > MAX_LEVELS {
            return Err(Error::invalid("export.lods", format!("must be 0 to {MAX_LEVELS}")));
        }
        Ok(())
    }
}
