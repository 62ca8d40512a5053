// The page: a list of runs, or one run with its pictures, curves, configuration and asset. What comes from a
// run is only ever set as text.

import { Chart, short } from './chart.js';
import { Viewer } from './viewer.js';

const $ = (id) => document.getElementById(id);
const note = document.documentElement.dataset;
const STAGES = {
  prior: 'loading the prior', pictures: 'reading the pictures', optimize: 'optimising', mesh: 'meshing',
  export: 'writing', compare: 'comparing',
};
const CAPTIONS = {
  'preview.png': 'the field now', 'history.png': 'how it came about', 'sheet.png': 'the asset',
  'compare.png': 'against the pictures',
};

async function json(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
}

function bytes(x) {
  if (x >= 1e9) return `${(x / 2 ** 30).toFixed(2)} GiB`;
  return x >= 1e6 || x === 0 ? `${(x / 2 ** 20).toFixed(0)} MiB` : `${Math.ceil(x / 1024)} KiB`;
}

function median(list) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** One run's curves and what it said. */
class Run {
  constructor(id) {
    Object.assign(this, { id, offset: 0, mark: '0', last: null, recent: [], particles: 1, asset: null, shown: {} });
    $('pictures').replaceChildren();
    $('charts').replaceChildren();
    $('warnings').replaceChildren();
    $('asset').hidden = true;
    this.charts = {};
    this.forget();
    json(`/api/runs/${id}/config`).then((table) => this.config(table)).catch(() => {});
  }

  forget() {
    Object.values(this.charts).forEach((c) => c.cut(-1));
    Object.assign(this, { last: null, recent: [], stage: null, finished: null });
    $('warnings').replaceChildren();
  }

  chart(name, options) {
    this.charts[name] ??= new Chart($('charts'), name, options);
    return this.charts[name];
  }

  config(table) {
    const body = $('config').tBodies[0];
    body.replaceChildren();
    const walk = (value, path) => {
      if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
        Object.entries(value).forEach(([key, inner]) => walk(inner, path ? `${path}.${key}` : key));
        return;
      }
      const row = element('tr', undefined, body);
      element('td', path, row);
      element('td', JSON.stringify(value), row);
    };
    walk(table, '');
  }

  /** Reads on, and draws. */
  async poll() {
    let answer;
    do {
      answer = await json(`/api/runs/${this.id}/events/${this.offset}/${this.mark}`);
      const { log } = answer;
      if (log.reset) this.forget();
      [this.offset, this.mark] = [log.next, log.mark || '0'];
      log.events.forEach((e) => this.take(e));
    } while (answer.log.more);
    Object.values(this.charts).forEach((c) => c.draw());
    this.status(answer.run);
    this.pictures(answer.run);
    await this.assets(answer.run);
    note.steps = this.last?.step ?? 0;
  }

  take(e) {
    switch (e.event) {
      case 'stage_started': this.stage = e.stage; break;
      case 'started': this.finished = null; break;
      case 'resumed': Object.values(this.charts).forEach((c) => c.cut(e.step)); break;
      case 'restarted':
        Object.values(this.charts).forEach((c) => c.cut(-1));
        element('li', `${e.reason} after ${e.step} steps: begun again with seed ${e.seed}`, $('warnings'));
        break;
      case 'warning': element('li', e.hint ? `${e.message} (${e.hint})` : e.message, $('warnings')); break;
      case 'step': this.step(e); break;
      case 'fit_step': this.step(e); break;
      case 'finished': this.finished = e; break;
      default:
    }
  }

  step(e) {
    this.particles = this.last?.step === e.step ? this.particles + 1 : 1;
    this.last = e;
    this.recent.push(e.seconds);
    if (this.recent.length > 40) this.recent.shift();
    const add = (chart, options, values) => {
      for (const [name, value] of Object.entries(values)) {
        if (typeof value === 'number') this.chart(chart, options).add(name, e.step, value);
      }
    };
    if (e.psnr !== undefined) add('PSNR, dB', {}, { psnr: e.psnr });
    add('guidance', { log: true }, { 'gradient on latents, rms': e.guidance });
    add('loss terms', {}, e.terms ?? { regularisers: e.regularizer });
    add('gradient norm', { log: true }, { gradient: e.gradient });
    add('opacity', { zero: true }, { opacity: e.opacity, haze: e.haze });
    if (e.learned > 0) add('loss of the particles’ estimate', { log: true }, { learned: e.learned });
    add('diffusion timestep', { zero: true }, { timestep: e.timestep });
    add('steps a second', { zero: true }, { 'it/s': 1 / median(this.recent) });
    if (e.memory > 0) add('memory', { zero: true, unit: bytes }, { process: e.memory });
    add('learning rate', { zero: true }, { grid: e.learning_rate });
  }

  status(run) {
    $('title').textContent = run.what ? `${run.what} (${run.name})` : run.name;
    const parts = [];
    const { last } = this;
    if (this.finished) {
      const { mesh, bytes: size, seconds } = this.finished;
      parts.push('finished', `${mesh?.triangles ?? '?'} triangles`, bytes(size), duration(seconds));
    } else if (this.stage) {
      parts.push(STAGES[this.stage] ?? this.stage);
    } else {
      parts.push('waiting for the run');
    }
    if (last) {
      parts.push(`step ${last.step} of ${last.steps}`);
      if (!this.finished && this.stage === 'optimize') {
        const each = median(this.recent) * this.particles;
        parts.push(`${short(1 / each)} it/s`, `${duration((last.steps - last.step) * each)} left`);
      }
      $('progress').value = last.step / last.steps;
    }
    $('progress').hidden = !last || !!this.finished;
    if (!this.finished && run.age > 60) parts.push(`the log is silent since ${duration(run.age)}`);
    $('status').textContent = parts.join(' · ');
    note.state = this.finished ? 'finished' : this.stage ?? 'waiting';
  }

  pictures(run) {
    for (const name of run.pictures) {
      const now = `${this.offset}`;
      const known = this.shown[name];
      if (known?.version === now) continue;
      const figure = known?.figure ?? element('figure', undefined, $('pictures'));
      if (!known) {
        element('img', undefined, figure).alt = CAPTIONS[name];
        element('figcaption', CAPTIONS[name], figure);
      }
      this.shown[name] = { figure, version: now };
      // Loaded aside, so that nothing flickers.
      const next = new Image();
      next.alt = CAPTIONS[name];
      next.onload = () => figure.firstChild.replaceWith(next);
      next.src = `/runs/${this.id}/${name}?${now}`;
    }
  }

  /** The finished assets. */
  async assets(run) {
    const key = this.finished ? `${this.offset} ${run.assets.join('/')}` : null;
    if (!key || key === this.asset) return;
    this.asset = key;
    $('asset').hidden = false;
    $('which').replaceChildren();
    run.assets.forEach((name, i) => { element('option', name, $('which')).value = i; });
    await this.show(0);
  }

  async show(number) {
    const path = `/runs/${this.id}/asset-${number}.glb`;
    try {
      const answer = await fetch(path);
      if (!answer.ok) throw new Error('only .glb files can be shown here');
      const glb = await viewer().load(await answer.arrayBuffer());
      $('download').href = path;
      $('download').download = $('which').selectedOptions[0]?.textContent ?? 'asset.glb';
      $('about').textContent = `${glb.triangles} triangles`;
      note.viewer = `${glb.triangles}`;
    } catch (e) {
      $('about').textContent = e.message;
      note.viewer = 'failed';
    }
  }
}

let theViewer = null;
function viewer() {
  theViewer ??= new Viewer($('view'));
  return theViewer;
}

let run = null;

$('which').addEventListener('change', (e) => run?.show(e.target.value));
$('mode').addEventListener('change', (e) => { viewer().mode = Number(e.target.value); viewer().ask(); });
$('spin').addEventListener('change', (e) => { viewer().spin = e.target.checked; viewer().ask(); });

async function list() {
  const runs = await json('/api/runs');
  if (runs.length === 1 && !location.hash) {
    location.hash = runs[0].id;
    return;
  }
  const body = $('runs').querySelector('tbody');
  body.replaceChildren();
  for (const r of runs) {
    const row = element('tr', undefined, body);
    element('a', r.name, element('td', undefined, row)).href = `#${r.id}`;
    element('td', r.what ?? '', row);
    element('td', r.finished ? 'finished' : STAGES[r.stage] ?? r.stage ?? 'waiting', row);
    element('td', r.steps ? `${r.step} of ${r.steps}` : '', row);
    element('td', r.age === null ? '' : `${duration(r.age)} ago`, row);
  }
  $('title').textContent = '';
  $('status').textContent = runs.length === 1 ? '1 run' : `${runs.length} runs`;
  note.state = 'list';
  note.runs = runs.length;
}

async function tick() {
  const id = location.hash.slice(1);
  try {
    if (run?.id !== id) {
      run = id ? new Run(id) : null;
      $('run').hidden = !run;
      $('runs').hidden = !!run;
      $('progress').hidden = true;
    }
    await (run ? run.poll() : list());
  } catch (e) {
    $('status').textContent = `no answer (${e.message}); is gen3d watch still there?`;
  }
}

let [timer, busy, pending] = [null, false, false];
async function again() {
  if (busy) {
    pending = true;
    return;
  }
  busy = true;
  clearTimeout(timer);
  do {
    pending = false;
    await tick();
  } while (pending);
  busy = false;
  timer = setTimeout(again, document.hidden ? 5000 : 1000);
}
window.addEventListener('hashchange', again);
window.addEventListener('resize', () => run && Object.values(run.charts).forEach((c) => c.draw()));
again();
