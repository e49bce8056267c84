// Train in the tab: data and settings on the left, the run on the right.
import type { Metrics } from '../../cli/train-loop.ts';
import { DdpmError } from '../../errors.ts';
import { Chart } from '../chart.ts';
import { fill, h, short } from '../dom.ts';
import type { Client } from './client.ts';
import { DataPanel } from './data-panel.ts';
import type { Calls, RunFacts } from './messages.ts';
import { MODELS, type ModelName } from './models.ts';
import { busy, classOptions, dropZone, facts, field, Message, need, number, say, select } from './parts.ts';
import { download, grid, show } from './pictures.ts';
import { decodeRun, type RunSettings } from './run-file.ts';
import { kept } from './store.ts';

const DEFAULTS: Readonly<Record<ModelName, { steps: number; batchSize: number; lr: number }>> = {
  mini: { steps: 2000, batchSize: 4, lr: 2e-3 }, tiny: { steps: 6000, batchSize: 4, lr: 2e-3 }, small: { steps: 10_000, batchSize: 64, lr: 4e-4 },
};
/** Steps that are worth a question before they are gone. */
const LONG = 100;
/** As the preset tiny of the command line: see bench/results/2026-11-26-tiny-sweep.md. */
const LEARNT = { predict: 'v', timeSampling: 'weighted' } as const;
/** Kinds of a run as its buttons know it. */
type Phase = 'empty' | 'training' | 'paused' | 'done';

export function trainPage(client: Client): { element: HTMLElement } {
  const message = new Message(), button = (id: string, text: string, className = ''): HTMLButtonElement => h('button', { type: 'button', id, className }, text);
  const [start, pause, stop, resume] = [button('start', 'Train', 'primary'), button('pause', 'Pause'), button('stop', 'Stop'), button('resume', 'Go on with the last run')];
  const [saveFile, toDiffusers, lose, drawNow] = [button('save', 'Save the run'), button('export', 'Save for diffusers'), button('lose', 'Lose the device'), button('draw-now', 'Draw now')];
  const model = select(MODELS, 'tiny', 'model'), steps = number('steps', 6000, { min: 1 }), batch = number('batch', 4, { min: 1, max: 512 });
  const lr = number('lr', 2e-3, { min: 0, step: 'any' }), T = number('timesteps', 1000, { min: 21, max: 4000 }), seed = number('seed', 0, { min: 0, max: 0xffffffff });
  const preview = number('preview', 25, { min: 0 }), flip = h('input', { type: 'checkbox', id: 'flip' });
  const byClass = h('input', { type: 'checkbox', id: 'by-class' }), labelDropout = number('label-dropout', 0.1, { min: 0, max: 0.99, step: 'any' });
  labelDropout.title = 'The share of images that is shown without its class: the network learns both, and guidance is possible';
  const dropoutField = field('Label dropout', labelDropout), classFields = h('div', { hidden: true }, field('Learn the classes', byClass), dropoutField);
  const numbers = h('dl', { className: 'numbers', id: 'numbers' }), status = h('p', { className: 'soft', id: 'status', role: 'status' });
  const loss = new Chart({ title: 'Loss', unit: 'squared error, weighted by noise level', log: true });
  const picture = (id: string, label: string): HTMLCanvasElement => h('canvas', { id, width: 1, height: 1, className: 'pixels', style: 'width: 100%', role: 'img', aria: { label } });
  const samples = picture('samples', 'samples of the averaged weights'), seen = picture('xt', 'noisy images'), predicted = picture('x0', 'the images predicted from them');
  const drawn = h('select', { id: 'samples-class' }), guidance = number('samples-guidance', 1, { min: 0, max: 20, step: 0.5 });
  const sampling = h('div', { className: 'row', hidden: true }, h('label', {}, 'Class', drawn), h('label', {}, 'Guidance', guidance)), drawnOf = h('p', { className: 'faint', id: 'drawn-of' });
  const levels = h('p', { className: 'faint', id: 'levels' }, 'Noisy images, and what the network sees in them');
  const rate = number('rate', 2e-3, { min: 0, step: 'any' }), setRate = button('set-rate', 'Set');
  const settingsCard = h(
    'section', { className: 'card' }, h('h2', {}, 'Settings'),
    field('Model', model), field('Steps', steps), field('Batch size', batch), field('Learning rate', lr), classFields,
    h('details', {}, h('summary', {}, 'More'), field('Noise levels T', T), field('Seed', seed), field('Preview every', preview), field('Mirror at random', flip)),
  );

  let phase: Phase = 'empty', stopping = false;
  /** A run is being placed, drawn from or saved: what comes next waits. */
  let working = false;
  let run: RunFacts | null = null;
  const x: number[] = [], y: number[] = [];
  let last: Readonly<Metrics> = {}, savedAt: number | null = null, inFile = false, began = { step: 0, time: 0 };

  const data = new DataPanel(() => buttons());

  /** Whether the next run, or the one that is there, is of data with labels. */
  const labels = (): boolean => (phase === 'empty' || phase === 'done' ? !!data.data?.labels : run!.classes > 0);

  function buttons(): void {
    const training = phase === 'training';
    start.textContent = phase === 'paused' ? 'Go on' : 'Train';
    start.disabled = working || training || (phase !== 'paused' && !data.data);
    pause.disabled = !training;
    stop.disabled = working || phase === 'empty' || phase === 'done';
    resume.disabled = working || training;
    saveFile.disabled = toDiffusers.disabled = drawNow.disabled = working || phase === 'empty' || training;
    lose.disabled = !training;
    setRate.disabled = !run;
    for (const control of [model, steps, batch, lr, T, seed, preview, flip, byClass, labelDropout]) control.disabled = working || training || phase === 'paused';
    classFields.hidden = !labels();
    dropoutField.hidden = !byClass.checked;
  }

  function showNumbers(): void {
    const recent = y.slice(-50).filter(Number.isFinite), mean = recent.reduce((a, b) => a + b, 0) / recent.length;
    const step = x.at(-1) ?? run?.step ?? 0, perSecond = (step - began.step) / ((performance.now() - began.time) / 1000);
    facts(numbers, [
      ['step', `${short(step)} / ${short(run?.settings.steps ?? 0)}`], ['loss, last 50', recent.length ? short(mean) : '–'],
      ['steps a second', phase === 'training' && step > began.step ? short(Number(perSecond.toPrecision(3))) : '–'], ['learning rate', last['lr'] === undefined ? '–' : short(last['lr'] as number)],
      ['saved at', savedAt === null ? '–' : short(savedAt)],
    ]);
  }

  function draw(): void {
    loss.set([{ name: 'loss', colour: 0, x, y }], 0.9);
    showNumbers();
  }

  const tellRun = (): void => say(status, run ? `${run.data.name}, ${short(run.parameters)} parameters${run.classes ? `, ${run.classes - 1} classes` : ''}` : '');

  /** Takes over a run that the worker has placed. */
  function adopt(facts_: RunFacts): void {
    run = facts_;
    x.length = y.length = 0;
    facts_.losses.forEach((value, i) => {
      x.push(i + 1);
      y.push(value);
    });
    last = {};
    savedAt = facts_.kept ? facts_.step : null;
    rate.value = String(facts_.lr);
    model.value = facts_.settings.model;
    for (const [control, value] of [[steps, facts_.settings.steps], [batch, facts_.settings.batchSize], [lr, facts_.settings.lr], [T, facts_.settings.timesteps], [seed, facts_.settings.seed], [preview, facts_.settings.previewEvery]] as const) control.value = String(value);
    flip.checked = facts_.settings.flip;
    byClass.checked = facts_.classes > 0;
    labelDropout.value = String(facts_.settings.labelDropout ?? 0.1);
    sampling.hidden = facts_.classes === 0;
    fill(drawn, ...classOptions(facts_.classes, facts_.data.classes));
    guidance.value = '1';
    drawnOf.textContent = '';
    // What another run drew goes with it.
    for (const picture of [samples, seen, predicted]) picture.width = picture.height = 1;
    tellRun();
    resume.hidden = true;
    draw();
  }

  const settings = (): RunSettings => ({
    model: model.value as ModelName, steps: Number(steps.value), batchSize: Number(batch.value), lr: Number(lr.value), timesteps: Number(T.value), ...LEARNT, seed: Number(seed.value), flip: flip.checked,
    labelDropout: byClass.checked && data.data?.labels ? Number(labelDropout.value) : null,
    previewEvery: Number(preview.value), sampleEvery: 4 * Number(preview.value), saveEvery: Math.max(10, Math.min(200, Math.floor(Number(steps.value) / 10))),
  });

  /** What is done with a run, one thing at a time, where these fields have the numbers for it; errors are shown. */
  async function alone(work: () => Promise<void>, fields: readonly HTMLInputElement[] = []): Promise<void> {
    message.clear();
    try {
      need(...fields); // before they are off
      working = true;
      buttons();
      await work();
    } catch (error) {
      message.error(error);
    } finally {
      working = false;
      buttons();
    }
  }

  /** Whether another run may take the place of the one that is here or that the browser keeps; who trained that for long, and has no file of it, is asked. */
  async function mayReplace(): Promise<boolean> {
    const done = inFile ? 0 : run ? (x.at(-1) ?? 0) : await kept('run').then((bytes) => (bytes ? decodeRun(bytes, 'the kept run').step : 0)).catch(() => 0); // of one that cannot be read there is nothing to lose
    return done < LONG || confirm(`There is room for one run, and this replaces the one of ${short(done)} steps that is there. To have that one too, cancel, go on with it, and save it as a file. Replace it?`);
  }

  /** Places a run and takes it over. */
  const place = async (what: Calls['start']['in']): Promise<void> => adopt(await client.call('start', what).finally(tellRun));

  async function train(): Promise<void> {
    working = false;
    [phase, stopping, inFile] = ['training', false, false];
    began = { step: x.at(-1) ?? 0, time: performance.now() };
    buttons();
    let done = false;
    try {
      ({ done } = await client.call('train', null));
      phase = done || stopping ? 'done' : 'paused';
    } catch (error) {
      phase = 'done';
      throw error;
    } finally {
      resume.hidden = phase === 'paused' || done;
      buttons();
      draw();
    }
  }

  start.addEventListener('click', () => void alone(async () => {
    if (phase !== 'paused') {
      if (!(await mayReplace())) return;
      await place({ data: data.data!, settings: settings() });
    }
    await train();
  }, phase === 'paused' ? [] : [steps, batch, lr, T, seed, preview, ...(byClass.checked && labels() ? [labelDropout] : [])]));
  pause.addEventListener('click', () => void client.call('pause', null));
  stop.addEventListener('click', () => void busy(stop, message, async () => {
    stopping = true;
    if (phase === 'training') await client.call('pause', null);
    else [phase, resume.hidden] = ['done', false];
  }).then(buttons));
  resume.addEventListener('click', () => void alone(async () => {
    await place('kept');
    await train();
  }));
  setRate.addEventListener('click', () => void busy(setRate, message, async () => {
    need(rate);
    await client.call('lr', Number(rate.value));
  }));
  byClass.addEventListener('change', buttons);
  for (const control of [drawn, guidance])
    control.addEventListener('change', () => void busy(setRate, message, async () => {
      need(guidance);
      await client.call('sampling', { label: drawn.value, guidance: Number(guidance.value) });
      drawnOf.textContent = 'from the next samples on';
    }).then(buttons));
  drawNow.addEventListener('click', () => void alone(async () => void (await client.call('samples', null))));
  lose.addEventListener('click', () => client.call('lose', null).catch((error) => message.error(error)));
  saveFile.addEventListener('click', () => void alone(async () => {
    const { step, bytes } = await client.call('save', null);
    download(`run-step-${step}.safetensors`, bytes as Uint8Array<ArrayBuffer>);
    inFile = true;
  }));
  toDiffusers.addEventListener('click', () => void alone(async () => {
    const { weights, config, scheduler } = await client.call('export', null);
    download('diffusion_pytorch_model.safetensors', weights as Uint8Array<ArrayBuffer>);
    download('config.json', config, 'application/json');
    download('scheduler_config.json', scheduler, 'application/json');
  }));
  const load = dropZone('run-file', 'Drop a saved run here to go on with it', '.safetensors', ([file]) => {
    if (phase === 'training') message.error(new DdpmError('E-USAGE', 'a run is training. Pause or stop it, then load the other.'));
    else if (working) message.error(new DdpmError('E-USAGE', 'a run is being prepared, drawn from or saved. Load the other when that is done.'));
    else if (file)
      void alone(async () => {
        if (!(await mayReplace())) return;
        await place({ file: new Uint8Array(await file.arrayBuffer()), name: file.name, data: data.data });
        inFile = true;
        phase = run!.step >= run!.settings.steps ? 'done' : 'paused';
      });
  });
  model.addEventListener('change', () => {
    const d = DEFAULTS[model.value as ModelName];
    [steps.value, batch.value, lr.value] = [String(d.steps), String(d.batchSize), String(d.lr)];
  });

  client.on('metrics', (line) => {
    const step = line['step'] as number;
    // After a lost device steps come again.
    while (x.length && x.at(-1)! >= step) {
      x.pop();
      y.pop();
    }
    x.push(step);
    y.push(line['loss'] as number);
    last = line;
    draw();
  });
  client.on('saved', ({ step }) => {
    [savedAt, inFile] = [step, false];
    showNumbers();
  });
  // What neither the browser nor a file keeps is asked about before the tab is closed.
  addEventListener('beforeunload', (event) => run && savedAt === null && !inFile && event.preventDefault());
  client.on('note', (text) => message.note(text));
  client.on('kernels', ({ done, total }) => (done < total ? say(status, `compiling kernels, ${done} of ${total}`, { counting: true }) : tellRun()));
  client.on('samples', ({ samples: values }) => {
    if (!run) return;
    const size = run.data.height * run.data.width * run.data.channels, names = [...drawn.options].slice(1, -1).map(({ text }) => text);
    show(samples, grid(values, run.data, 4));
    // One class a sample, row by row.
    if (run.classes) drawnOf.textContent = drawn.value === 'all' ? `row by row: ${names.slice(0, values.length / size).join(', ')}${names.length < values.length / size ? ', and again' : ''}` : drawn.selectedOptions[0]!.text;
  });
  client.on('preview', ({ preview: p }) => {
    if (!run) return;
    show(seen, grid(p.xt, run.data, p.levels.length));
    show(predicted, grid(p.x0, run.data, p.levels.length));
    levels.textContent = `t = ${p.levels.join(', ')} of ${run.settings.timesteps}`;
  });

  const element = h(
    'div', { className: 'columns side' },
    h('h1', {}, 'Train a model in this tab'),
    h('div', { className: 'stack', style: 'align-content: start' }, data.element, settingsCard),
    h(
      'div', { className: 'stack', style: 'align-content: start' },
      h('section', { className: 'card stack' }, h('div', { className: 'row' }, start, pause, stop, resume), message.element, numbers, status),
      h('section', { className: 'card' }, loss.element),
      h(
        'div', { className: 'columns half' },
        h('section', { className: 'card stack', style: 'gap: .5rem' }, h('h2', {}, 'Samples'), samples, sampling, h('div', { className: 'row' }, drawNow), drawnOf, h('p', { className: 'faint' }, 'DDIM, 20 steps, averaged weights, always the same noise')),
        h('section', { className: 'card stack', style: 'gap: .5rem' }, h('h2', {}, 'x₀, predicted from x', h('sub', {}, 't')), h('div', { className: 'pair' }, seen, predicted), levels),
      ),
      h('section', { className: 'card stack' }, h('h2', {}, 'Files'), h('div', { className: 'row' }, saveFile, toDiffusers), load),
      h('details', { className: 'card' }, h('summary', {}, 'While it trains'), h('div', { className: 'stack', style: 'margin-top: .6rem' },
        h('div', { className: 'row' }, h('label', {}, 'Learning rate', rate), setRate),
        h('div', { className: 'row' }, lose, h('span', { className: 'faint' }, 'throws the GPU device away, to see the run go on from its last save')))),
    ),
  );
  resume.hidden = true;
  void kept('run').then((there) => (resume.hidden = !there || phase !== 'empty'), () => {});
  showNumbers();
  buttons();
  fill(status, 'Nothing leaves this machine: images, weights and training stay in the tab.');
  return { element };
}
