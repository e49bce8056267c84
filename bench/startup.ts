// Run by `bench startup` in a fresh process: how long until the first step is done.
import type { PresetName } from '../src/cli/presets.ts';
import { openEngine } from '../src/node.ts';
import { trainingOf } from './model.ts';

const [preset, batch] = process.argv.slice(2) as [PresetName, string];
const mark = (what: string) => console.log(`${(performance.now() / 1000).toFixed(2).padStart(6)} s  ${what}`);
mark('modules loaded');
const { engine } = await openEngine();
mark('device open');
const { training } = trainingOf(engine, preset, Number(batch));
mark('step captured');
await training.plan.compile();
mark(`${engine.pipelines.count} pipelines compiled`);
training.run(0);
await engine.finished();
mark('first step done');
process.exit(0);
