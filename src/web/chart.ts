// A line chart on a 2D canvas: several series over one x, linear or logarithmic, smoothed, with a crosshair that the mouse, a finger or the arrow keys move.
import { logTicks, nearestIndex, smoothed, ticks } from './axes.ts';
import { css, h, onTheme, short } from './dom.ts';

export interface Series {
  readonly name: string;
  /** Number of its colour in the style sheet: --series-0 to --series-5. */
  readonly colour: number;
  readonly x: readonly number[];
  /** NaN is a gap. */
  readonly y: readonly number[];
}

export interface ChartOptions {
  readonly title: string;
  readonly unit?: string;
  readonly log?: boolean;
  /** Drawn as it is, whatever the smoothing. */
  readonly exact?: boolean;
  /** What the x axis counts, for the crosshair. */
  readonly xName?: string;
}

const PAD = { left: 52, right: 12, top: 8, bottom: 22 };
/** All of a chart is drawn for a font of 16 pixels, and so much larger. */
const enlarged = (): number => parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;

export class Chart {
  readonly element: HTMLElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #readout: HTMLElement;
  readonly #options: ChartOptions;
  #series: readonly Series[] = [];
  #smoothing = 0;
  #at: number | null = null;
  /** Whether the next drawing tells screen readers what is at the crosshair: where the keyboard moved it, not a pointer or a step that came. */
  #tell = false;
  #queued = false;
  #range = { x0: 0, x1: 1, width: 0 };

  constructor(options: ChartOptions) {
    this.#options = options;
    this.#canvas = h('canvas', { tabIndex: 0, role: 'slider', aria: { label: `${options.title}, chart: arrow keys move the crosshair`, valuenow: '0', valuetext: 'nothing yet' } });
    this.#readout = h('span', { className: 'readout' });
    this.element = h('figure', { className: 'chart' }, h('figcaption', {}, h('b', {}, options.title), options.unit ? h('span', { className: 'faint' }, ` ${options.unit}`) : null, this.#readout), this.#canvas);
    new ResizeObserver(() => this.#queue()).observe(this.#canvas);
    onTheme(() => this.#queue());
    const move = (event: PointerEvent): void => {
      const { x0, x1, width } = this.#range;
      const inside = (event.offsetX / enlarged() - PAD.left) / Math.max(1, width - PAD.left - PAD.right);
      this.#point(x0 + Math.min(1, Math.max(0, inside)) * (x1 - x0));
    };
    this.#canvas.addEventListener('pointermove', move);
    this.#canvas.addEventListener('pointerdown', move);
    this.#canvas.addEventListener('pointerleave', () => this.#point(null));
    this.#canvas.addEventListener('blur', () => this.#point(null));
    this.#canvas.addEventListener('keydown', (event) => this.#key(event));
    this.#canvas.addEventListener('focus', () => {
      this.#tell = true;
      this.#queue();
    });
  }

  set(series: readonly Series[], smoothing = this.#smoothing): void {
    this.#series = series;
    this.#smoothing = smoothing;
    this.#queue();
  }

  #key(event: KeyboardEvent): void {
    const { x0, x1 } = this.#range, step = (x1 - x0) / 100;
    const from = this.#at ?? x1;
    const to = { ArrowLeft: from - step, ArrowRight: from + step, Home: x0, End: x1 }[event.key];
    if (event.key === 'Escape') this.#point(null);
    if (to === undefined) return;
    event.preventDefault();
    this.#tell = true;
    this.#point(Math.min(x1, Math.max(x0, to)));
  }

  #point(x: number | null): void {
    this.#at = x;
    this.#queue();
  }

  /** At most one drawing a frame, however much arrives. */
  #queue(): void {
    if (this.#queued) return;
    this.#queued = true;
    requestAnimationFrame(() => {
      this.#queued = false;
      this.#draw();
    });
  }

  #draw(): void {
    const canvas = this.#canvas, larger = enlarged(), ratio = (devicePixelRatio || 1) * larger;
    const width = canvas.clientWidth / larger, height = canvas.clientHeight / larger;
    if (width === 0 || height === 0) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const ctx = canvas.getContext('2d')!;
    ctx.scale(ratio, ratio);
    ctx.font = `11px ${css('--sans')}`;
    const shown = this.#series.filter((s) => s.x.length > 0);
    const log = this.#options.log === true;
    const lines = shown.map((s) => ({ ...s, smooth: smoothed(s.y, this.#options.exact ? 0 : this.#smoothing) }));
    const x0 = Math.min(...shown.map((s) => s.x[0]!)), x1 = Math.max(...shown.map((s) => s.x.at(-1)!));
    const [y0, y1] = valueRange(lines.map((s) => s.smooth), lines.map((s) => s.y), log);
    if (!(x1 >= x0) || !Number.isFinite(y0)) {
      ctx.fillStyle = css('--faint');
      ctx.fillText('nothing yet', PAD.left, height / 2);
      this.#readout.textContent = '';
      return;
    }
    this.#range = { x0, x1, width };
    const px = (x: number): number => PAD.left + ((x - x0) / Math.max(1e-12, x1 - x0)) * (width - PAD.left - PAD.right);
    const scale = (y: number): number => (log ? Math.log(y / y0) / Math.log(y1 / y0) : (y - y0) / (y1 - y0));
    const py = (y: number): number => height - PAD.bottom - scale(y) * (height - PAD.top - PAD.bottom);

    ctx.lineWidth = 1;
    ctx.strokeStyle = css('--line');
    ctx.fillStyle = css('--faint');
    ctx.textAlign = 'right';
    ctx.textBaseline = 'middle';
    for (const y of log ? logTicks(y0, y1) : ticks(y0, y1, 4)) {
      ctx.beginPath();
      ctx.moveTo(PAD.left, Math.round(py(y)) + 0.5);
      ctx.lineTo(width - PAD.right, Math.round(py(y)) + 0.5);
      ctx.stroke();
      ctx.fillText(tickText(y), PAD.left - 6, py(y));
    }
    ctx.textAlign = 'center';
    ctx.textBaseline = 'top';
    // The last one may stand at the edge.
    for (const [x, text] of ticks(x0, x1, Math.max(2, Math.floor(width / 110))).map((v) => [px(v), tickText(v)] as const)) ctx.fillText(text, Math.min(x, width - ctx.measureText(text).width / 2 - 1), height - PAD.bottom + 6);

    ctx.save();
    ctx.beginPath();
    ctx.rect(PAD.left - 1, PAD.top - 4, width - PAD.left - PAD.right + 5, height - PAD.top - PAD.bottom + 8);
    ctx.clip();
    ctx.lineJoin = 'round';
    for (const s of lines) {
      ctx.strokeStyle = css(`--series-${s.colour % 6}`);
      if (s.smooth !== s.y) {
        ctx.globalAlpha = 0.22;
        ctx.lineWidth = 1;
        trace(ctx, s.x, s.y, px, py);
      }
      ctx.globalAlpha = 1;
      ctx.lineWidth = 1.75;
      trace(ctx, s.x, s.smooth, px, py);
      const last = s.smooth.length - 1;
      ctx.fillStyle = ctx.strokeStyle;
      if (Number.isFinite(s.smooth[last])) disc(ctx, px(s.x[last]!), py(s.smooth[last]!), 3);
    }
    ctx.restore();
    this.#crosshair(ctx, lines, px, py, height);
  }

  #crosshair(ctx: CanvasRenderingContext2D, lines: readonly (Series & { smooth: readonly number[] })[], px: (x: number) => number, py: (y: number) => number, height: number): void {
    const at = this.#at;
    const rows = lines.map((s) => ({ s, i: at === null ? s.x.length - 1 : nearestIndex(s.x, at) }));
    if (at !== null && rows[0]) {
      const x = px(rows[0].s.x[rows[0].i]!);
      ctx.strokeStyle = css('--faint');
      ctx.lineWidth = 1;
      ctx.beginPath();
      ctx.moveTo(Math.round(x) + 0.5, PAD.top);
      ctx.lineTo(Math.round(x) + 0.5, height - PAD.bottom);
      ctx.stroke();
      for (const { s, i } of rows) {
        ctx.fillStyle = css(`--series-${s.colour % 6}`);
        if (Number.isFinite(s.smooth[i])) disc(ctx, px(s.x[i]!), py(s.smooth[i]!), 4);
      }
    }
    const { xName = 'step' } = this.#options;
    const parts = rows.map(({ s, i }) => `${lines.length > 1 ? `${s.name} ` : ''}${short(s.smooth[i]!)}`);
    this.#readout.textContent = `${parts.slice(0, 3).join(' · ')}${rows[0] && at !== null ? ` · ${xName} ${short(rows[0].s.x[rows[0].i]!)}` : ''}`;
    if (!this.#tell) return;
    this.#tell = false;
    const { x0, x1 } = this.#range;
    Object.assign(this.#canvas, { ariaValueMin: String(x0), ariaValueMax: String(x1), ariaValueNow: String(at ?? x1), ariaValueText: this.#readout.textContent });
  }
}

function disc(ctx: CanvasRenderingContext2D, x: number, y: number, r: number): void {
  ctx.beginPath();
  ctx.arc(x, y, r, 0, 2 * Math.PI);
  ctx.fill();
}

/** Draws at most two points a pixel column, the least and the greatest: a run of a million steps costs what the screen is wide. */
function trace(ctx: CanvasRenderingContext2D, x: readonly number[], y: readonly number[], px: (x: number) => number, py: (y: number) => number): void {
  ctx.beginPath();
  let open = false, column = NaN, low = NaN, high = NaN;
  const close = (): void => {
    if (!Number.isFinite(low)) return;
    if (open) ctx.lineTo(column, py(low));
    else ctx.moveTo(column, py(low));
    if (high !== low) ctx.lineTo(column, py(high));
    open = true;
  };
  for (let i = 0; i < x.length; i++) {
    const value = y[i]!, at = Math.round(2 * px(x[i]!)) / 2;
    if (!Number.isFinite(value)) {
      close();
      open = false;
      column = low = high = NaN;
    } else if (at === column) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    } else {
      close();
      column = at;
      low = high = value;
    }
  }
  close();
  ctx.stroke();
}

/** The range of the axis: all of the smooth lines, and of the raw ones but their few wildest values. */
function valueRange(smooth: readonly (readonly number[])[], raw: readonly (readonly number[])[], log: boolean): [number, number] {
  const good = (v: number): boolean => Number.isFinite(v) && (!log || v > 0);
  const sorted = raw.flat().filter(good).sort((a, b) => a - b);
  const lines = smooth.flat().filter(good);
  if (sorted.length === 0) return [NaN, NaN];
  const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
  let low = at(0.002), high = at(0.998);
  for (const v of lines) {
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  if (log) return high > low ? [low / 1.05, high * 1.05] : [low / 2, high * 2];
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

const tickText = (v: number): string => {
  const size = Math.abs(v);
  if (size >= 1e6) return `${Number((v / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((v / 1e3).toPrecision(3))}k`;
  return size !== 0 && size < 1e-3 ? v.toExponential(0) : String(Number(v.toPrecision(4)));
};
