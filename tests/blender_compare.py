#!/usr/bin/env python3
"""Pictures of gen3d against Blender's: the same asset, camera and light, side by side, and their PSNR.

    /usr/bin/python3 tests/blender_compare.py --gen3d target/release/gen3d --out FOLDER a.glb b.glb

Not a test of the suite: it needs Blender (Debian's package will do) and looks at pictures. Two kinds are
compared: base colours without light (shape, texture coordinates, textures), and the materials in even white
light without bounces (Cycles; what is hidden from the sky is darker there, gen3d has no shadows).
"""

import argparse
import math
import subprocess
import sys
from pathlib import Path

FOV, AZIMUTH, ELEVATION = 40.0, 30.0, 20.0


def in_blender(arguments):
    """Runs within Blender: imports, renders both kinds, compares, writes the strip."""
    import bpy
    import numpy as np
    from mathutils import Vector

    # Debian's importer is older than its numpy.
    if not hasattr(np, "bool"):
        np.bool = bool
    model, folder, size = arguments[0], Path(arguments[1]), int(arguments[2])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=model)
    meshes = [o for o in bpy.context.scene.objects if o.type == "MESH"]
    corners = [o.matrix_world @ v.co for o in meshes for v in o.data.vertices]
    low = Vector(min(c[i] for c in corners) for i in range(3))
    high = Vector(max(c[i] for c in corners) for i in range(3))
    center, radius = (low + high) / 2, (high - low).length / 2

    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.data.sensor_fit = "VERTICAL"
    camera.data.angle = math.radians(FOV)
    camera.data.clip_start, camera.data.clip_end = radius / 100, radius * 100
    azimuth, elevation = math.radians(AZIMUTH), math.radians(ELEVATION)
    # glTF's (x, y, z) is Blender's (x, -z, y).
    back = Vector((math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation),
                   math.sin(elevation)))
    camera.location = center + back * radius * 1.02 / math.sin(math.radians(FOV) / 2)
    camera.rotation_euler = back.to_track_quat("Z", "Y").to_euler()

    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = 64
    scene.cycles.use_denoising = False
    scene.cycles.max_bounces = 0
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.color_mode = "RGBA"
    world = bpy.data.worlds.new("white")
    scene.world = world
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs[0].default_value = (1, 1, 1, 1)

    def render(name):
        scene.render.filepath = str(folder / f"{name}-blender.png")
        bpy.ops.render.render(write_still=True)

    render("white")
    for material in bpy.data.materials:
        nodes, links = material.node_tree.nodes, material.node_tree.links
        surface = next(n for n in nodes if n.type == "BSDF_PRINCIPLED")
        emission = nodes.new("ShaderNodeEmission")
        color = surface.inputs["Base Color"]
        if color.is_linked:
            links.new(color.links[0].from_socket, emission.inputs[0])
        else:
            emission.inputs[0].default_value = color.default_value
        output = next(n for n in nodes if n.type == "OUTPUT_MATERIAL")
        links.new(emission.outputs[0], output.inputs[0])
    render("albedo")

    def pixels(path):
        image = bpy.data.images.load(str(path))
        data = np.array(image.pixels[:], dtype=np.float32).reshape(size, size, 4)
        # Over middle grey, as both programs' files have straight alpha.
        return data[..., :3] * data[..., 3:] + 0.5 * (1 - data[..., 3:])

    for name in ("albedo", "white"):
        ours, theirs = pixels(folder / f"{name}-gen3d.png"), pixels(folder / f"{name}-blender.png")
        error = ((ours - theirs) ** 2).mean()
        difference = np.abs(ours - theirs) * 4
        strip = np.concatenate([ours, theirs, difference.clip(0, 1)], axis=1)
        out = bpy.data.images.new(name, size * 3, size)
        out.pixels = np.dstack([strip, np.ones(strip.shape[:2])]).astype(np.float32).ravel().tolist()
        out.filepath_raw, out.file_format = str(folder / f"{name}-compared.png"), "PNG"
        out.save()
        print(f"RESULT {Path(model).name} {name}: PSNR {-10 * math.log10(max(error, 1e-10)):.2f} dB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help=".glb or .gltf")
    parser.add_argument("--gen3d", default="target/release/gen3d")
    parser.add_argument("--blender", default="blender")
    parser.add_argument("--out", default="blender-compare")
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    for model in options.models:
        folder = Path(options.out) / Path(model).stem
        folder.mkdir(parents=True, exist_ok=True)
        for name, more in (("albedo", ["--view", "albedo"]), ("white", ["--light", "white", "--tone", "none"])):
            subprocess.run(
                [options.gen3d, "render", model, "--out", str(folder / f"{name}-gen3d.png"), "--views", "1",
                 "--turntable", "--size", str(options.size), "--azimuth", str(AZIMUTH), "--elevation",
                 str(ELEVATION), "--fov", str(FOV), "--transparent", *more],
                check=True)
        done = subprocess.run(
            [options.blender, "-b", "--factory-startup", "--python-exit-code", "1", "-P", __file__, "--", model,
             str(folder), str(options.size)],
            capture_output=True, text=True)
        results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
        if done.returncode != 0 or not results:
            sys.exit(f"Blender failed on {model}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        print("\n".join(line.removeprefix("RESULT ") for line in results))


if __name__ == "__main__":
    if "--" in sys.argv and "bpy" in sys.modules:
        in_blender(sys.argv[sys.argv.index("--") + 1:])
    else:
        main()
