// The worker: owns the device, trains, samples and checks, so that the page stays quick. After a lost device it opens another and goes on from the last save, which it has itself.
import { classRows } from '../../cli/network.ts';
import { DdpmError } from '../../errors.ts';
import { schedulerConfig } from '../../io/scheduler.ts';
import { modelFile } from '../../io/model.ts';
import { writeSafetensors } from '../../io/safetensors.ts';
import { check } from './checks.ts';
import { measure } from './measure.ts';
import { type Opened, openDevice } from './device.ts';
import type { Calls, Events, RunFacts, ToWorker } from './messages.ts';
import { Model } from './model.ts';
import { Run, type Sampling } from './run.ts';
import { decodeRun, type TrainData } from './run-file.ts';
import { hold, keep, kept } from './store.ts';

/** Times that a run is taken up again after a lost device before it is left to the user. */
const RETRIES = 3;

let opened: Promise<Opened> | null = null;
/** The run on the device, or on its way there. */
let run: Promise<Run> | null = null;
/** What the run was when it was last saved: it is placed from here where the device was lost, or another could not be placed. */
let last: { readonly bytes: Uint8Array; readonly data: TrainData } | null = null;
/** The images that the browser keeps. */
let keptData: TrainData | null = null;
let model: Model | null = null;
let stop = { requested: false };
let training = false, drawing = false, cancelled = false;
const EACH: Sampling = { label: 'all', guidance: 1 };
let sampling = EACH;

function tell<K extends keyof Events>(event: K, value: Events[K], transfer: Transferable[] = []): void {
  postMessage({ event, value }, { transfer });
}

/** The device, opened when it is first needed and again after it was lost. */
function device(): Promise<Opened> {
  if (opened) return opened;
  const opening = (opened = openDevice());
  opening.then(
    ({ device: it }) => void it.lost.then(() => {
      opened = run = model = null;
    }),
    () => (opened = null),
  );
  return opening;
}

/** Lets go of a device that has refused something: its engine does nothing any more, and what comes next is done on another. */
async function renew(): Promise<void> {
  const it = await opened?.catch(() => null);
  try {
    it?.engine.check();
  } catch {
    it!.device.destroy();
    await it!.device.lost;
  }
}

const facts = (of: Run): RunFacts => {
  const { pixels: _, labels: __, ...data } = of.data;
  return { step: of.step, settings: of.settings, lr: of.lr, data, losses: of.losses, parameters: of.parameters.count, classes: classRows(of.unet), kept: of.data === keptData };
};

function place(data: TrainData, settings: Run['settings'], saved: ReturnType<typeof decodeRun> | null): Promise<Run> {
  const leaving = leave();
  const placing = (async () => {
    await leaving;
    return Run.open((await device()).engine, data, settings, { saved, progress: (done, total) => tell('kernels', { done, total }) });
  })();
  placing.catch(() => run === placing && (run = null));
  return (run = placing);
}

/** Frees what the run holds. */
async function leave(): Promise<void> {
  const old = run;
  run = null;
  await old?.then((it) => it.destroy()).catch(() => {}); // of a device that was lost there is nothing to free
}

/** Without the browser's memory a run goes on as well, and can be saved as a file. */
async function save({ step, data }: Run, bytes: Uint8Array): Promise<void> {
  last = { bytes, data };
  try {
    await keep({ run: bytes, ...(data !== keptData && { data }) });
    keptData = data;
    tell('saved', { step });
  } catch (error) {
    tell('note', (error as Error).message);
  }
}

async function there(): Promise<Run> {
  if (run) return run;
  if (!last) throw new DdpmError('E-USAGE', 'there is no run yet: choose data and press Train, or load a run.');
  const saved = decodeRun(last.bytes, 'the last save'), again = await place(last.data, saved.settings, saved);
  again.sampling = sampling;
  return again;
}

/** The run that the browser has kept, from an earlier visit. */
async function recall(): Promise<void> {
  const bytes = await kept('run'), data = await kept('data');
  if (!bytes || !data) throw new DdpmError('E-FILE', 'the browser has kept no run.');
  const { labels, data: { classes } } = decodeRun(bytes, 'the kept run');
  keptData = { ...data, labels, classes };
  last = { bytes, data: keptData };
}

async function tellSamples(of: Run): Promise<void> {
  const samples = await of.samples();
  tell('samples', { step: of.step, samples }, [samples.buffer]);
}

/** Trains; where the device is lost, on a new one from the last save. */
async function train(): Promise<{ step: number; done: boolean }> {
  stop = { requested: false };
  for (let tries = 0; ; tries++) {
    const current = await there(), { device: gpu } = await device();
    let lost = false;
    void gpu.lost.then(() => (lost = true));
    try {
      const step = await current.train({
        stop,
        onMetrics: (line) => tell('metrics', line),
        onPreview: (at, preview) => tell('preview', { step: at, preview }, [preview.xt.buffer, preview.x0.buffer]),
        onSamples: (at, samples) => tell('samples', { step: at, samples }, [samples.buffer]),
        onSave: (bytes) => save(current, bytes),
        onEvent: (text) => tell('note', text),
      });
      await save(current, await current.encode());
      if (step > 0) {
        const preview = await current.preview();
        tell('preview', { step, preview }, [preview.xt.buffer, preview.x0.buffer]);
        // They take twenty steps: who pauses does not wait for them.
        if (step >= current.settings.steps) await tellSamples(current);
      }
      return { step, done: step >= current.settings.steps };
    } catch (error) {
      await new Promise((done) => setTimeout(done, 50)); // the loss is told a little later than what failed by it
      if (!lost || tries >= RETRIES) throw error;
      const again = await there();
      tell('note', `the GPU device was lost; the run goes on from step ${again.step}, its last save`);
    }
  }
}

const handlers: { [K in keyof Calls]: (value: Calls[K]['in']) => Promise<Calls[K]['out']> } = {
  device: async () => (await device()).facts,
  start: async (value) => {
    await hold();
    if (value === 'kept') {
      if (!last) await recall();
    } else if ('settings' in value) await place(value.data, value.settings, null);
    else {
      const saved = decodeRun(value.file, value.name), data = saved.pixels ? { ...saved.data, pixels: saved.pixels, labels: saved.labels } : value.data && { ...value.data, labels: saved.labels, classes: saved.data.classes };
      if (!data) throw new DdpmError('E-DATA', `${value.name} was trained on ${saved.data.count} images of ${saved.data.name}, which are too many for a file: choose them as data first, then load it again.`);
      const { count, height, width, channels } = saved.data;
      if (data.count !== count || data.height !== height || data.width !== width || data.channels !== channels)
        throw new DdpmError('E-DATA', `${value.name} was trained on ${count} images of ${height}×${width}×${channels}, and the data chosen are ${data.count} of ${data.height}×${data.width}×${data.channels}.`);
      await place(data, saved.settings, saved);
    }
    const it = await there();
    it.sampling = sampling = EACH;
    if (value !== 'kept') await save(it, await it.encode());
    return facts(it);
  },
  train: async () => {
    training = true;
    try {
      return await train();
    } catch (error) {
      await leave(); // what failed may be no good: the last save is
      throw error;
    } finally {
      training = false;
    }
  },
  pause: async () => {
    stop.requested = true;
    return null;
  },
  lr: async (value) => {
    (await there()).lr = value;
    return null;
  },
  sampling: async (value) => {
    sampling = value;
    (await there()).sampling = value;
    return null;
  },
  samples: async () => {
    await tellSamples(await there());
    return null;
  },
  save: async () => {
    const it = await there();
    return { step: it.step, bytes: await it.encode() };
  },
  export: async () => {
    const { parameters, unet, data, config, settings } = await there(), { tensors, metadata } = modelFile(await parameters.read('ema'), unet.conditional ? data.classes : null);
    const json = (value: object): string => `${JSON.stringify(value, null, 2)}\n`;
    return { weights: writeSafetensors(tensors, metadata), config: json(config), scheduler: json(schedulerConfig({ name: 'linear', T: settings.timesteps }, { prediction: settings.predict })) };
  },
  lose: async () => {
    (await device()).device.destroy();
    return null;
  },
  model: async (files) => {
    if (drawing) throw new DdpmError('E-USAGE', 'images are being drawn. Stop that or wait, then give the files again.');
    // The model that is there stays where the files of another are no good.
    const { engine } = await device(), next = new Model(engine, files), old = model;
    model = next;
    await old?.destroy();
    return next.facts;
  },
  draw: async (request) => {
    if (!model) throw new DdpmError('E-USAGE', 'there is no model on the GPU device: give its files, again if the device was lost.');
    [drawing, cancelled] = [true, false];
    try {
      return await model.draw(request, (chain) => {
        if (cancelled) throw new DdpmError('E-ABORTED', 'the drawing was stopped.');
        tell('chain', chain, [chain.x.buffer, chain.x0.buffer]);
      });
    } finally {
      drawing = false;
    }
  },
  cancel: async () => {
    cancelled = true;
    return null;
  },
  check: async (name) => check((await device()).engine, name),
  bench: async () => {
    if (training || drawing) throw new DdpmError('E-USAGE', `${training ? 'a run is training' : 'images are being drawn'}, which would be in what is measured. Pause or stop that first.`);
    return measure((await device()).engine);
  },
};

onmessage = async ({ data: { id, call, value } }: MessageEvent<ToWorker>) => {
  try {
    postMessage({ id, value: await (handlers[call] as (v: unknown) => Promise<unknown>)(value) });
  } catch (error) {
    await renew();
    const code = error instanceof DdpmError ? error.code : 'E-ENGINE', message = error instanceof Error ? error.message : String(error);
    postMessage({ id, error: { code, message } });
  }
};
