// The view of one or more runs: charts over their steps, sample grids with a slider, settings. Live from a server, or from what a report carries.
import { Chart } from '../chart.ts';
import { breakable, byId, fill, h, short } from '../dom.ts';
import { type Column, History } from './history.ts';
import type { MetricsLine, Run, RunReport, SampleGrid } from './run.ts';

interface Shown {
  run: Run;
  readonly history: History;
  readonly colour: number;
  on: boolean;
  /** When its last line came, in performance.now(). */
  heard: number;
}

const CHARTS: readonly { column: Column; title: string; unit?: string; log?: boolean; exact?: boolean }[] = [
  { column: 'loss', title: 'Loss', log: true },
  { column: 'grad_norm', title: 'Gradient norm', unit: 'before clipping', log: true },
  { column: 'images_per_s', title: 'Speed', unit: 'images a second' },
  { column: 'lr', title: 'Learning rate', exact: true },
];
/** A run whose lines came this recently is taken to be training. */
const LIVE_MS = 15_000;
/** How often the page asks which runs there are. */
const LOOK_MS = 5000;
/** Runs that are shown at first, where there are more. */
const FIRST = 4;

const page = byId('page');
const shown: Shown[] = [];
const charts = CHARTS.map((options) => ({ ...options, chart: new Chart(options) }));
const levels = new Chart({ title: 'Loss by noise level', unit: 'over t', log: true, xName: 't' });
const levelsCard = h('section', { className: 'card', hidden: true }, levels.element);
const numbers = h('div', { className: 'stack' });
const samples = h('section', { className: 'card stack', hidden: true });
const settings = h('section', { className: 'card', hidden: true });
const picker = h('section', { className: 'card row', hidden: true, role: 'group', aria: { label: 'runs to show' } });
const none = h('p', { className: 'message note' }, 'There is no run here yet; one that starts appears by itself. Start one with npm run train in a clone, or with ddpm-wgsl train where the package is installed.');
let smoothing = 0.9;

const smooth = h('input', { type: 'range', min: '0', max: '0.995', step: '0.005', value: String(smoothing), id: 'smoothing' });
smooth.addEventListener('input', () => {
  smoothing = Number(smooth.value);
  redraw();
});

const content = [
  picker,
  numbers,
  h('div', { className: 'row' }, h('label', { className: 'slider', style: 'max-width: 340px' }, 'Smoothing', smooth)),
  h('div', { className: 'grid' }, ...charts.map(({ chart }) => h('section', { className: 'card' }, chart.element)), levelsCard),
  samples,
  settings,
];

const visible = (): Shown[] => shown.filter((s) => s.on);

function redraw(): void {
  const on = visible();
  for (const { chart, column } of charts)
    chart.set(on.map(({ run, history, colour }) => ({ name: run.name, colour, x: history.step, y: history.columns[column] })), smoothing);
  levelsCard.hidden = !on.some(({ history }) => history.levels.length > 0);
  levels.set(
    on.filter(({ history }) => history.levels.length > 0).map(({ run, history, colour }) => {
      const T = Number(run.config['timesteps'] ?? 1000), n = history.levels.length;
      return { name: run.name, colour, x: history.levels.map((_, i) => ((i + 0.5) * T) / n), y: history.levels.map((v) => v.reduce((a, b) => a + b, 0) / v.length) };
    }),
    0,
  );
  fill(numbers, ...on.map(summary));
}

function summary({ run, history, colour, heard }: Shown): HTMLElement {
  const steps = Number(run.config['steps']), done = history.last;
  const rate = history.recent('images_per_s') / Number(run.config['batch_size']);
  const live = performance.now() - heard < LIVE_MS && done < steps;
  const left = (steps - done) / rate;
  const facts: [string, string][] = [
    ['step', `${short(done)}${steps ? ` / ${short(steps)}` : ''}`], ['epoch', short(Number(history.epoch.toPrecision(3)))], ['loss, last 50', short(history.recent('loss'))],
    ['images a second', short(Number(history.recent('images_per_s').toPrecision(3)))], ...(live && Number.isFinite(left) ? [['time left', duration(left)] as [string, string]] : []),
    ...(history.skipped ? [['steps skipped', String(history.skipped)] as [string, string]] : []),
  ];
  return h(
    'section', { className: 'card stack', style: 'gap: .5rem' },
    h('div', { className: 'row' }, h('span', { className: 'dot', style: `background: var(--series-${colour % 6})` }), h('h2', {}, run.name), h('span', { className: live ? 'good' : 'faint' }, live ? 'training' : done >= steps && steps ? 'done' : 'not running')),
    h('dl', { className: 'numbers' }, ...facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))),
    memoryBar(run),
  );
}

function memoryBar({ env }: Run): HTMLElement | null {
  const memory = env['memory'];
  if (typeof memory !== 'object' || memory === null) return null;
  const parts = Object.entries(memory).filter((part): part is [string, number] => typeof part[1] === 'number'), total = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
  const MiB = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MiB`;
  return h(
    'div', { className: 'stack', style: 'gap: .35rem' },
    h('div', { className: 'stacked', role: 'img', aria: { label: `device memory ${MiB(total)}` } }, ...parts.map(([, bytes], i) => h('span', { style: `flex: ${bytes}; background: var(--series-${i % 6})` }))),
    h('div', { className: 'legend' }, h('span', {}, `memory ${MiB(total)}`), ...parts.map(([name, bytes], i) => h('span', {}, h('span', { className: 'dot', style: `background: var(--series-${i % 6})` }), `${name} ${MiB(bytes)}`))),
  );
}

function duration(seconds: number): string {
  const minutes = Math.round(seconds / 60);
  return minutes >= 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : minutes > 0 ? `${minutes} min` : `${Math.round(seconds)} s`;
}

// ---- samples

let chosen = 1; // where the slider stands, as a share of the way: runs differ in how many grids they have

const slider = h('input', { type: 'range', min: '0', max: '1', step: '1', value: '1', aria: { label: 'step of the samples' } });
const pictures = h('div', { className: 'row', style: 'align-items: flex-start' });
const labelOf = ({ step, name }: SampleGrid): string => (step === null ? name.replace(/\.png$/, '') : `step ${short(step)}`);
slider.addEventListener('input', () => {
  chosen = Number(slider.max) > 0 ? Number(slider.value) / Number(slider.max) : 1;
  showPictures();
});
fill(samples, h('div', { className: 'row' }, h('h2', {}, 'Samples'), h('label', { className: 'slider' }, slider)), pictures);

function showSamples(): void {
  const most = Math.max(0, ...visible().map(({ run }) => run.samples.length));
  samples.hidden = most === 0;
  slider.max = String(Math.max(0, most - 1));
  slider.value = String(Math.round(chosen * (most - 1)));
  slider.disabled = most < 2;
  showPictures();
}

function showPictures(): void {
  const at = visible().filter(({ run }) => run.samples.length > 0).map(({ run, colour }) => ({ run, colour, grid: run.samples[Math.round(chosen * (run.samples.length - 1))]! }));
  slider.ariaValueText = at.map(({ grid }) => labelOf(grid)).join(', ');
  fill(pictures, ...at.map(({ run, colour, grid }) => h(
    'figure', { style: 'margin: 0' },
    h('img', { className: 'pixels', src: grid.url, alt: `samples of ${run.name}, ${labelOf(grid)}`, width: 512 }),
    h('figcaption', { className: 'row soft' }, at.length > 1 ? h('span', { className: 'dot', style: `background: var(--series-${colour % 6})` }) : null, at.length > 1 ? h('span', {}, run.name) : null, h('span', {}, labelOf(grid))),
  )));
}

// ---- settings

function showSettings(): void {
  const on = visible();
  settings.hidden = on.length === 0;
  const keys = [...new Set(on.flatMap(({ run }) => Object.keys(run.config)))].filter((key) => key !== 'ddpm.wgsl');
  const text = (value: unknown): string => (value === undefined || value === null ? '–' : typeof value === 'object' ? JSON.stringify(value) : String(value));
  // Where runs differ is what one looks for: those rows come first.
  const differs = (key: string): boolean => new Set(on.map(({ run }) => text(run.config[key]))).size > 1;
  keys.sort((a, b) => Number(differs(b)) - Number(differs(a)));
  const device = (run: Run): string => text((run.env['adapter'] as Record<string, unknown> | undefined)?.['description']);
  fill(settings, h('details', { open: on.length > 1 }, h('summary', {}, 'Settings'), h('div', { className: 'wide', tabIndex: 0, role: 'region', aria: { label: 'settings of the runs' } }, h(
    'table', {},
    h('thead', {}, h('tr', {}, h('th', {}, ''), ...on.map(({ run }) => h('th', {}, run.name)))),
    h('tbody', {}, h('tr', {}, h('th', {}, 'device'), ...on.map(({ run }) => h('td', {}, device(run)))),
      ...keys.map((key) => h('tr', {}, h('th', {}, ...breakable(key)), ...on.map(({ run }) => h('td', {}, differs(key) ? h('b', {}, text(run.config[key])) : text(run.config[key])))))),
  ))));
}

// ---- which runs

function showPicker(): void {
  picker.hidden = shown.length < 2;
  fill(picker, h('span', { className: 'faint' }, 'Runs'), ...shown.map((s) => {
    const box = h('input', { type: 'checkbox', checked: s.on });
    box.addEventListener('change', () => {
      s.on = box.checked;
      showAll();
      listen();
    });
    return h('label', {}, box, h('span', { className: 'dot', style: `background: var(--series-${s.colour % 6})` }), s.run.name);
  }));
}

function showAll(): void {
  const on = visible();
  byId('title').textContent = on.length === 1 ? on[0]!.run.name : `${on.length} runs`;
  document.title = `${on.length === 1 ? on[0]!.run.name : 'runs'} · ddpm.wgsl`;
  redraw();
  showSamples();
  showSettings();
}

let colours = 0;

function add(run: Run, on: boolean): Shown {
  const entry: Shown = { run, history: new History(), colour: colours++, on, heard: -Infinity };
  shown.push(entry);
  return entry;
}

// ---- live

let source: EventSource | null = null;
const offsets = new Map<string, number>(); // bytes of metrics.jsonl that are here
let ready = 0;
let answered = false; // whether the server has said which runs there are

/** One stream for all runs that are shown: a browser opens only six to a server. */
function listen(): void {
  source?.close();
  source = null;
  const on = visible();
  if (on.length === 0 || report) return;
  const query = on.map(({ run }) => `run=${encodeURIComponent(run.id)}&from=${offsets.get(run.id) ?? 0}`).join('&');
  source = new EventSource(`api/events?${query}`);
  let pending = false;
  const soon = (): void => {
    if (pending) return;
    pending = true;
    setTimeout(() => {
      pending = false;
      redraw();
    }, 100);
  };
  source.addEventListener('lines', (event) => {
    const [index, ...lines] = (event.data as string).split('\n'), s = on[Number(index)]!;
    for (const line of lines) s.history.add(JSON.parse(line) as MetricsLine);
    event.lastEventId.split(',').forEach((offset, i) => offsets.set(on[i]!.run.id, Number(offset)));
    if (performance.now() - ready > 2000) s.heard = performance.now(); // not what was there when the page opened
    soon();
  });
  source.addEventListener('run', (event) => {
    const { index, run } = JSON.parse(event.data as string) as { index: number; run: Run };
    on[index]!.run = run;
    showSamples();
  });
  source.onopen = () => {
    ready = performance.now();
    byId('status').textContent = 'live';
  };
  source.onerror = silent;
}

const text = byId('report').textContent!;
const report = text.startsWith('[') ? (JSON.parse(text) as RunReport[]) : null;

async function open(): Promise<void> {
  if (report) {
    for (const { lines, ...run } of report) {
      const entry = add(run, true);
      for (const line of lines) entry.history.add(line);
    }
    byId('status').textContent = 'report';
    show();
  } else {
    await look();
    // Whether a run still trains shows in that nothing came for a while; others may have begun.
    setInterval(() => {
      redraw();
      void look();
    }, LOOK_MS);
  }
}

const silent = (): void => void (byId('status').textContent = 'the server is gone; trying again');

/** Shows the runs that are there now, where that has changed, and follows them again where the server ended that. */
async function look(): Promise<void> {
  let runs: Run[];
  try {
    const answer = await fetch('api/runs');
    if (!answer.ok) throw new Error(await answer.text());
    runs = (await answer.json()) as Run[];
  } catch {
    silent();
    answered &&= shown.length > 0;
    if (!answered) fill(page, h('p', { className: 'message' }, 'The server of this page does not answer. Does the command that gave its address still run? When it is back, the page goes on by itself.'));
    return;
  }
  const before = shown.map(({ run }) => run.id), fresh = runs.filter(({ id }) => !before.includes(id)), gone = before.filter((name) => !runs.some(({ id }) => id === name));
  for (const name of gone) {
    shown.splice(shown.findIndex(({ run }) => run.id === name), 1);
    offsets.delete(name);
  }
  for (const run of fresh) add(run, visible().length < FIRST);
  if (!answered || fresh.length + gone.length > 0) show();
  else if (source?.readyState === EventSource.CLOSED) listen();
  answered = true;
  if (!source) byId('status').textContent = '';
}

function show(): void {
  fill(page, ...(shown.length > 0 ? content : [none]));
  showPicker();
  showAll();
  listen();
}

await open();
