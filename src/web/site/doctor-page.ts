// The doctor: what this browser's WebGPU is and allows, whether the kernels compute what they should, how fast; as text to share.
import { breakable, fill, h, short } from '../dom.ts';
import { CHECKS } from './checks.ts';
import type { Client } from './client.ts';
import type { BenchLine, CheckResult, DeviceFacts } from './messages.ts';
import { busy, Message, say } from './parts.ts';

export function doctorPage(client: Client): { element: HTMLElement } {
  const message = new Message(), table = h('tbody'), tested = h('p', { id: 'tested', role: 'status' }), measured = h('tbody', { id: 'measured' });
  const test = h('button', { type: 'button', id: 'self-test', className: 'primary' }, 'Test the kernels'), bench = h('button', { type: 'button', id: 'bench' }, 'Measure the speed'), copy = h('button', { type: 'button', id: 'copy' }, 'Copy the report');
  /** Where the test ended early, and why. */
  let ended = '';
  let device: DeviceFacts | null = null, results: CheckResult[] = [], lines: readonly BenchLine[] = [];

  const rows = (): [string, string][] => device === null ? [] : [
    ['adapter', `${device.name}${device.software ? ' (a CPU that plays a GPU)' : ''}`], ['browser', navigator.userAgent],
    ['subgroups', device.features.includes('subgroups') ? `${[...new Set(device.subgroups)].join(' to ')} lanes` : 'no'], ['shader-f16', device.features.includes('shader-f16') ? 'yes' : 'no'],
    ['features', device.features.join(', ')], ...Object.entries(device.limits).map(([name, value]): [string, string] => [name, value >= 2 ** 20 ? `${short(value / 2 ** 20)} Mi` : short(value)]),
  ];
  const bad = (): string[] => results.filter(({ ok, skipped }) => !ok && !skipped).map(({ kernel }) => kernel);
  const outcome = (): string => (results.length === 0 ? '' : bad().length === 0 ? `${results.filter(({ skipped }) => !skipped).length} kernels agree with their float64 twins${results.some(({ skipped }) => skipped) ? `; ${results.filter(({ skipped }) => skipped).length} need what this device was opened without` : ''}` : `${bad().join(', ')} differ from their float64 twins: do not trust this device`);
  const verdict = (): string => [outcome(), ended && `the test ended at ${ended}`].filter(Boolean).join('; ');
  const report = (): string => ['ddpm.wgsl doctor', new Date().toISOString().slice(0, 10), '', ...rows().map(([a, b]) => `${a}: ${b}`), '', verdict(), ...lines.map(({ name, ms, rate }) => `${name}: ${short(Number(ms.toPrecision(3)))} ms, ${rate}`)].join('\n');

  /** One at a time: a test beside it would be in what is measured. */
  const alone = async (work: () => Promise<void>): Promise<void> => {
    bench.disabled = true;
    await busy(test, message, work);
    bench.disabled = false;
  };
  test.addEventListener('click', () => void alone(async () => {
    [results, ended] = [[], ''];
    try {
      for (const name of Object.keys(CHECKS)) {
        ended = name;
        results.push(await client.call('check', name));
        say(tested, `${results.length} of ${Object.keys(CHECKS).length}`, { counting: true });
      }
      ended = '';
    } catch (error) {
      ended += `: ${(error as Error).message}`;
      throw error;
    } finally {
      say(tested, verdict());
      tested.className = ended || bad().length ? 'bad' : 'good';
    }
  }));
  bench.addEventListener('click', () => void alone(async () => {
    lines = await client.call('bench', null);
    fill(measured, ...lines.map(({ name, ms, rate }) => h('tr', {}, h('th', {}, name), h('td', { className: 'n' }, `${short(Number(ms.toPrecision(3)))} ms`), h('td', { className: 'n' }, rate))));
  }));
  copy.addEventListener('click', () => void busy(copy, message, async () => {
    await navigator.clipboard.writeText(report());
    message.note('copied');
  }));
  client.call('device', null).then((found) => {
    device = found;
    fill(table, ...rows().map(([name, value]) => h('tr', {}, h('th', {}, ...breakable(name)), h('td', {}, value))));
  }, (error) => message.error(error));

  return {
    element: h(
      'div', { className: 'grid' },
      h('h1', {}, 'Check this device'),
      h('section', { className: 'card' }, h('h2', {}, 'This device'), h('div', { className: 'wide' }, h('table', {}, table))),
      h('section', { className: 'card stack', style: 'align-content: start' }, h('h2', {}, 'Does it compute, and how fast?'), h('div', { className: 'row' }, test, bench, copy), message.element, tested, h('div', { className: 'wide' }, h('table', {}, measured)),
        h('p', { className: 'faint' }, 'The test runs kernels at odd shapes and compares every value with a float64 computation. The measurements are medians by the clock, with waiting included.')),
    ),
  };
}
