// The site: four pages behind one address, and the worker that computes for all of them.
import type { DdpmError } from '../../errors.ts';
import { byId, fill, h } from '../dom.ts';
import { Client } from './client.ts';
import { doctorPage } from './doctor-page.ts';
import { kernelsPage } from './kernels-page.ts';
import { samplePage } from './sample-page.ts';
import { trainPage } from './train-page.ts';

const PAGES = { train: trainPage, sample: samplePage, kernels: kernelsPage, doctor: doctorPage };
type PageName = keyof typeof PAGES;

/** A page is made once and kept: what trains or was drawn is still there when one comes back to it. */
interface Page {
  readonly element: HTMLElement;
  /** Called with what follows the page's name in the address. */
  show?(rest: string): void;
}

const client = new Client('worker.js');
const made = new Map<PageName, Page>();

function route(): void {
  const [name = '', rest = ''] = location.hash.slice(1).split(/\/(.*)/s);
  const page = (Object.hasOwn(PAGES, name) ? name : 'train') as PageName;
  if (!made.has(page)) made.set(page, PAGES[page](client));
  const { element } = made.get(page)!;
  // What is there stays: out of the document and in again, it would lose the focus and where it was scrolled to.
  if (!element.isConnected) fill(byId('page'), element);
  made.get(page)!.show?.(rest);
  document.title = `${page[0]!.toUpperCase()}${page.slice(1)} · ddpm.wgsl`;
  for (const link of document.querySelectorAll('.bar nav a')) {
    if (link.getAttribute('href') === `#${page}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

addEventListener('hashchange', route);
// A file that misses its place would be opened instead of the page, and end what is computed here.
for (const type of ['dragover', 'drop'] as const)
  addEventListener(type, (event) => {
    if (event.defaultPrevented || !event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = 'none';
  });
route();

client.call('device', null).then(
  ({ name, software }) => (byId('device').textContent = software ? `${name}, a CPU that plays a GPU` : name),
  (error: DdpmError) => {
    byId('device').textContent = error.code === 'E-NO-ADAPTER' ? 'no WebGPU' : 'computes nothing';
    byId('page').before(h('p', { className: 'message', style: 'margin: 1rem 1.25rem', role: 'alert' }, error.message));
  },
);
