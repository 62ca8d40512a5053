// The asset in WebGL 2: textures, vertex colours, normal maps, one key light that stands beside the camera and
// a sky; orbit by pointer, wheel, two fingers and arrow keys.

import { bounds, matrix, parseGlb } from './glb.js';

const VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
layout(location = 3) in vec4 color;
uniform mat4 place, camera;
out vec3 at, n; out vec2 t; out vec4 c;
void main() {
  vec4 world = place * vec4(position, 1.0);
  at = world.xyz; n = transpose(inverse(mat3(place))) * normal; t = uv; c = color;
  gl_Position = camera * world;
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec3 at, n; in vec2 t; in vec4 c;
uniform sampler2D base, bumps, rough;
uniform vec4 factor; uniform vec3 eye, lamp; uniform vec2 surface; // metallic, roughness
uniform bool smooth_normals, bumpy, unlit; uniform float cutoff, bump_scale; uniform int mode;
out vec4 shown;
vec3 srgb(vec3 x) {
  return mix(12.92 * x, 1.055 * pow(max(x, vec3(1e-6)), vec3(1.0 / 2.4)) - 0.055, step(0.0031308, x));
}
vec3 normal_here() {
  vec3 dx = dFdx(at), dy = dFdy(at);
  vec3 flat_normal = normalize(cross(dx, dy));
  vec3 m = smooth_normals && dot(n, n) > 0.0 ? normalize(n) : flat_normal;
  if (dot(m, eye - at) < 0.0 && dot(flat_normal, m) * (gl_FrontFacing ? 1.0 : -1.0) < 0.0) m = -m;
  if (!bumpy) return m;
  // The texture's axes on the surface, from how both change over the screen.
  vec2 tx = dFdx(t), ty = dFdy(t);
  vec3 py = cross(dy, m), px = cross(m, dx);
  vec3 tangent = py * tx.x + px * ty.x, bitangent = py * tx.y + px * ty.y;
  float size = inversesqrt(max(max(dot(tangent, tangent), dot(bitangent, bitangent)), 1e-20));
  vec3 b = (texture(bumps, t).xyz * 2.0 - 1.0) * vec3(bump_scale, bump_scale, 1.0);
  return normalize(tangent * size * b.x - bitangent * size * b.y + m * b.z);
}
void main() {
  vec4 albedo = texture(base, t) * factor * c;
  if (albedo.a < cutoff) discard;
  vec3 m = normal_here();
  if (mode == 2) { shown = vec4(m * 0.5 + 0.5, 1.0); return; }
  if (mode == 1 || unlit) { shown = vec4(srgb(albedo.rgb), 1.0); return; }
  if (mode == 3) albedo.rgb = vec3(0.6);
  vec2 mr = mode == 3 ? vec2(0.0, 0.8) : surface * texture(rough, t).bg;
  vec3 v = normalize(eye - at), h = normalize(v + lamp);
  float a = max(mr.y * mr.y, 0.01), nl = max(dot(m, lamp), 0.0), nh = max(dot(m, h), 0.0), nv = max(dot(m, v), 1e-3);
  float d = nh * nh * (a * a - 1.0) + 1.0;
  float spread = a * a / (d * d), hidden = 0.5 / mix(2.0 * nl * nv, nl + nv, a);
  vec3 mirror = mix(vec3(0.04), albedo.rgb, mr.x);
  vec3 fresnel = mirror + (1.0 - mirror) * pow(1.0 - max(dot(v, h), 0.0), 5.0);
  vec3 sky = mix(vec3(0.28, 0.26, 0.25), vec3(0.62, 0.66, 0.72), m.y * 0.5 + 0.5);
  vec3 matte = albedo.rgb * (1.0 - mr.x);
  shown = vec4(srgb((matte + mirror * 0.6) * sky + (matte + fresnel * spread * hidden * 0.32) * nl * 0.9), 1.0);
}`;

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

function lookFrom(eye, target, fov, aspect, near, far) {
  const unit = (v) => { const l = Math.hypot(...v) || 1; return v.map((x) => x / l); };
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const z = unit(eye.map((v, i) => v - target[i]));
  const x = unit(cross([0, 1, 0], z));
  const y = cross(z, x);
  const view = new Float32Array([x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0,
    -dot(x, eye), -dot(y, eye), -dot(z, eye), 1]);
  const f = 1 / Math.tan(fov / 2);
  const lens = new Float32Array([f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1,
    0, 0, 2 * far * near / (near - far), 0]);
  return { camera: matrix.multiply(lens, view), x, y, z };
}

export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = canvas.getContext('webgl2', { antialias: true });
    if (!gl) throw new Error('this browser has no WebGL 2');
    this.gl = gl;
    this.program = program(gl);
    this.at = (name) => gl.getUniformLocation(this.program, name);
    this.parts = [];
    this.mode = 0;
    this.spin = false;
    this.reset();
    this.listen();
    new ResizeObserver(() => this.ask()).observe(canvas);
  }

  /** Where a viewer stands first: in front, a little above. */
  reset() {
    Object.assign(this, { azimuth: 0.6, elevation: 0.35, zoom: 1, shift: [0, 0, 0] });
  }

  /** Shows the file of these bytes; returns what it holds. */
  async load(buffer) {
    const glb = parseGlb(buffer);
    if (glb.parts.length === 0) throw new Error('the file shows no triangles');
    const pictures = await Promise.all(glb.images.map((blob) =>
      createImageBitmap(blob, { premultiplyAlpha: 'none', colorSpaceConversion: 'none' })));
    const texture = (slot, color) => {
      const picture = slot && pictures[glb.textures[slot.index]?.source];
      return picture ? this.texture(picture, color) : null;
    };
    this.clear();
    this.parts = glb.parts.map((part) => this.upload(part, texture));
    const { low, high } = bounds(glb.parts);
    this.center = low.map((l, i) => (l + high[i]) / 2);
    this.radius = Math.hypot(...high.map((h, i) => h - low[i])) / 2 || 1;
    this.reset();
    this.ask();
    return glb;
  }

  clear() {
    const { gl } = this;
    for (const p of this.parts) {
      gl.deleteVertexArray(p.array);
      p.buffers.forEach((b) => gl.deleteBuffer(b));
      [p.base, p.bumps, p.rough].forEach((t) => t && gl.deleteTexture(t));
    }
    this.parts = [];
  }

  texture(picture, color) {
    const { gl } = this;
    const made = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, made);
    gl.texImage2D(gl.TEXTURE_2D, 0, color ? gl.SRGB8_ALPHA8 : gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    return made;
  }

  upload(part, texture) {
    const { gl } = this;
    const buffers = [];
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const attribute = (location, data, width) => {
      if (!data) return;
      buffers.push(gl.createBuffer());
      gl.bindBuffer(gl.ARRAY_BUFFER, buffers.at(-1));
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, width, gl.FLOAT, false, 0, 0);
    };
    attribute(0, part.positions, 3);
    attribute(1, part.normals, 3);
    attribute(2, part.uvs, 2);
    attribute(3, part.colors?.data, part.colors?.width);
    buffers.push(gl.createBuffer());
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.at(-1));
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, part.indices, gl.STATIC_DRAW);
    const m = part.material;
    const pbr = m.pbrMetallicRoughness || {};
    return {
      array, buffers, place: part.place, count: part.indices.length, colored: !!part.colors,
      smooth: !!part.normals,
      factor: pbr.baseColorFactor || [1, 1, 1, 1],
      surface: [pbr.metallicFactor ?? 1, pbr.roughnessFactor ?? 1],
      base: texture(pbr.baseColorTexture, true), rough: texture(pbr.metallicRoughnessTexture, false),
      bumps: texture(m.normalTexture, false), bumpScale: m.normalTexture?.scale ?? 1,
      cutoff: m.alphaMode === 'MASK' ? m.alphaCutoff ?? 0.5 : -1, unlit: !!m.extensions?.KHR_materials_unlit,
    };
  }

  /** Draws soon. */
  ask() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame((now) => {
      this.asked = false;
      if (this.spin) {
        this.azimuth += Math.min(now - (this.before ?? now), 100) * 0.0006;
        this.ask();
      }
      this.before = now;
      this.draw();
    });
  }

  eye() {
    const far = this.radius * 2.9 * this.zoom;
    const [ca, sa, ce, se] = [Math.cos(this.azimuth), Math.sin(this.azimuth), Math.cos(this.elevation), Math.sin(this.elevation)];
    const target = this.center.map((c, i) => c + this.shift[i]);
    return { target, eye: [target[0] + far * ce * sa, target[1] + far * se, target[2] + far * ce * ca], far };
  }

  draw() {
    const { gl, canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0.62, 0.64, 0.67, 1);
    gl.enable(gl.DEPTH_TEST);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (this.parts.length === 0) return;
    const { target, eye, far } = this.eye();
    const look = lookFrom(eye, target, 0.65, canvas.width / canvas.height, far * 0.01, far + this.radius * 4);
    this.look = look;
    gl.useProgram(this.program);
    gl.uniformMatrix4fv(this.at('camera'), false, look.camera);
    gl.uniform3fv(this.at('eye'), eye);
    const lamp = [0, 1, 2].map((i) => look.z[i] * 0.75 + look.y[i] * 0.5 + look.x[i] * 0.43);
    gl.uniform3fv(this.at('lamp'), lamp.map((v) => v / Math.hypot(...lamp)));
    gl.uniform1i(this.at('mode'), this.mode);
    ['base', 'bumps', 'rough'].forEach((name, unit) => gl.uniform1i(this.at(name), unit));
    this.parts.forEach((part) => this.drawPart(part));
  }

  drawPart(p) {
    const { gl } = this;
    this.white ??= this.texture(new ImageData(new Uint8ClampedArray([255, 255, 255, 255]), 1, 1), false);
    [p.base, p.bumps, p.rough].forEach((texture, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture || this.white);
    });
    gl.uniformMatrix4fv(this.at('place'), false, p.place);
    gl.uniform4fv(this.at('factor'), p.factor);
    gl.uniform2fv(this.at('surface'), p.surface);
    gl.uniform1i(this.at('smooth_normals'), p.smooth);
    gl.uniform1i(this.at('bumpy'), !!p.bumps);
    gl.uniform1i(this.at('unlit'), p.unlit);
    gl.uniform1f(this.at('cutoff'), p.cutoff);
    gl.uniform1f(this.at('bump_scale'), p.bumpScale);
    gl.bindVertexArray(p.array);
    gl.vertexAttrib2f(2, 0, 0);
    if (!p.colored) gl.vertexAttrib4f(3, 1, 1, 1, 1);
    gl.drawElements(gl.TRIANGLES, p.count, gl.UNSIGNED_INT, 0);
    gl.bindVertexArray(null);
  }

  turn(dx, dy) {
    this.azimuth -= dx;
    this.elevation = Math.min(1.55, Math.max(-1.55, this.elevation + dy));
    this.ask();
  }

  closer(factor) {
    this.zoom = Math.min(10, Math.max(0.1, this.zoom * factor));
    this.ask();
  }

  move(dx, dy) {
    if (!this.look) return;
    const scale = this.radius * 2 * this.zoom / this.canvas.clientHeight;
    this.shift = this.shift.map((s, i) => s - (this.look.x[i] * dx - this.look.y[i] * dy) * scale);
    this.ask();
  }

  listen() {
    const { canvas } = this;
    const down = new Map();
    canvas.addEventListener('pointerdown', (e) => {
      canvas.setPointerCapture(e.pointerId);
      down.set(e.pointerId, [e.clientX, e.clientY]);
    });
    const up = (e) => down.delete(e.pointerId);
    canvas.addEventListener('pointerup', up);
    canvas.addEventListener('pointercancel', up);
    canvas.addEventListener('pointermove', (e) => {
      const before = down.get(e.pointerId);
      if (!before) return;
      const [dx, dy] = [e.clientX - before[0], e.clientY - before[1]];
      if (down.size === 2) {
        const other = [...down].find(([id]) => id !== e.pointerId)[1];
        const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
        this.closer(apart(before) / apart([e.clientX, e.clientY]));
        this.move(dx / 2, dy / 2);
      } else if (e.shiftKey || e.buttons & 6) {
        this.move(dx, dy);
      } else {
        this.turn(dx * 0.008, dy * 0.008);
      }
      down.set(e.pointerId, [e.clientX, e.clientY]);
    });
    canvas.addEventListener('contextmenu', (e) => e.preventDefault());
    canvas.addEventListener('dblclick', () => { this.reset(); this.ask(); });
    canvas.addEventListener('wheel', (e) => {
      e.preventDefault();
      this.closer(Math.exp(Math.sign(e.deltaY) * 0.12));
    }, { passive: false });
    const keys = {
      ArrowLeft: () => this.turn(0.12, 0), ArrowRight: () => this.turn(-0.12, 0),
      ArrowUp: () => this.turn(0, 0.12), ArrowDown: () => this.turn(0, -0.12),
      '+': () => this.closer(0.9), '-': () => this.closer(1.1),
    };
    canvas.addEventListener('keydown', (e) => {
      if (!keys[e.key]) return;
      e.preventDefault();
      keys[e.key]();
    });
  }
}
