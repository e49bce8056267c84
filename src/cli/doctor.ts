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
  const opened = await openEngine({ ...(settings.gpu !== null && { gpu: settings.gpu }), precision: settings.precision }), { engine, device } = opened;
  const environment = describeEnvironment({}), { maxStorageBufferBindingSize: binding, maxStorageBuffersPerShaderStage: buffers, maxComputeInvocationsPerWorkgroup: invocations } = device.limits;
  say('device', `${describeDevice(opened)}${opened.software ? ' · a CPU that plays a GPU' : ''}`);
  for (const warning of opened.warnings) say('warning', warning);
  say('system', `${String(environment['platform'])} · ${String(environment['cpu'])} · node ${process.versions.node} · webgpu ${String(environment['webgpu'])}`);
  say('limits', `${binding / 2 ** 20} MiB a binding, ${buffers} storage buffers, ${invocations} invocations a workgroup`);

  const wrong: string[] = [], names = Object.keys(CHECKS), width = Math.max(...names.map((name) => name.length));
  let left = 0;
  for (const name of names) {
    const { ok, error, share, shape, skipped } = await check(engine, name);
    if (skipped) left++;
    else if (!ok) wrong.push(name);
    const result = skipped ?? `off by ${error.toExponential(1)}, ${(100 * share).toFixed(0)} % of what rounding allows  ${shape}`;
    process.stdout.write(`${skipped ? 'left   ' : ok ? 'ok     ' : 'WRONG  '}${name.padEnd(width)}  ${result}\n`);
  }
  for (const { name, ms, rate } of await measure(engine)) process.stdout.write(`${name.padEnd(44)} ${ms.toPrecision(3).padStart(8)} ms  ${rate}\n`);
  await opened.close();
  process.stdout.write(wrong.length ? `${wrong.join(', ')} differ from their twins: do not trust this device or its driver\n` : `${left ? '' : 'all '}${names.length - left} kernels agree with their float64 twins${left ? `; ${left} need what this device was opened without` : ''}\n`);
  return wrong.length ? 1 : 0;
}

await runCommand(doctor);
