//! Which vertices form triangles, and which triangles are neighbours.

use crate::gpu::kernels::NO_VERTEX;
use crate::{Error, Result};

/// The connections of a mesh, checked; positions and attributes may change from render to render.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    pub(super) vertices: usize,
    pub(super) attributes: usize,
    pub(super) triangles: Vec<[u32; 3]>,
    pub(super) attribute_triangles: Vec<[u32; 3]>,
    pub(super) opposite: Vec<[u32; 3]>,
}

impl Topology {
    /// A mesh whose attributes (colours or texture coordinates) belong to the vertices themselves.
    ///
    /// Triangles that share an edge must share its vertices: where copies meet, each copy counts as
    /// a border, and silhouettes are blended there.
    ///
    /// # Errors
    /// If an index has no vertex, or there are more than 2³¹/3 triangles.
    pub fn new(vertices: usize, triangles: &[[u32; 3]]) -> Result<Self> {
        Self::with_seams(vertices, triangles, vertices, triangles)
    }

    /// A mesh whose attributes have indices of their own, so that texture coordinates may have seams
    /// where the surface has none.
    ///
    /// # Errors
    /// Also if the two lists of triangles differ in length.
    pub fn with_seams(
        vertices: usize,
        triangles: &[[u32; 3]],
        attributes: usize,
        attribute_triangles: &[[u32; 3]],
    ) -> Result<Self> {
        check(vertices, triangles, "triangles")?;
        check(attributes, attribute_triangles, "attribute triangles")?;
        if triangles.len() != attribute_triangles.len() {
            let reason = format!("{} for {} triangles", attribute_triangles.len(), triangles.len());
            return Err(Error::invalid("attribute triangles", reason));
        }
        Ok(Self {
            vertices,
            attributes,
            triangles: triangles.to_vec(),
            attribute_triangles: attribute_triangles.to_vec(),
            opposite: opposite(triangles),
        })
    }

    /// The triangles.
    pub fn triangles(&self) -> &[[u32; 3]] {
        &self.triangles
    }

    /// For each corner, the vertex beyond the edge opposite of it, or
    /// [`NO_VERTEX`](crate::gpu::kernels::NO_VERTEX).
    pub fn opposite(&self) -> &[[u32; 3]] {
        &self.opposite
    }

    /// Vertices that positions are expected for.
    pub fn vertices(&self) -> usize {
        self.vertices
    }

    /// Rows of attributes that are expected.
    pub fn attributes(&self) -> usize {
        self.attributes
    }
}

fn check(vertices: usize, triangles: &[[u32; 3]], what: &str) -> Result<()> {
    // An edge of a triangle is numbered in 31 bits.
    if triangles.len() > (1 << 31) / 3 - 1 || vertices > u32::MAX as usize / 3 {
        return Err(Error::invalid(what, "the mesh is too large").hint("simplify or split it"));
    }
    match triangles.iter().position(|t| t.iter().any(|&i| i as usize >= vertices)) {
        Some(at) => {
            let reason = format!("triangle {at} is {:?}, but there are {vertices} vertices", triangles[at]);
            Err(Error::invalid(what, reason))
        }
        None => Ok(()),
    }
}

/// For each corner, the vertex beyond the edge that is opposite of it. An edge of one triangle, or of
/// more than two, ends the surface.
fn opposite(triangles: &[[u32; 3]]) -> Vec<[u32; 3]> {
    let mut edges: Vec<(u32, u32, u32)> = Vec::with_capacity(3 * triangles.len());
    for (t, triangle) in triangles.iter().enumerate() {
        for k in 0..3 {
            let (a, b) = (triangle[(k + 1) % 3], triangle[(k + 2) % 3]);
            edges.push((a.min(b), a.max(b), (3 * t + k) as u32));
        }
    }
    edges.sort_unstable();
    let mut out = vec![[NO_VERTEX; 3]; triangles.len()];
    for group in edges.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        if let [(.., first), (.., second)] = *group {
            let corner = |i: u32| triangles[i as usize / 3][i as usize % 3];
            out[first as usize / 3][first as usize % 3] = corner(second);
            out[second as usize / 3][second as usize % 3] = corner(first);
        }
    }
    out
}
