// Set-up: what it decides from apt's sources, the packages and drivers of a machine, and that it downloads only what has the right checksum.

import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
// @ts-expect-error plain JavaScript without types, because it runs before TypeScript is installed
import { aptCommands, aptHasBrowser, backportsSource, compareVersions, downloadData, findBrowser, findFirefox, kernelsAreStale, parseAptSources, parseOsRelease, planVulkan, releaseSource, stalePackages } from '../src/cli/setup.mjs';

const setup = suite('setup');

setup('compares versions as numbers, without epochs and Debian revisions', () => {
  const order = ['22.3.6-1+deb12u1', '23.2.1-1ubuntu3.1~22.04.3', '24', '24.0.5-1ubuntu1', '24.2.8-1ubuntu1~24.04.1', '25.0.7-2~bpo12+1', '25.0.10'];
  for (let i = 0; i + 1 < order.length; i++) {
    assert.ok(compareVersions(order[i], order[i + 1]) < 0, `${order[i]} < ${order[i + 1]}`);
    assert.ok(compareVersions(order[i + 1], order[i]) > 0);
  }
  assert.is(compareVersions('v20.19', '20.19.0'), 0);
  assert.ok(compareVersions('v20.18.3', '20.19.0') < 0 && compareVersions('v20.20.2', '20.19.0') > 0 && compareVersions('v22.0.0', '20.19.0') > 0);
  assert.is(compareVersions('1:1.2-3', '1.2'), 0);
});

const BOOKWORM_IMAGE = `Types: deb
# http://snapshot.example/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;

setup('reads deb822 sources as container images have them', () => {
  const sources = parseAptSources(BOOKWORM_IMAGE, 'deb822');
  assert.is(sources.length, 2);
  assert.equal(sources[0].suites, ['bookworm', 'bookworm-updates']);
  assert.equal(sources[0].uris, ['http://mirror.example/debian']);
  assert.is(sources[0].signedBy, '/usr/share/keyrings/debian-archive-keyring.gpg');
});

setup('reads deb822 with a key written into it, lists over several lines, and leaves out disabled and source-only stanzas', () => {
  const sources = parseAptSources(`Enabled: no
Types: deb
URIs: http://off.example/
Suites: bookworm

Types: deb-src
URIs: http://src.example/
Suites: bookworm
 
Types: deb deb-src
URIs:
 http://one.example/debian
 http://two.example/debian
Suites: bookworm
Components: main contrib
Trusted: yes
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
`, 'deb822');
  assert.is(sources.length, 1);
  assert.equal(sources[0].uris, ['http://one.example/debian', 'http://two.example/debian']);
  const text = backportsSource(releaseSource(sources, 'bookworm'), 'bookworm');
  assert.match(text, /Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n \.\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\nTrusted: yes\n$/);
  assert.equal(parseAptSources(text, 'deb822')[0].signedBy, sources[0].signedBy);
});

setup('reads one-line sources with and without options', () => {
  const sources = parseAptSources(`# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/debian.gpg] https://mirror.example/debian bookworm main contrib # ours
deb-src https://mirror.example/debian bookworm main
deb mirror+file:/etc/apt/mirrors/debian.list bookworm-updates main
deb http://flat.example/repo ./
`, 'list');
  assert.equal(sources.map(({ uris }: { uris: string[] }) => uris[0]), ['https://mirror.example/debian', 'mirror+file:/etc/apt/mirrors/debian.list', 'http://flat.example/repo']);
  assert.equal(sources[0].components, ['main', 'contrib']);
  assert.is(sources[0].signedBy, '/etc/apt/keyrings/debian.gpg');
  assert.is(sources[1].signedBy, undefined);
});

setup('backports come from the archive of the plain release, never from security or a third party', () => {
  const sources = parseAptSources(`Types: deb
URIs: https://tools.example/apt
Suites: tools-bookworm nodistro
Components: main

${BOOKWORM_IMAGE.split('\n\n').reverse().join('\n\n')}`, 'deb822');
  assert.is(backportsSource(releaseSource(sources, 'bookworm'), 'bookworm'), [
    '# Added by the set-up of ddpm.wgsl: Mesa\'s Vulkan drivers in a version that Dawn accepts. May be removed when they are no longer needed.',
    'Types: deb',
    'URIs: http://mirror.example/debian',
    'Suites: bookworm-backports',
    'Components: main',
    'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg',
    '',
  ].join('\n'));
  assert.is(releaseSource(parseAptSources('deb http://mirror.example/debian oldstable main', 'list'), 'bookworm').uris[0], 'http://mirror.example/debian');
  assert.is(releaseSource(parseAptSources('deb http://mirror.example/debian-security bookworm-security main', 'list'), 'bookworm'), undefined);
  assert.is(releaseSource([], 'bookworm'), undefined);
});

setup('the commands it prints write the same source file when they are typed', () => {
  const source = backportsSource({ uris: ['http://mirror.example/it\'s'], suites: ['bookworm'], signedBy: '\n KEY\n .' }, 'bookworm');
  const [write, update, install] = aptCommands({ packages: ['mesa-vulkan-drivers', 'libvulkan1'], release: 'bookworm-backports', source });
  assert.match(write, / \| sudo tee \/etc\/apt\/sources\.list\.d\/ddpm-wgsl-backports\.sources$/);
  assert.is(update, 'sudo apt-get update');
  assert.is(install, 'sudo apt-get install -y --no-install-recommends -t bookworm-backports mesa-vulkan-drivers libvulkan1');
  const { stdout } = spawnSync('sh', ['-c', write.split(' | sudo')[0]], { encoding: 'utf8' });
  assert.is(stdout, source.split('\n').slice(1).join('\n'));
  assert.equal(aptCommands({ packages: ['libvulkan1'], release: null }), ['sudo apt-get update', 'sudo apt-get install -y --no-install-recommends libvulkan1']);
});

setup('reads os-release with and without quotes', () => {
  assert.equal(parseOsRelease('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n'), { id: 'debian', like: [], codename: 'bookworm' });
  assert.equal(parseOsRelease('ID="linuxmint"\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\n'), { id: 'linuxmint', like: ['ubuntu', 'debian'], codename: 'wilma' });
  assert.equal(parseOsRelease(''), { id: '', like: [], codename: '' });
});

const LVP = { file: '/usr/share/vulkan/icd.d/lvp_icd.x86_64.json', library: true, searched: true };
const NVIDIA = { file: '/etc/vulkan/icd.d/nvidia_icd.json', library: true, searched: true };
const RADEON = { ...LVP, file: '/usr/share/vulkan/icd.d/radeon_icd.json' };
const DEBIAN_12 = { id: 'debian', like: [], codename: 'bookworm' };
/** The facts of a bare Debian 12, changed by `facts`. */
const plan = (facts: object): { kind: string; why?: string; note?: string; packages?: string[]; release?: string | null; driver?: string; commands?: string[] } =>
  planVulkan({ platform: 'linux', distro: DEBIAN_12, apt: true, loader: false, fixed: undefined, drivers: [], gpus: [], mesa: null, ...facts });

setup('Vulkan: a bare Debian 12 needs lavapipe from backports, other releases from their own', () => {
  const bare = plan({});
  assert.equal([bare.kind, bare.packages, bare.release], ['apt', ['mesa-vulkan-drivers', 'libvulkan1'], 'bookworm-backports']);
  assert.is(plan({ distro: { id: 'ubuntu', like: ['debian'], codename: 'noble' } }).release, null);
  assert.is(plan({ distro: { id: 'debian', like: [], codename: 'trixie' } }).release, null);
});

setup('Vulkan: lavapipe of Mesa 22 is too old, 24 and newer are ready', () => {
  const old = plan({ loader: true, drivers: [LVP], mesa: '22.3.6-1+deb12u1' });
  assert.equal([old.kind, old.release], ['apt', 'bookworm-backports']);
  assert.match(old.why!, /Mesa 22\.3\.6-1\+deb12u1, and Dawn needs 24/);
  assert.equal(plan({ loader: true, drivers: [RADEON, LVP], mesa: '25.0.7-2~bpo12+1' }), { kind: 'ready', driver: 'lvp_icd.x86_64.json', note: undefined });
  assert.is(plan({ loader: true, drivers: [LVP], mesa: null }).kind, 'ready', 'not from a package: taken on trust');
  assert.is(plan({ loader: true, drivers: [{ ...LVP, library: false }], mesa: '25.0.7' }).kind, 'apt', 'a manifest without its library');
  assert.is(plan({ loader: true, drivers: [RADEON], mesa: '25.0.7' }).kind, 'apt', 'a driver for a GPU that is not there');
});

setup('Vulkan: a GPU with its driver needs only the loader, and no recent Mesa', () => {
  assert.equal(plan({ loader: true, drivers: [NVIDIA], gpus: ['nvidia'] }), { kind: 'ready', driver: 'nvidia_icd.json', note: undefined });
  assert.is(plan({ loader: true, drivers: [LVP, RADEON], gpus: ['amd'], mesa: '22.3.6' }).driver, 'radeon_icd.json');
  assert.equal(plan({ drivers: [NVIDIA], gpus: ['nvidia'] }).packages, ['libvulkan1']);
  assert.is(plan({ drivers: [NVIDIA], gpus: ['nvidia'] }).release, null);
  assert.is(plan({ loader: true, drivers: [{ ...LVP, file: '/usr/share/vulkan/icd.d/intel_icd.x86_64.json' }], gpus: ['intel'] }).kind, 'ready');
});

setup('Vulkan: an NVIDIA GPU without its driver is said aloud, and a driver in an odd place with the variable to set', () => {
  const container = plan({ loader: true, drivers: [LVP], mesa: '25.0.7', gpus: ['nvidia'] });
  assert.is(container.kind, 'ready');
  assert.match(container.note!, /NVIDIA_DRIVER_CAPABILITIES=all/);
  assert.match(plan({ gpus: ['nvidia'], drivers: [{ ...NVIDIA, library: false }] }).note!, /not its Vulkan driver/);
  const aside = plan({ loader: true, gpus: ['nvidia'], drivers: [{ file: '/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json', library: true, searched: false }] });
  assert.is(aside.kind, 'ready');
  assert.match(aside.note!, /export VK_DRIVER_FILES=\/usr\/local\/nvidia\/share\/vulkan\/icd\.d\/nvidia_icd\.json/);
});

setup('Vulkan: a variable that hides every driver cannot be mended by installing', () => {
  const fixed = plan({ loader: true, fixed: '/opt/none.json', mesa: '25.0.7' });
  assert.is(fixed.kind, 'manual');
  assert.match(fixed.why!, /"\/opt\/none\.json"/);
  assert.equal(fixed.commands, ['unset VK_DRIVER_FILES VK_ICD_FILENAMES']);
  assert.is(plan({ fixed: LVP.file, drivers: [LVP], mesa: '25.0.7' }).kind, 'apt', 'only the loader is missing: that can be installed');
});

setup('Vulkan: other systems get their own command, macOS and Windows need nothing', () => {
  const on = (id: string, like: string[] = []): string[] | undefined => plan({ apt: false, distro: { id, like, codename: '' } }).commands;
  assert.match(on('fedora')![0]!, /dnf install/);
  assert.match(on('rocky', ['rhel', 'centos', 'fedora'])![0]!, /dnf install/);
  assert.match(on('manjaro', ['arch'])![0]!, /pacman/);
  assert.match(on('opensuse-tumbleweed', ['opensuse', 'suse'])![0]!, /zypper/);
  assert.match(on('nixos')![0]!, /lavapipe/);
  assert.is(plan({ platform: 'darwin' }).kind, 'ready');
  assert.is(plan({ platform: 'win32' }).kind, 'ready');
});

setup('browsers come from Debian, not from Ubuntu, whose packages are snaps; a stub of one is no browser', () => {
  assert.ok(aptHasBrowser(DEBIAN_12));
  assert.ok(aptHasBrowser({ id: 'raspbian', like: ['debian'] }));
  assert.not(aptHasBrowser({ id: 'ubuntu', like: ['debian'] }));
  assert.not(aptHasBrowser({ id: 'linuxmint', like: ['ubuntu', 'debian'] }));
  assert.not(aptHasBrowser({ id: 'fedora', like: [] }));
  const folder = mkdtempSync(join(tmpdir(), 'ddpm-browser-'));
  try {
    for (const [name, variable, find] of [['chromium-browser', 'DDPM_CHROMIUM', findBrowser], ['firefox', 'DDPM_FIREFOX', findFirefox]] as const) {
      const own = join(folder, name), env = { [variable]: own };
      assert.is.not(find(env, 'linux'), own, 'nothing there');
      writeFileSync(own, '#!/bin/sh\necho Requires the snap to be installed.\n');
      assert.is.not(find(env, 'linux'), own);
      writeFileSync(own, '#!/bin/sh\nexec /opt/browser\n');
      assert.is(find(env, 'linux'), own, 'before those of the system');
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

setup('npm ci runs exactly when a package is missing, of another version, or gone from disk', () => {
  const lock = { packages: {
    '': { name: 'x' },
    'node_modules/tsx': { version: '4.23.15', dev: true },
    'node_modules/@esbuild/linux-x64': { version: '0.28.2', optional: true },
    'node_modules/@esbuild/win32-x64': { version: '0.28.2', optional: true },
  } };
  const installed = { packages: { 'node_modules/tsx': { version: '4.23.15' }, 'node_modules/@esbuild/linux-x64': { version: '0.28.2' } } };
  const all = (): boolean => true;
  assert.equal(stalePackages(lock, installed, all), []);
  assert.equal(stalePackages(lock, null, all), ['everything']);
  assert.equal(stalePackages(lock, { packages: {} }, all), ['tsx (missing)']);
  assert.equal(stalePackages(lock, { packages: { ...installed.packages, 'node_modules/tsx': { version: '4.0.0' } } }, all), ['tsx (4.0.0, not 4.23.15)']);
  assert.equal(stalePackages(lock, installed, (path: string) => !path.endsWith('linux-x64')), ['linux-x64 (missing)']);
  const real = JSON.parse(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8'));
  const here = JSON.parse(readFileSync(new URL('../node_modules/.package-lock.json', import.meta.url), 'utf8'));
  assert.equal(stalePackages(real, here, (path: string) => existsSync(new URL(`../${path}`, import.meta.url))), [], 'this very checkout');
});

setup('a download is kept only with the right checksum, and says what was wrong', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ddpm-setup-'));
  const md5 = (text: string): string => createHash('md5').update(text).digest('hex');
  const server = createServer((request, response) => {
    if (request.url === '/gone.gz') response.writeHead(404).end('no');
    else if (request.url === '/cut.gz') response.writeHead(200, { 'content-length': '100' }).write('short', () => response.destroy());
    else response.end(`bytes of ${request.url}`);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const home = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const failure = (files: object, from = home): Promise<string> => downloadData(folder, from, files).then(() => 'no error', (error: Error) => error.message);
  try {
    await downloadData(folder, home, { a: md5('bytes of /a.gz'), b: md5('bytes of /b.gz') });
    assert.equal(readdirSync(folder), ['a.gz', 'b.gz']);
    assert.is(readFileSync(join(folder, 'a.gz'), 'utf8'), 'bytes of /a.gz');
    assert.match(await failure({ c: md5('something else') }), /\/c\.gz: its MD5 is [0-9a-f]{32} and should be [0-9a-f]{32} \(14 bytes came\)/);
    assert.match(await failure({ gone: md5('') }), /\/gone\.gz: HTTP 404/);
    assert.match(await failure({ cut: md5('short') }), /\/cut\.gz: /);
    assert.equal(readdirSync(folder), ['a.gz', 'b.gz']);
    // Port 2 is a system's port that no service has; the port of a server just closed may still have a connection in fetch's pool.
    assert.match(await failure({ a: md5('') }, 'http://127.0.0.1:2'), /:2\/a\.gz: ECONNREFUSED$/);
  } finally {
    await new Promise((done) => {
      server.close(done);
      server.closeAllConnections();
    });
    rmSync(folder, { recursive: true });
  }
});

setup('an unknown word is a usage error, and DDPM_NO_SETUP=1 skips the check', () => {
  const script = fileURLToPath(new URL('../src/cli/setup.mjs', import.meta.url));
  const run = (word: string, env: object): { status: number | null; stdout: string } => spawnSync(process.execPath, [script, word], { encoding: 'utf8', env: { ...process.env, ...env } });
  const wrong = run('trian', {});
  assert.is(wrong.status, 2);
  assert.match(wrong.stdout, /^setup: set-up for "trian"\? Use: node src\/cli\/setup\.mjs <train\|test\|sample\|eval\|bench\|tune\|doctor\|view\|web\|info\|fetch>\n$/);
  assert.equal([run('trian', { DDPM_NO_SETUP: '1' }).status, run('trian', { DDPM_NO_SETUP: '1' }).stdout], [0, '']);
});

setup('DDPM_NO_SETUP=1 in a clone whose packages are there still writes the module of kernels, which no command runs without', () => {
  const root = mkdtempSync(join(tmpdir(), 'ddpm-no-setup-')), script = join(root, 'src', 'cli', 'setup.mjs'), generated = join(root, 'src', 'gpu', 'kernels.gen.ts');
  for (const folder of [join(root, 'src', 'cli'), join(root, 'src', 'gpu'), join(root, 'kernels')]) mkdirSync(folder, { recursive: true });
  copyFileSync(fileURLToPath(new URL('../src/cli/setup.mjs', import.meta.url)), script);
  writeFileSync(join(root, 'kernels', 'build.ts'), `import { writeFileSync } from 'node:fs';\nconst path: string = ${JSON.stringify(generated)};\nwriteFileSync(path, '');\n`);
  const run = (): { status: number | null; stdout: string } => spawnSync(process.execPath, [script, 'train'], { encoding: 'utf8', env: { ...process.env, DDPM_NO_SETUP: '1' } });
  assert.equal([run().status, run().stdout, existsSync(generated)], [0, '', false], 'without packages there is nothing to build with');
  symlinkSync(fileURLToPath(new URL('../node_modules', import.meta.url)), join(root, 'node_modules'));
  const { status, stdout } = run();
  assert.equal([status, stdout, existsSync(generated)], [0, 'setup: generating src/gpu/kernels.gen.ts from kernels/*.wgsl\n', true]);
  rmSync(root, { recursive: true });
});

setup('the module of kernels is stale where a kernel, what it imports or the folder is newer', () => {
  const root = mkdtempSync(join(tmpdir(), 'ddpm-kernels-')), kernels = join(root, 'kernels'), generated = join(root, 'src', 'gpu', 'kernels.gen.ts');
  const at = (path: string, time: number): void => utimesSync(path, time, time);
  mkdirSync(join(kernels, 'shared'), { recursive: true });
  mkdirSync(join(root, 'src', 'gpu'), { recursive: true });
  assert.not(kernelsAreStale(root), 'an installed package has nothing to build from');
  const files = ['build.ts', 'x.wgsl', 'shared/y.wgsl'].map((file) => join(kernels, file)), folders = [join(kernels, 'shared'), kernels];
  for (const file of files) writeFileSync(file, '');
  assert.ok(kernelsAreStale(root), 'there is no module yet');
  writeFileSync(generated, '');
  for (const path of [...files, ...folders, generated]) at(path, 1000);
  assert.not(kernelsAreStale(root));
  for (const path of [...files, ...folders]) {
    at(path, 1001);
    assert.ok(kernelsAreStale(root), path);
    at(path, 999);
  }
  at(generated, 998);
  assert.ok(kernelsAreStale(root));
  rmSync(root, { recursive: true });
});

setup.run();
