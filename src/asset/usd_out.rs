//! Writing USD as text: one mesh a part, `UsdPreviewSurface` materials, PNG textures beside it.

use std::fmt::Write;
use std::sync::Arc;

use image::RgbaImage;

use super::check_out::{check, parts, png, unit};
use super::{Asset, Material, Mesh};
use crate::Result;

/// The contents of the files that make up a USD asset.
#[derive(Debug, Clone)]
pub struct UsdFiles {
    /// The `.usda` text.
    pub usda: String,
    /// Names (`<stem>_<n>.png`) and bytes of the textures.
    pub textures: Vec<(String, Vec<u8>)>,
}

/// Text and PNG contents for files that will be called `stem`. Metres, +Y up; v counts from the picture's bottom.
///
/// # Errors
/// [`crate::Error::Invalid`] for an asset without triangles or with broken attribute lists.
pub fn to_files(asset: &Asset, stem: &str) -> Result<UsdFiles> {
    check(asset)?;
    let mut pictures = Pictures { stem: stem.to_owned(), known: Vec::new() };
    let mut usda = String::from(
        "#usda 1.0\n(\n    defaultPrim = \"asset\"\n    metersPerUnit = 1\n    upAxis = \"Y\"\n)\n\n\
         def Xform \"asset\" (\n    kind = \"component\"\n)\n{\n",
    );
    for (number, part) in parts(asset).enumerate() {
        mesh(&mut usda, part, number, asset.materials.len());
    }
    // Writing to a String cannot fail, hence the ignored results in this file.
    let _ = writeln!(usda, "    def Scope \"materials\"\n    {{");
    for (number, look) in asset.materials.iter().enumerate() {
        material(&mut usda, look, number, &mut pictures);
    }
    usda.push_str("    }\n}\n");
    let textures = pictures.known.iter().enumerate();
    let textures = textures.map(|(i, p)| Ok((pictures.name(i), png(p)?))).collect::<Result<_>>()?;
    Ok(UsdFiles { usda, textures })
}

struct Pictures {
    stem: String,
    known: Vec<Arc<RgbaImage>>,
}

impl Pictures {
    fn name(&self, number: usize) -> String {
        format!("{}_{number}.png", self.stem)
    }

    /// The file name of a picture.
    fn file(&mut self, picture: &Arc<RgbaImage>) -> String {
        let number = self.known.iter().position(|p| Arc::ptr_eq(p, picture)).unwrap_or_else(|| {
            self.known.push(picture.clone());
            self.known.len() - 1
        });
        self.name(number)
    }
}

/// `(1, 2, 3), (4, 5, 6)`.
fn tuples<const N: usize>(values: impl Iterator<Item = [f32; N]>) -> String {
    let one = |v: [f32; N]| format!("({})", v.map(|x| x.to_string()).join(", "));
    values.map(one).collect::<Vec<_>>().join(", ")
}

fn mesh(usda: &mut String, part: &Mesh, number: usize, materials: usize) {
    let counts = vec!["3"; part.triangles.len()].join(", ");
    let indices: Vec<String> = part.triangles.iter().flatten().map(u32::to_string).collect();
    let points = tuples(part.positions.iter().map(|p| p.to_array()));
    let _ = writeln!(
        usda,
        "    def Mesh \"part{number}\" (\n        prepend apiSchemas = [\"MaterialBindingAPI\"]\n    )\n    {{\n        \
         uniform token subdivisionScheme = \"none\"\n        int[] faceVertexCounts = [{counts}]\n        \
         int[] faceVertexIndices = [{}]\n        point3f[] points = [{points}]",
        indices.join(", ")
    );
    let (low, high) = part
        .positions
        .iter()
        .fold((part.positions[0], part.positions[0]), |(l, h), p| (l.min(*p), h.max(*p)));
    let _ = writeln!(
        usda,
        "        float3[] extent = [{}]",
        tuples([low.to_array(), high.to_array()].into_iter())
    );
    let mut primvar = |declaration: &str, values: String| {
        let _ = writeln!(
            usda,
            "        {declaration} = [{values}] (\n            interpolation = \"vertex\"\n        )"
        );
    };
    if !part.normals.is_empty() {
        primvar("normal3f[] normals", tuples(part.normals.iter().map(|n| unit(*n).to_array())));
    }
    if !part.uvs.is_empty() {
        primvar("texCoord2f[] primvars:st", tuples(part.uvs.iter().map(|uv| [uv.x, 1.0 - uv.y])));
    }
    if !part.colors.is_empty() {
        primvar("color3f[] primvars:displayColor", tuples(part.colors.iter().map(|c| c.to_array())));
    }
    if part.material < materials {
        let _ = writeln!(usda, "        rel material:binding = </asset/materials/material{}>", part.material);
    }
    usda.push_str("    }\n\n");
}

/// A material: the surface, the reader of texture coordinates, and one node a picture.
fn material(usda: &mut String, look: &Material, number: usize, pictures: &mut Pictures) {
    let path = format!("/asset/materials/material{number}");
    let _ = writeln!(
        usda,
        "        def Material \"material{number}\"\n        {{\n            \
         token outputs:surface.connect = <{path}/surface.outputs:surface>\n            \
         def Shader \"surface\"\n            {{\n                uniform token info:id = \"UsdPreviewSurface\""
    );
    let mut nodes = String::new();
    let mut input = |name: &str,
                     kind: &str,
                     value: String,
                     picture: Option<&Arc<RgbaImage>>,
                     channel: &str,
                     extra: &str| {
        let Some(picture) = picture else {
            let _ = writeln!(usda, "                {kind} inputs:{name} = {value}");
            return;
        };
        let _ = writeln!(
            usda,
            "                {kind} inputs:{name}.connect = <{path}/{name}.outputs:{channel}>"
        );
        let space = if matches!(name, "diffuseColor" | "emissiveColor") { "sRGB" } else { "raw" };
        let file = pictures.file(picture);
        let output = if channel == "rgb" { "float3" } else { "float" };
        let _ = writeln!(
            nodes,
            "            def Shader \"{name}\"\n            {{\n                uniform token info:id = \"UsdUVTexture\"\n                \
             asset inputs:file = @{file}@\n                token inputs:sourceColorSpace = \"{space}\"\n                \
             float2 inputs:st.connect = <{path}/st.outputs:result>\n                token inputs:wrapS = \"repeat\"\n                \
             token inputs:wrapT = \"repeat\"\n{extra}                {output} outputs:{channel}\n            }}"
        );
    };
    let scaled = |s: [f32; 4]| format!("                float4 inputs:scale = {}\n", tuples([s].into_iter()));
    let [r, g, b, alpha] = look.base_color;
    let color = look.base_color_texture.as_ref();
    input("diffuseColor", "color3f", tuples([[r, g, b]].into_iter()), color, "rgb", &scaled([r, g, b, 1.0]));
    let [er, eg, eb] = look.emissive;
    let glow = look.maps.emissive.as_ref();
    input(
        "emissiveColor",
        "color3f",
        tuples([look.emissive].into_iter()),
        glow,
        "rgb",
        &scaled([er, eg, eb, 1.0]),
    );
    let shine = look.maps.metallic_roughness.as_ref();
    let factors = scaled([1.0, look.roughness, look.metallic, 1.0]);
    input("roughness", "float", look.roughness.to_string(), shine, "g", &factors);
    input("metallic", "float", look.metallic.to_string(), shine, "b", &factors);
    if let Some((bumps, scale)) = &look.maps.normal {
        // From 0 … 1 to −1 … 1.
        let range = scaled([2.0 * scale, 2.0 * scale, 2.0, 1.0])
            + &format!("                float4 inputs:bias = (-{scale}, -{scale}, -1, 0)\n");
        input("normal", "normal3f", String::new(), Some(bumps), "rgb", &range);
    }
    if let Some(shade) = &look.maps.occlusion {
        input("occlusion", "float", String::new(), Some(shade), "r", "");
    }
    let _ = writeln!(
        usda,
        "                float inputs:opacity = {alpha}\n                token outputs:surface\n            }}\n            \
         def Shader \"st\"\n            {{\n                uniform token info:id = \"UsdPrimvarReader_float2\"\n                \
         string inputs:varname = \"st\"\n                float2 outputs:result\n            }}\n{nodes}        }}"
    );
}

#[cfg(test)]
mod tests {
    use glam::{Vec2, Vec3};

    use super::*;

    #[test]
    fn parts_materials_and_pictures_are_there() {
        let picture = Arc::new(RgbaImage::from_pixel(4, 4, image::Rgba([10, 20, 30, 255])));
        let mut look = Material { base_color_texture: Some(picture.clone()), ..Default::default() };
        look.maps.normal = Some((picture, 1.0));
        let part = Mesh {
            positions: vec![Vec3::ZERO, Vec3::X, Vec3::Y],
            normals: vec![Vec3::Z; 3],
            uvs: vec![Vec2::ZERO, Vec2::X, Vec2::Y],
            triangles: vec![[0, 1, 2]],
            ..Default::default()
        };
        let asset = Asset { meshes: vec![part], materials: vec![look], ..Default::default() };
        let files = to_files(&asset, "jay").unwrap();
        assert_eq!(files.textures.len(), 1, "one picture in two places");
        for line in [
            "point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]",
            "texCoord2f[] primvars:st = [(0, 1), (1, 1), (0, 0)]",
            "asset inputs:file = @jay_0.png@",
            "rel material:binding = </asset/materials/material0>",
        ] {
            assert!(files.usda.contains(line), "{line}\n{}", files.usda);
        }
        let count = |c: char| files.usda.matches(c).count();
        assert_eq!((count('{'), count('(')), (count('}'), count(')')));
    }
}
