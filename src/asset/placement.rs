//! Size and position of whole assets.

use super::Asset;

/// Centres `asset`'s bounding box at the origin and scales it so that its largest side is
/// `largest_side` world units. Assets without extent are only centred.
pub fn normalize(asset: &mut Asset, largest_side: f32) {
    let Some((low, high)) = asset.bounds() else { return };
    let extent = (high - low).max_element();
    let scale = if extent > 0.0 { largest_side / extent } else { 1.0 };
    let centre = 0.5 * (low + high);
    for position in asset.meshes.iter_mut().flat_map(|m| &mut m.positions) {
        *position = (*position - centre) * scale;
    }
}
