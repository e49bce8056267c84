// The kernels, page by page: the mathematics, the WGSL, the float64 twin, and a button that runs and compares them on this GPU.
// The WGSL has its comments in the bundle of this page alone (src/web/build.ts).
import * as kernels from '../../gpu/kernels.gen.ts';
import { breakable, fill, h, short } from '../dom.ts';
import { CHECKS } from './checks.ts';
import type { Client } from './client.ts';
import type { CheckResult } from './messages.ts';
import { busy, Message, say } from './parts.ts';
import { functionIn } from './source.ts';

/** The files of test/ref by name, put in when the page is bundled. */
declare const TWIN_SOURCES: Readonly<Record<string, string>>;

const NAMES = Object.keys(kernels).sort();
type Kernel = (typeof kernels)[keyof typeof kernels];

const resultText = ({ ok, error, share, shape, values, ms, skipped }: CheckResult): HTMLElement =>
  skipped ? h('span', { className: 'soft' }, `not run: ${skipped}`) : h('span', { className: ok ? 'good' : 'bad' }, `${ok ? 'agrees' : 'DIFFERS'}: ${shape}, ${short(values)} values, largest difference ${error.toExponential(1)}, ${(100 * share).toFixed(0)} % of what rounding allows, ${ms.toFixed(0)} ms`);

export function kernelsPage(client: Client): { element: HTMLElement; show(rest: string): void } {
  const message = new Message(), article = h('div', { className: 'stack' }), list = h('nav', { className: 'card kernels', aria: { label: 'kernels' } });
  const marks = new Map(NAMES.map((name) => [name, h('span', { className: 'faint', role: 'img', aria: { label: 'not run yet' } }, '○')]));
  const all = h('button', { type: 'button', id: 'check-all', className: 'primary' }, `Check all ${NAMES.length}`), said = h('p', { id: 'checked', role: 'status', className: 'faint' }, 'Each runs here and is compared with its float64 twin');

  async function run(name: string): Promise<CheckResult> {
    const result = await client.call('check', name), mark = marks.get(name)!;
    mark.textContent = result.skipped ? '–' : result.ok ? '✓' : '✗';
    mark.className = result.skipped ? 'faint' : result.ok ? 'good' : 'bad';
    mark.ariaLabel = result.skipped ? 'cannot run here' : result.ok ? 'agrees' : 'differs';
    return result;
  }

  all.addEventListener('click', () => void busy(all, message, async () => {
    let good = 0, done = 0, left = 0;
    for (const name of NAMES) {
      const { ok, skipped } = await run(name);
      if (skipped) left++;
      else good += Number(ok);
      done++;
      say(said, `${good} of ${done - left} agree with their float64 twins on this GPU${left ? `; ${left} need what it does not have` : ''}`, { counting: done < NAMES.length });
    }
  }));

  function page(name: string): void {
    const kernel = kernels[name as keyof typeof kernels] as Kernel, check = CHECKS[name]!, [mathematics = '', ...lines] = kernel.wgsl.split('\n');
    const heading = h('h1', { tabIndex: -1 }, ...breakable(name)), result = h('p', { id: 'result', role: 'status' }), go = h('button', { type: 'button', id: 'run-check' }, 'Run and check on this GPU');
    go.addEventListener('click', () => void busy(go, message, async () => fill(result, resultText(await run(name)))));
    const pre = (text: string) => h('pre', { tabIndex: 0 }, h('code', {}, text));
    const code = (title: string, text: string, more: HTMLElement | null = null) => h('section', { className: 'card stack', style: 'gap: .5rem' }, h('h3', { className: 'soft' }, title), pre(text), more);
    const file = TWIN_SOURCES[check.twin[0]]!, how = `${name.includes('_vec4') ? ', four channels at a time' : ''}${name.endsWith('_stored_f16') ? ', with activations stored as float16' : name.endsWith('_f16') && !name.startsWith('cast') ? ', with factors rounded to float16' : ''}`;
    fill(
      article,
      h('section', { className: 'card stack', style: 'gap: .5rem' }, heading, h('p', { className: 'mathematics' }, mathematics.replace(/^\/\/ /, '')), h('div', { className: 'row' }, go), message.element, result),
      code(`Its float64 twin · test/ref/${check.twin[0]}.ts`, functionIn(file, check.twin[1]), h('details', {}, h('summary', {}, 'The whole file'), pre(file))),
      code(`kernels/${name.replace(/^(?!cast)(.*?)(_vec4)?(_stored_f16|_f16)?$/, '$1')}.wgsl, with its imports${how}`, lines.join('\n').trim()),
    );
    for (const link of list.querySelectorAll('a')) {
      if (link.textContent === name) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    // Who chose it in the list reads it from its top, and goes on from there with the keyboard.
    if (!list.contains(document.activeElement)) list.querySelector('[aria-current]')!.scrollIntoView({ block: 'nearest' });
    else heading.focus();
    scrollTo(0, 0);
  }

  fill(list, all, said, h('ul', {}, ...NAMES.map((name) => h('li', {}, h('a', { href: `#kernels/${name}` }, ...breakable(name)), marks.get(name)!))));
  return {
    element: h('div', { className: 'columns side' }, list, article),
    show: (rest) => page(NAMES.includes(rest) ? rest : 'silu_forward'),
  };
}
