// Sample in the tab: a model from files, a sampler, the chain of x_t and x_0 to scrub through, interpolation, and a brush to inpaint with.
import { SAMPLERS, type SamplerName } from '../../diffusion/samplers/table.ts';
import { DdpmError } from '../../errors.ts';
import type { Picture } from '../../io/picture.ts';
import { fill, h, short } from '../dom.ts';
import type { Client } from './client.ts';
import type { DrawRequest, Floats, ModelFacts } from './messages.ts';
import { Pad } from './pad.ts';
import { busy, classOptions, dropZone, facts, field, Message, need, number, select } from './parts.ts';
import { animation, download, grid, show, still } from './pictures.ts';
import { kept } from './store.ts';

const NAMES: Readonly<Record<SamplerName, string>> = { ddpm: 'DDPM', ddim: 'DDIM', 'dpm++1': 'DPM-Solver++ 1', 'dpm++2m': 'DPM-Solver++ 2M', heun: 'Heun', langevin: 'Langevin' };
const STEPS: Readonly<Record<SamplerName, number>> = { ddpm: 1000, ddim: 50, 'dpm++1': 20, 'dpm++2m': 20, heun: 18, langevin: 50 };
/** Steps of a chain that are kept, at most, evenly spread. */
const KEPT = 120;

interface Link {
  /** Steps of the chain that lead to it. */
  readonly done: number;
  readonly t: number;
  readonly x: Floats;
  readonly x0: Floats;
}

export function samplePage(client: Client): { element: HTMLElement } {
  const message = new Message(), button = (id: string, text: string, className = ''): HTMLButtonElement => h('button', { type: 'button', id, className }, text);
  const [draw, cancel, useKept] = [button('draw', 'Draw', 'primary'), button('cancel', 'Stop'), button('use-kept', 'The run that is kept')];
  const [png, apng, raw] = [button('png', 'PNG'), button('apng', 'Animated PNG'), button('raw', 'Numbers')];
  const method = select(Object.fromEntries(SAMPLERS.map((s) => [s, NAMES[s]])) as Record<SamplerName, string>, 'ddim', 'sampler');
  const steps = number('sample-steps', 50, { min: 1 }), eta = number('eta', 0, { min: 0, max: 1, step: 0.1 }), seed = number('sample-seed', 0, { min: 0, max: 0xffffffff }), n = number('count', 16, { min: 1, max: 64 });
  const label = h('select', { id: 'label' }), guidance = number('guidance', 1, { min: 0, max: 20, step: 0.1 }), classes = h('div', { hidden: true }, field('Class', label), field('Guidance', guidance));
  const resamples = number('resamples', 3, { min: 1, max: 20 });
  eta.title = 'Fresh noise in each step of DDIM: 0 for none, 1 for as much as DDPM';
  resamples.title = 'How often each stretch of the chain is gone over: more often fits what is painted better into what is kept';
  raw.title = 'The values of the images as float32, in the order of images, rows, columns, channels';
  const interpolate = h('input', { type: 'checkbox', id: 'interpolate' });
  const about = h('dl', { className: 'numbers', id: 'model' }), progress = h('progress', { max: 1, value: 0, hidden: true, style: 'width: 100%', aria: { label: 'steps of the chain' } });
  const canvas = (id: string, label: string): HTMLCanvasElement => h('canvas', { id, className: 'pixels', style: 'width: 100%', width: 1, height: 1, role: 'img', aria: { label } });
  const shownX = canvas('chain-x', 'x_t'), shownX0 = canvas('chain-x0', 'the predicted x_0');
  const scrub = h('input', { type: 'range', id: 'scrub', min: '0', max: '0', value: '0', disabled: true, aria: { label: 'step of the chain' } }), at = h('span', { className: 'soft', id: 'at' }, 'give a model first'), drawn = h('p', { className: 'faint', id: 'drawn', role: 'status' });
  const hint = h('p', { className: 'faint' }, 'Draw once, then brush over a part of an image to draw it anew. The images must be square.');
  const inpaint = h('div', { className: 'stack', style: 'gap: .5rem' }, hint), pick = button('inpaint', 'Inpaint the first image');

  let model: ModelFacts | null = null, drawing = false;
  let chain: Link[] = [], length = 0, result: Floats | null = null, columns = 4;
  /** An image of the last draw and a mask over it: what is brushed is drawn anew. */
  let brush: { readonly known: Floats; readonly pad: Pad } | null = null;

  const size = () => ({ height: model!.shape[0], width: model!.shape[1], channels: model!.shape[2] });

  function buttons(): void {
    draw.disabled = !model || drawing;
    cancel.disabled = !drawing;
    png.disabled = raw.disabled = pick.disabled = !result;
    apng.disabled = chain.length === 0 || drawing;
    eta.disabled = method.value !== 'ddim';
  }

  function look(): void {
    const link = chain[Number(scrub.value)];
    if (!link || !model) return;
    show(shownX, grid(link.x, size(), columns));
    show(shownX0, grid(link.x0, size(), columns));
    at.textContent = scrub.ariaValueText = `after step ${short(link.done)} of ${short(length)}, at t = ${short(link.t)}`;
  }

  async function load(name: string, weights: Uint8Array, config: string | null, scheduler: string | null): Promise<void> {
    model = await client.call('model', { name, weights, config, scheduler });
    [chain, result, brush] = [[], null, null];
    // What another model drew goes with it.
    for (const picture of [shownX, shownX0]) picture.width = picture.height = 1;
    scrub.disabled = true;
    [at.textContent, drawn.textContent] = ['nothing drawn yet', ''];
    fill(inpaint, hint);
    classes.hidden = model.classes === 0;
    fill(label, ...classOptions(model.classes, model.classNames));
    guidance.value = '1';
    facts(about, [['weights', model.name], ['parameters', short(model.parameters)], ['images', model.shape.join(' × ')], ['noise levels', short(model.T)]]);
  }

  const zone = dropZone('model-files', 'Drop a .safetensors file and its config.json (and scheduler_config.json), or a run saved by this page', '.safetensors,.json', (files) =>
    void busy(draw, message, async () => {
      const file = (pattern: RegExp): File | undefined => files.find((f) => pattern.test(f.name));
      const weights = file(/\.safetensors$/) ?? files.find((f) => !f.name.endsWith('.json'));
      if (!weights) throw new DdpmError('E-FILE', 'Weights are missing: give the .safetensors file together with config.json.');
      const config = file(/^config\.json$/) ?? files.find((f) => f.name.endsWith('.json') && !f.name.includes('scheduler')), scheduler = file(/scheduler.*\.json$/);
      await load(weights.name, new Uint8Array(await weights.arrayBuffer()), (await config?.text()) ?? null, (await scheduler?.text()) ?? null);
    }).then(buttons));
  useKept.addEventListener('click', () => void busy(useKept, message, async () => {
    const run = await kept('run');
    if (!run) throw new DdpmError('E-FILE', 'The browser has kept no run: train one first.');
    await load('the kept run', run, null, null);
  }).then(buttons));

  async function drawNow(): Promise<void> {
    need(steps, eta, seed, n, ...(model!.classes ? [guidance] : []), ...(brush ? [resamples] : []));
    const request: DrawRequest = {
      method: method.value as SamplerName, steps: Math.min(Number(steps.value), model!.T), eta: Number(eta.value), seed: Number(seed.value), n: Number(n.value), interpolate: interpolate.checked,
      label: model!.classes ? label.value : null, guidance: model!.classes ? Number(guidance.value) : 1,
      inpaint: brush && { known: brush.known, mask: brush.pad.cover().map((v) => (v > 0.3 ? 1 : 0)), resamples: Number(resamples.value) },
    };
    if (request.inpaint && !request.inpaint.mask.includes(1)) throw new DdpmError('E-USAGE', 'Nothing is brushed over, so there is nothing to draw anew. Brush over a part of the image, or leave it.');
    [drawing, chain, result] = [true, [], null];
    [scrub.max, scrub.disabled, at.textContent] = ['0', true, ''];
    columns = request.interpolate ? Math.min(8, request.n) : Math.ceil(Math.sqrt(request.n));
    progress.hidden = false;
    progress.value = 0;
    drawn.textContent = '';
    buttons();
    const began = performance.now();
    try {
      result = await client.call('draw', request);
      drawn.textContent = `${request.n} ${request.n === 1 ? 'image' : 'images'} in ${short(Number(((performance.now() - began) / 1000).toPrecision(3)))} s`;
      offerBrush();
    } catch (error) {
      if ((error as { code?: string }).code !== 'E-ABORTED') throw error;
      drawn.textContent = 'stopped; the steps that were drawn can be looked at';
    } finally {
      drawing = false;
      progress.hidden = true;
      Object.assign(globalThis, { ddpm: { samples: result, shape: result && [request.n, ...model!.shape] } }); // for the console
    }
  }

  function offerBrush(): void {
    const { height, width } = size();
    if (height !== width || brush) return;
    fill(inpaint, pick);
  }

  pick.addEventListener('click', () => {
    const [height, width, channels] = model!.shape, pad = new Pad(height, 'mask over the image', { width: 4, colour: 'rgba(255, 90, 60, 0.85)' });
    brush = { known: result!.slice(0, height * width * channels), pad };
    const under = canvas('under', 'the image to keep'), off = button('leave', 'Leave'), anew = button('anew', 'Draw anew', 'primary'), clear = button('clear-brush', 'Clear the brush');
    show(under, grid(brush.known, size(), 1, 0)); // without a frame: the brush lies over it pixel by pixel
    off.addEventListener('click', () => {
      brush = null;
      offerBrush();
      pick.focus();
    });
    anew.addEventListener('click', () => draw.click()); // which is off while it draws
    clear.addEventListener('click', () => pad.clear());
    fill(inpaint, h('p', {}, 'Brush over what shall be drawn anew.'), h('div', { className: 'over' }, under, pad.element), h('div', { className: 'narrow' }, field('Times over', resamples)), h('div', { className: 'row' }, anew, clear, off));
    pad.element.focus();
  });

  draw.addEventListener('click', () => void busy(draw, message, drawNow).then(buttons));
  cancel.addEventListener('click', () => void client.call('cancel', null));
  scrub.addEventListener('input', look);
  method.addEventListener('change', () => {
    steps.value = String(Math.min(STEPS[method.value as SamplerName], model?.T ?? Infinity));
    buttons();
  });
  client.on('chain', ({ done, steps: of, t, x, x0 }) => {
    progress.value = done / of;
    const every = Math.ceil(of / KEPT);
    if (done % every !== 0 && done !== of) return;
    const follow = Number(scrub.value) >= chain.length - 1;
    chain.push({ done, t, x, x0 });
    length = of;
    scrub.max = String(chain.length - 1);
    scrub.disabled = chain.length < 2;
    if (follow) scrub.value = scrub.max;
    look();
  });
  png.addEventListener('click', () => void busy(png, message, async () => download('samples.png', await still(grid(result!, size(), columns)), 'image/png')).then(buttons));
  apng.addEventListener('click', () => void busy(apng, message, async () => download('chain.png', await animation(chain.map(({ x }): Picture => grid(x, size(), columns))), 'image/png')).then(buttons));
  raw.addEventListener('click', () => download('x_0.f32', result!));

  const element = h(
    'div', { className: 'columns side' },
    h('h1', {}, 'Sample from a model'),
    h('div', { className: 'stack', style: 'align-content: start' },
      h('section', { className: 'card stack' }, h('h2', {}, 'Model'), zone, h('div', { className: 'row' }, useKept), about),
      h('section', { className: 'card' }, h('h2', {}, 'Sampler'), field('Method', method), field('Steps', steps), field('Eta', eta), field('Seed', seed), field('Images', n), field('From one noise to another', interpolate), classes)),
    h('div', { className: 'stack', style: 'align-content: start' },
      h('section', { className: 'card stack' }, h('div', { className: 'row' }, draw, cancel, h('span', { className: 'faint' }, 'Save'), png, apng, raw), message.element, progress, drawn, h('div', { className: 'row' }, h('label', { className: 'slider' }, scrub), at)),
      h('div', { className: 'columns half' },
        h('section', { className: 'card stack', style: 'gap: .5rem' }, h('h2', {}, 'x', h('sub', {}, 't')), shownX),
        h('section', { className: 'card stack', style: 'gap: .5rem' }, h('h2', {}, 'x₀, as predicted'), shownX0)),
      h('section', { className: 'card stack' }, h('h2', {}, 'Inpaint'), inpaint)),
  );
  buttons();
  return { element };
}
