// npm run doctor: what device there is, whether its kernels compute what they should, and how fast; the same checks and measurements as the page of that name.

import { openEngine } from '../node.ts';
import { check, CHECKS } from '../web/site/checks.ts';
import { measure } from '../web/site/measure.ts';
import { describeDevice, runCommand, say } from './command.ts';
import { type Command, helpText, parseFlags } from './flags.ts';
import { describeEnvironment } from './run-folder.ts';
import { DOCTOR } from './settings.ts';

const COMMAND: Command = { name: 'doctor', help: 'Checks kernels on this device against float64 twins, and measures how fast it is.' };

async function doctor(): Promise<number> {
  const { settings } = parseFlags(DOCTOR, COMMAND, process.argv.slice(2), { env: process.env });
  if (settings.help) {
    process.stdout.write(`${helpText(DOCTOR, COMMAND)}\n`);
    return 0;
  }
  const opened = await openEngine(settings.gpu === null ? {} : { gpu: settings.gpu }), { engine, device } = opened;
  const environment = describeEnvironment({}), { maxStorageBufferBindingSize: binding, maxStorageBuffersPerShaderStage: buffers, maxComputeInvocationsPerWorkgroup: invocations } = device.limits;
  say('device', `${describeDevice(opened)}${opened.software ? ' · a CPU that plays a GPU' : ''}`);
  say('system', `${String(environment['platform'])} · ${String(environment['cpu'])} · node ${process.versions.node} · webgpu ${String(environment['webgpu'])}`);
  say('limits', `${binding / 2 ** 20} MiB a binding, ${buffers} storage buffers, ${invocations} invocations a workgroup`);

  const wrong: string[] = [];
  for (const name of Object.keys(CHECKS)) {
    const { ok, error, share, shape } = await check(engine, name);
    if (!ok) wrong.push(name);
    process.stdout.write(`${ok ? 'ok    ' : 'WRONG '} ${name.padEnd(22)} off by ${error.toExponential(1)}, ${(100 * share).toFixed(0)} % of what rounding allows  ${shape}\n`);
  }
  for (const { name, ms, rate } of await measure(engine)) process.stdout.write(`${name.padEnd(44)} ${ms.toPrecision(3).padStart(8)} ms  ${rate}\n`);
  await opened.close();
  process.stdout.write(wrong.length ? `${wrong.join(', ')} differ from their twins: do not trust this device or its driver\n` : `all ${Object.keys(CHECKS).length} kernels agree with their float64 twins\n`);
  return wrong.length ? 1 : 0;
}

await runCommand(doctor);
