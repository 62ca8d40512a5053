// Line charts on a canvas. A chart with more points than pixels draws the range of each column, so that
// nothing that stands out is lost.

const PAD = { left: 54, right: 6, top: 6, bottom: 16 };

/** A number in few characters. */
export function short(x) {
  if (!Number.isFinite(x)) return '–';
  const size = Math.abs(x);
  if (size >= 1e9) return (x / 1e9).toFixed(2) + 'G';
  if (size >= 1e6) return (x / 1e6).toFixed(2) + 'M';
  if (size >= 1e4) return (x / 1e3).toFixed(1) + 'k';
  if (size === 0 || size >= 100) return x.toFixed(0);
  if (size >= 0.01) return Number(x.toPrecision(3)).toString();
  return x.toExponential(1);
}

export class Chart {
  /** `title`; `log`: a logarithmic axis where all values are positive. */
  constructor(parent, title, { log = false, unit = short, zero = false } = {}) {
    Object.assign(this, { log, unit, zero, series: new Map(), hover: null });
    const box = document.createElement('div');
    box.className = 'chart';
    const heading = document.createElement('h2');
    heading.textContent = title;
    this.canvas = document.createElement('canvas');
    this.legend = document.createElement('div');
    this.legend.className = 'legend';
    box.append(heading, this.canvas, this.legend);
    parent.append(box);
    this.canvas.addEventListener('pointermove', (e) => { this.hover = e.offsetX; this.draw(); });
    this.canvas.addEventListener('pointerleave', () => { this.hover = null; this.draw(); });
  }

  add(name, x, y) {
    if (!Number.isFinite(y)) return;
    if (!this.series.has(name)) this.series.set(name, { x: [], y: [] });
    const s = this.series.get(name);
    s.x.push(x);
    s.y.push(y);
  }

  /** Forgets what lies after `x`. */
  cut(x) {
    for (const s of this.series.values()) {
      let n = s.x.length;
      while (n > 0 && s.x[n - 1] > x) n -= 1;
      s.x.length = s.y.length = n;
    }
  }

  range() {
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const { x, y } of this.series.values()) {
      for (let i = 0; i < x.length; i += 1) {
        x0 = Math.min(x0, x[i]); x1 = Math.max(x1, x[i]);
        y0 = Math.min(y0, y[i]); y1 = Math.max(y1, y[i]);
      }
    }
    const log = this.log && y0 > 0;
    if (this.zero) [y0, y1] = [Math.min(y0, 0), Math.max(y1, 0)];
    if (y0 === y1) [y0, y1] = log ? [y0 / 2, y1 * 2] : [y0 - (Math.abs(y0) || 1) / 2, y1 + (Math.abs(y1) || 1) / 2];
    return { x0, x1: x1 > x0 ? x1 : x0 + 1, y0, y1, log };
  }

  draw() {
    const { canvas } = this;
    const [w, h, ratio] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1];
    if (w === 0) return;
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    const c = canvas.getContext('2d');
    c.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const ink = (name) => {
      // light-dark() has to be resolved by an element that uses it.
      this.legend.style.outlineColor = `var(${name})`;
      return getComputedStyle(this.legend).outlineColor || style.color;
    };
    const r = this.range();
    this.legend.replaceChildren();
    if (!Number.isFinite(r.x0)) return;
    const f = r.log ? Math.log : (v) => v;
    const px = (x) => PAD.left + (x - r.x0) / (r.x1 - r.x0) * (w - PAD.left - PAD.right);
    const py = (y) => h - PAD.bottom - (f(y) - f(r.y0)) / (f(r.y1) - f(r.y0)) * (h - PAD.top - PAD.bottom);
    this.axes(c, r, { w, h, px, py, ink });
    let color = 0;
    const at = this.hover === null ? Infinity : r.x0 + (this.hover - PAD.left) / (w - PAD.left - PAD.right) * (r.x1 - r.x0);
    for (const [name, s] of this.series) {
      const stroke = ink(`--s${color % 7}`);
      color += 1;
      this.line(c, s, { px, py, stroke, width: w });
      let i = s.x.length - 1;
      while (i > 0 && s.x[i] > at) i -= 1;
      this.entry(name, s.y[i], stroke);
    }
    if (this.hover !== null) {
      c.fillStyle = ink('--faint');
      c.fillRect(this.hover, PAD.top, 1, h - PAD.top - PAD.bottom);
    }
  }

  axes(c, r, { w, h, px, py, ink }) {
    c.font = '11px system-ui, sans-serif';
    c.fillStyle = ink('--faint');
    c.strokeStyle = ink('--line');
    const middle = r.log ? Math.sqrt(r.y0 * r.y1) : (r.y0 + r.y1) / 2;
    for (const [y, base] of [[r.y0, 'bottom'], [middle, 'middle'], [r.y1, 'top']]) {
      c.textAlign = 'right';
      c.textBaseline = base;
      c.fillText(this.unit(y), PAD.left - 5, py(y));
      c.beginPath();
      c.moveTo(PAD.left, py(y));
      c.lineTo(w - PAD.right, py(y));
      c.stroke();
    }
    c.textBaseline = 'bottom';
    c.textAlign = 'left';
    c.fillText(short(r.x0), px(r.x0), h);
    c.textAlign = 'right';
    c.fillText(short(r.x1), px(r.x1), h);
  }

  line(c, s, { px, py, stroke, width }) {
    c.strokeStyle = stroke;
    c.lineWidth = 1.5;
    c.beginPath();
    if (s.x.length <= 2 * width) {
      s.x.forEach((x, i) => (i ? c.lineTo(px(x), py(s.y[i])) : c.moveTo(px(x), py(s.y[i]))));
      if (s.x.length === 1) c.arc(px(s.x[0]), py(s.y[0]), 1.5, 0, 7);
    } else {
      let [column, low, high] = [null, 0, 0];
      const flush = () => { if (column !== null) { c.lineTo(column, py(low)); c.lineTo(column, py(high)); } };
      s.x.forEach((x, i) => {
        const now = Math.round(px(x));
        if (now !== column) { flush(); [column, low, high] = [now, s.y[i], s.y[i]]; }
        [low, high] = [Math.min(low, s.y[i]), Math.max(high, s.y[i])];
      });
      flush();
    }
    c.stroke();
  }

  entry(name, value, stroke) {
    const span = document.createElement('span');
    const mark = document.createElement('i');
    mark.style.background = stroke;
    span.append(mark, `${name} ${this.unit(value)}`);
    this.legend.append(span);
  }
}
