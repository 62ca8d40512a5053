// Binary glTF 2.0 into plain arrays: what gen3d writes (also quantised, with vertex colours, textures), and
// most of what others write. No external files, no compression extensions, no skins.

const COUNT = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4, MAT4: 16 };
const READ = {
  5120: ['getInt8', 1, 127], 5121: ['getUint8', 1, 255], 5122: ['getInt16', 2, 32767],
  5123: ['getUint16', 2, 65535], 5125: ['getUint32', 4, 4294967295], 5126: ['getFloat32', 4, 1],
};

/** Column-major 4x4 matrices. */
export const matrix = {
  identity: () => new Float32Array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
  multiply(a, b) {
    const out = new Float32Array(16);
    for (let c = 0; c < 4; c += 1) {
      for (let r = 0; r < 4; r += 1) {
        for (let k = 0; k < 4; k += 1) out[c * 4 + r] += a[k * 4 + r] * b[c * 4 + k];
      }
    }
    return out;
  },
  place([x, y, z, w], [tx, ty, tz], [sx, sy, sz]) {
    return new Float32Array([
      (1 - 2 * (y * y + z * z)) * sx, 2 * (x * y + z * w) * sx, 2 * (x * z - y * w) * sx, 0,
      2 * (x * y - z * w) * sy, (1 - 2 * (x * x + z * z)) * sy, 2 * (y * z + x * w) * sy, 0,
      2 * (x * z + y * w) * sz, 2 * (y * z - x * w) * sz, (1 - 2 * (x * x + y * y)) * sz, 0,
      tx, ty, tz, 1,
    ]);
  },
  apply(m, [x, y, z]) {
    return [0, 1, 2].map((r) => m[r] * x + m[4 + r] * y + m[8 + r] * z + m[12 + r]);
  },
};

/** `{ gltf, bin }` of a file's bytes. */
function chunks(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 20 || view.getUint32(0, true) !== 0x46546c67 || view.getUint32(4, true) !== 2) {
    throw new Error('not a binary glTF 2.0 file');
  }
  const length = view.getUint32(12, true);
  if (view.getUint32(16, true) !== 0x4e4f534a) throw new Error('the first chunk is not JSON');
  const gltf = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, length)));
  const at = 20 + length;
  const has = at + 8 <= buffer.byteLength && view.getUint32(at + 4, true) === 0x004e4942;
  return { gltf, bin: has ? new DataView(buffer, at + 8, view.getUint32(at, true)) : null };
}

function accessor(gltf, bin, index) {
  const a = gltf.accessors[index];
  const [width, [read, bytes, scale]] = [COUNT[a.type], READ[a.componentType]];
  const view = gltf.bufferViews[a.bufferView];
  const start = (view.byteOffset || 0) + (a.byteOffset || 0);
  const stride = view.byteStride || width * bytes;
  const out = a.componentType === 5125 || a.type === 'SCALAR' ? new Uint32Array(a.count * width)
    : new Float32Array(a.count * width);
  const factor = a.normalized ? 1 / scale : 1;
  for (let i = 0; i < a.count; i += 1) {
    for (let k = 0; k < width; k += 1) {
      const value = bin[read](start + i * stride + k * bytes, true);
      out[i * width + k] = a.normalized ? Math.max(value * factor, -1) : value;
    }
  }
  return { data: out, width };
}

/** Triangle lists with their place and material, pictures as blobs. */
export function parseGlb(buffer) {
  const { gltf, bin } = chunks(buffer);
  const parts = [];
  const visit = (index, above) => {
    const node = gltf.nodes[index];
    const own = node.matrix ? new Float32Array(node.matrix)
      : matrix.place(node.rotation || [0, 0, 0, 1], node.translation || [0, 0, 0], node.scale || [1, 1, 1]);
    const place = matrix.multiply(above, own);
    for (const p of node.mesh === undefined ? [] : gltf.meshes[node.mesh].primitives) {
      if ((p.mode ?? 4) !== 4) continue;
      const get = (name) => (p.attributes[name] === undefined ? null : accessor(gltf, bin, p.attributes[name]));
      const positions = get('POSITION').data;
      const indices = p.indices === undefined ? Uint32Array.from({ length: positions.length / 3 }, (_, i) => i)
        : accessor(gltf, bin, p.indices).data;
      parts.push({
        place, positions, indices, material: gltf.materials?.[p.material] ?? {},
        normals: get('NORMAL')?.data, uvs: get('TEXCOORD_0')?.data, colors: get('COLOR_0'),
      });
    }
    (node.children || []).forEach((child) => visit(child, place));
  };
  (gltf.scenes?.[gltf.scene || 0]?.nodes || []).forEach((index) => visit(index, matrix.identity()));
  const images = (gltf.images || []).map((image) => {
    const view = gltf.bufferViews[image.bufferView];
    return new Blob([new Uint8Array(bin.buffer, bin.byteOffset + (view.byteOffset || 0), view.byteLength)],
      { type: image.mimeType });
  });
  const triangles = parts.reduce((sum, p) => sum + p.indices.length / 3, 0);
  return { parts, images, textures: gltf.textures || [], triangles, extras: gltf.asset.extras ?? null };
}

/** Corners of the box around all parts. */
export function bounds(parts) {
  const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  for (const p of parts) {
    for (let i = 0; i < p.positions.length; i += 3) {
      const at = matrix.apply(p.place, p.positions.subarray(i, i + 3));
      for (let k = 0; k < 3; k += 1) {
        low[k] = Math.min(low[k], at[k]);
        high[k] = Math.max(high[k], at[k]);
      }
    }
  }
  return { low, high };
}
