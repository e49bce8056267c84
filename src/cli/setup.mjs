// Sets up what is missing before a command: packages and kernels, and where it needs them a Vulkan driver, data, and browsers for the tests. Says what it does; instant when
// nothing is missing.
//
//   node src/cli/setup.mjs <train|test|sample|eval|bench|tune|doctor|view|web|info|fetch>      (npm runs it before each of these; with DDPM_NO_SETUP=1 it installs nothing)
//
// Plain JavaScript without dependencies, because it runs before there are any. Exit codes: 0 done, 1 failure, 2 usage, 3 no usable GPU driver and no way
// to install one from here (the commands to type are printed).

import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..');
const NODE_NEEDED = '20.19.0';
/** Lavapipe from older Mesa is refused by Dawn. */
const MESA_NEEDED = '24';
const BACKPORTS_FILE = '/etc/apt/sources.list.d/ddpm-wgsl-backports.sources';
const DATA_HOME = 'https://fashion-mnist.s3.eu-central-1.amazonaws.com';
/** The published MD5 of each file's .gz. */
export const DATA_FILES = {
  'train-images-idx3-ubyte': '8d4fb7e6c68d591d4c3dfef9ec88bf0d',
  'train-labels-idx1-ubyte': '25c81989df183df01b3e8a0aad5dffbe',
  't10k-images-idx3-ubyte': 'bef4ecab320f06d8554ea6380940ec79',
  't10k-labels-idx1-ubyte': 'bb300cfdad3c16e7a12a480ee83cd310',
};

const say = (text) => text.split('\n').forEach((line) => console.log(`setup: ${line}`));

/** Ends the set-up with a message; everything the user has to type is in it. */
class Stop extends Error {
  constructor(exitCode, message) {
    super(message);
    this.exitCode = exitCode;
  }
}

// ---- versions and packages ----

/**
 * Compares dotted versions by their numbers: negative, 0 or positive as a is older, equal or newer. Debian's epoch ("1:") and revision ("-2~bpo12+1") and
 * anything after the numbers do not count; missing numbers are 0.
 */
export function compareVersions(a, b) {
  const numbers = (version) => version.replace(/^(v|\d+:)/, '').split(/[^0-9.]/, 1)[0].split('.').map(Number);
  const x = numbers(a), y = numbers(b);
  for (let i = 0; i < Math.max(x.length, y.length); i++) {
    const d = (x[i] ?? 0) - (y[i] ?? 0);
    if (d !== 0) return d;
  }
  return 0;
}

/**
 * What `npm ci` would have to change: "name (why)" for each package of package-lock.json that node_modules lacks or has in another version.
 * @param lock parsed package-lock.json
 * @param installed parsed node_modules/.package-lock.json, null when there is none
 * @param exists whether a path such as "node_modules/tsx" is there
 */
export function stalePackages(lock, installed, exists) {
  if (!installed) return ['everything'];
  const stale = [];
  for (const [path, wanted] of Object.entries(lock.packages)) {
    if (path === '' || wanted.link) continue;
    const found = installed.packages?.[path];
    if (!found) {
      if (!wanted.optional) stale.push(`${basename(path)} (missing)`); // an optional one is for another platform
    } else if (found.version !== wanted.version) stale.push(`${basename(path)} (${found.version}, not ${wanted.version})`);
    else if (!exists(path)) stale.push(`${basename(path)} (missing)`);
  }
  return stale;
}

function ensurePackages() {
  const json = (file) => (existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : null);
  let installed = null;
  try {
    installed = json(join(ROOT, 'node_modules', '.package-lock.json'));
  } catch {
    // Cut off by an interrupted install: as good as missing.
  }
  const stale = stalePackages(json(join(ROOT, 'package-lock.json')), installed, (path) => existsSync(join(ROOT, path, 'package.json')));
  if (stale.length === 0) return;
  say(`installing npm packages (npm ci): ${stale.slice(0, 4).join(', ')}${stale.length > 4 ? ` and ${stale.length - 4} more` : ''}`);
  const npm = process.env.npm_execpath ?? '';
  const args = ['ci', '--include=dev', '--no-audit', '--no-fund']; // NODE_ENV=production would leave out tsx, without which nothing runs
  const done = npm.endsWith('npm-cli.js')
    ? spawnSync(process.execPath, [npm, ...args], { cwd: ROOT, encoding: 'utf8' })
    : spawnSync('npm', args, { cwd: ROOT, encoding: 'utf8', shell: process.platform === 'win32' });
  if (done.status !== 0) throw new Stop(1, `npm ci failed:\n${lastLines(done)}\nCheck the network, then try again: npm ci`);
}

/** Whether any kernel, or the folder it lies in (a file may have been deleted), is newer than the generated module, as after a pull; false where there are no kernels to build from. */
export function kernelsAreStale(root = ROOT) {
  const generated = join(root, 'src', 'gpu', 'kernels.gen.ts');
  if (!existsSync(join(root, 'kernels', 'build.ts'))) return false;
  if (!existsSync(generated)) return true;
  const built = statSync(generated).mtimeMs;
  const newer = (path) => {
    const stat = statSync(path);
    if (stat.isDirectory()) return stat.mtimeMs > built || readdirSync(path).some((file) => newer(join(path, file)));
    return (path.endsWith('.wgsl') || path.endsWith('build.ts')) && stat.mtimeMs > built;
  };
  return newer(join(root, 'kernels'));
}

/** Generates the module where it is older than the kernels; test/run.ts asks for it too, since it is often run without npm. */
export function ensureKernels() {
  if (!kernelsAreStale()) return;
  say('generating src/gpu/kernels.gen.ts from kernels/*.wgsl');
  const done = spawnSync(process.execPath, ['--import', 'tsx', join('kernels', 'build.ts')], { cwd: ROOT, encoding: 'utf8' });
  if (done.status !== 0) throw new Stop(1, `the kernels do not build:\n${lastLines(done)}\nMend the file named above, then: npm run kernels`);
}

/** The end of what a program printed, without empty lines and stack traces. */
const lastLines = ({ stdout, stderr, error }, count = 20) => {
  const lines = `${stdout ?? ''}${stderr ?? ''}${error ? error.message : ''}`.split('\n').filter((line) => line.trim() && !/^ +at /.test(line));
  return lines.slice(-count).map((line) => `  ${line}`).join('\n');
};

// ---- apt ----

/**
 * The package sources in a file of apt's: one object a deb822 stanza ("deb822", *.sources) or line ("list", *.list). Disabled ones, comments and source
 * packages (deb-src alone) are left out. `signedBy` may have several lines, when the key itself is written there.
 */
export function parseAptSources(text, kind) {
  const sources = [];
  if (kind === 'list') {
    for (const line of text.split('\n')) {
      const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
      if (!match) continue;
      const options = Object.fromEntries((match[1] ?? '').trim().split(/\s+/).filter(Boolean).map((option) => option.split(/=(.*)/s, 2)));
      sources.push({ uris: [match[2]], suites: [match[3]], components: words(match[4]), signedBy: options['signed-by'], trusted: options.trusted });
    }
    return sources;
  }
  for (const stanza of text.split('\n').filter((line) => !line.startsWith('#')).join('\n').split(/\n\s*\n/)) {
    const fields = {};
    let field = '';
    for (const line of stanza.split('\n')) {
      const start = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
      if (start) {
        field = start[1].toLowerCase();
        fields[field] = start[2];
      } else if (field && /^\s/.test(line)) fields[field] += `\n${line}`;
    }
    if (!words(fields.types).includes('deb') || /^(no|false|0|off)$/i.test((fields.enabled ?? '').trim())) continue;
    const { uris, suites, components, trusted } = fields;
    sources.push({ uris: words(uris), suites: words(suites), components: words(components), signedBy: fields['signed-by']?.trimEnd(), trusted: trusted?.trim() });
  }
  return sources;
}

const words = (text) => (text ?? '').trim().split(/\s+/).filter(Boolean);

/** The machine's own source of the plain release (codename, or the name stable or oldstable it may go by), undefined when it has none. */
export function releaseSource(sources, codename) {
  return [codename, 'stable', 'oldstable'].map((suite) => sources.find((source) => source.suites.includes(suite) && source.uris.length > 0)).find(Boolean);
}

/** The text of a source for a release's backports: Debian keeps them in the same archive as the release, so everything else is taken from `source`. */
export function backportsSource(source, codename) {
  return [
    '# Added by the set-up of ddpm.wgsl: Mesa\'s Vulkan drivers in a version that Dawn accepts. May be removed when they are no longer needed.',
    'Types: deb',
    `URIs: ${source.uris[0]}`,
    `Suites: ${codename}-backports`,
    'Components: main',
    ...(source.signedBy ? [`Signed-By: ${source.signedBy}`] : []),
    ...(source.trusted ? [`Trusted: ${source.trusted}`] : []),
    '',
  ].join('\n');
}

/** The commands that install packages, as a user would type them. */
export function aptCommands({ packages, release, source }) {
  const quoted = (line) => `'${line.replaceAll('\'', '\'\\\'\'')}'`;
  return [
    ...(source ? [`printf '%s\\n' ${source.trimEnd().split('\n').slice(1).map(quoted).join(' ')} | sudo tee ${BACKPORTS_FILE}`] : []),
    'sudo apt-get update',
    `sudo apt-get install -y --no-install-recommends ${release ? `-t ${release} ` : ''}${packages.join(' ')}`,
  ];
}

function readAptSources() {
  const folder = '/etc/apt/sources.list.d';
  const files = existsSync(folder) ? readdirSync(folder).sort().map((file) => join(folder, file)) : [];
  return ['/etc/apt/sources.list', ...files].flatMap((file) => {
    const kind = file.endsWith('.sources') ? 'deb822' : file.endsWith('.list') ? 'list' : null;
    return kind && existsSync(file) ? parseAptSources(readFileSync(file, 'utf8'), kind) : [];
  });
}

let prefix; // the words before a command that needs root; null when there is no way

function rootPrefix() {
  if (prefix === undefined) {
    if (process.getuid?.() === 0) prefix = [];
    else prefix = spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0 ? ['sudo', '-n'] : null;
  }
  return prefix;
}

function asRoot(command, input) {
  const [program, ...args] = [...rootPrefix(), 'env', 'DEBIAN_FRONTEND=noninteractive', ...command];
  return spawnSync(program, args, { encoding: 'utf8', input, maxBuffer: 1 << 28 });
}

let lists; // the result of the last apt-get update
let listsKnow; // whether backports were configured at that time

/** Installs packages, or returns apt's complaints. A source out of reach hurts the update but not what comes from other sources, so it counts only if the install fails. */
function aptInstall(packages, release) {
  if (!lists || listsKnow !== existsSync(BACKPORTS_FILE)) {
    lists = asRoot(['apt-get', '-q', '-o', 'Acquire::Retries=3', 'update']);
    listsKnow = existsSync(BACKPORTS_FILE);
  }
  // On a machine just started, automatic updates may hold dpkg's lock for a while.
  const install = asRoot(['apt-get', '-q', '-y', '-o', 'Acquire::Retries=3', '-o', 'DPkg::Lock::Timeout=300', 'install', '--no-install-recommends',
    ...(release ? ['-t', release] : []), ...packages]);
  if (install.status === 0) return null;
  const unread = `${lists.stdout}${lists.stderr}`.split('\n').filter((line) => /^[EW]: /.test(line)).slice(-6); // apt-get update only warns when the network is down
  return [...unread.map((line) => `  ${line}`), lastLines(install)].join('\n');
}

// ---- Vulkan ----

/**
 * Decides what the machine needs to run WebGPU.
 * @param facts what `gatherFacts` found: platform; distro { id, like, codename }; apt (is there an apt-get); loader (is libvulkan.so.1 found);
 *   fixed (the value of VK_DRIVER_FILES or VK_ICD_FILENAMES, if set); drivers, a list of { file, library: found?, searched: does the loader look there? };
 *   gpus, a list of 'nvidia' | 'amd' | 'intel' whose device files can be used; mesa, the version of the package mesa-vulkan-drivers or null
 * @returns { kind: 'ready', driver, note? } | { kind: 'apt', why, packages, release } | { kind: 'manual', why, commands }, `release` being the suite to take
 *   packages from, or null for the release itself
 */
export function planVulkan(facts) {
  if (facts.platform !== 'linux') return { kind: 'ready', driver: facts.platform === 'darwin' ? 'Metal' : 'Direct3D 12' };
  const usable = facts.drivers.filter((driver) => driver.library);
  const OF_GPU = { nvidia: /nvidia|nouveau/, amd: /radeon|amd/, intel: /intel/ };
  const hardware = usable.find(({ file }) => facts.gpus.some((gpu) => OF_GPU[gpu].test(basename(file))));
  const lavapipe = usable.find(({ file }) => /lvp|lavapipe/.test(basename(file)));
  const good = hardware ?? (lavapipe && (facts.mesa === null || compareVersions(facts.mesa, MESA_NEEDED) >= 0) ? lavapipe : undefined);

  let note;
  if (good && !good.searched) note = `${good.file} lies where the Vulkan loader does not look. If no GPU is found: export VK_DRIVER_FILES=${good.file}`;
  else if (!hardware && facts.gpus.includes('nvidia')) {
    note = 'there is an NVIDIA GPU, but not its Vulkan driver, so the CPU will be used. In a container, set NVIDIA_DRIVER_CAPABILITIES=all.';
  }
  if (good && facts.loader) return { kind: 'ready', driver: basename(good.file), note };

  let why = good ? 'the Vulkan loader (libvulkan.so.1) is missing' : 'there is no GPU driver for Vulkan';
  if (!good && lavapipe) why = `the software Vulkan driver is Mesa ${facts.mesa}, and Dawn needs ${MESA_NEEDED} or newer`;
  if (!good && facts.fixed) {
    // What is installed now would not be looked at.
    return { kind: 'manual', why: `VK_DRIVER_FILES or VK_ICD_FILENAMES is "${facts.fixed}", and no usable driver is there`, commands: ['unset VK_DRIVER_FILES VK_ICD_FILENAMES'] };
  }
  const packages = good ? ['libvulkan1'] : ['mesa-vulkan-drivers', 'libvulkan1'];
  if (facts.apt) return { kind: 'apt', why, note, packages, release: !good && facts.distro.codename === 'bookworm' ? 'bookworm-backports' : null };
  const is = (name) => facts.distro.id === name || facts.distro.like.includes(name);
  const command = is('fedora') || is('rhel') ? 'sudo dnf install mesa-vulkan-drivers vulkan-loader'
    : is('arch') ? 'sudo pacman -S vulkan-swrast vulkan-icd-loader'
      : is('suse') || is('opensuse') ? 'sudo zypper install libvulkan_lvp libvulkan1'
        : null;
  return { kind: 'manual', why, note, commands: command ? [command] : [`# install libvulkan.so.1 and Mesa's software Vulkan driver (lavapipe), version ${MESA_NEEDED} or newer`] };
}

/** The fields of os-release that matter: id, like (a list) and codename, lower case. */
export function parseOsRelease(text) {
  const field = (name) => (new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1] ?? '').trim().replace(/^["']|["']$/g, '').toLowerCase();
  return { id: field('ID'), like: words(field('ID_LIKE')), codename: field('VERSION_CODENAME') };
}

function gatherFacts() {
  const facts = { platform: process.platform, distro: { id: '', like: [], codename: '' }, apt: false, loader: false, fixed: undefined, drivers: [], gpus: [], mesa: null };
  if (process.platform !== 'linux') return facts;
  if (existsSync('/etc/os-release')) facts.distro = parseOsRelease(readFileSync('/etc/os-release', 'utf8'));
  facts.apt = existsSync('/usr/bin/apt-get');
  facts.loader = hasLibrary('libvulkan.so.1');
  facts.fixed = process.env.VK_DRIVER_FILES || process.env.VK_ICD_FILENAMES || undefined;
  facts.drivers = driverFiles(facts.fixed).flatMap(({ file, searched }) => {
    const library = icdLibrary(file);
    return library === null ? [] : [{ file, searched, library: hasLibrary(library) }];
  });
  facts.gpus = findGpus();
  if (facts.drivers.some(({ file }) => basename(file).startsWith('lvp')) && existsSync('/usr/bin/dpkg-query')) {
    const { stdout } = spawnSync('dpkg-query', ['-W', '-f', '${db:Status-Status} ${Version}', 'mesa-vulkan-drivers'], { encoding: 'utf8' });
    facts.mesa = /^installed (\S+)/.exec(stdout ?? '')?.[1] ?? null;
  }
  return facts;
}

/** Every driver manifest, and whether the Vulkan loader would look at it. VK_DRIVER_FILES and VK_ICD_FILENAMES replace its own search. */
function driverFiles(fixed) {
  const { env } = process;
  const list = (value) => (value ?? '').split(':').filter(Boolean);
  const manifests = (place) => {
    if (!existsSync(place)) return [];
    return statSync(place).isDirectory() ? readdirSync(place).filter((file) => file.endsWith('.json')).sort().map((file) => join(place, file)) : [place];
  };
  if (fixed) return list(fixed).flatMap(manifests).map((file) => ({ file, searched: true }));
  const home = homedir();
  const folders = [
    env.XDG_CONFIG_HOME || join(home, '.config'), ...list(env.XDG_CONFIG_DIRS || '/etc/xdg'), '/usr/local/etc', '/etc',
    env.XDG_DATA_HOME || join(home, '.local', 'share'), ...list(env.XDG_DATA_DIRS || '/usr/local/share:/usr/share'), '/usr/local/share', '/usr/share',
  ].map((folder) => join(folder, 'vulkan', 'icd.d'));
  const searched = [...new Set([...list(env.VK_ADD_DRIVER_FILES), ...folders])].flatMap(manifests);
  const aside = manifests('/usr/local/nvidia/share/vulkan/icd.d').filter((file) => !searched.includes(file)); // where some container runtimes mount it
  return [...searched.map((file) => ({ file, searched: true })), ...aside.map((file) => ({ file, searched: false }))];
}

/** The library a driver manifest names, as a path or as a bare name; null when the manifest cannot be read. */
function icdLibrary(file) {
  try {
    const path = JSON.parse(readFileSync(file, 'utf8')).ICD.library_path;
    return path.includes('/') && !isAbsolute(path) ? resolve(dirname(file), path) : path;
  } catch {
    return null;
  }
}

let linkerCache;

function hasLibrary(name) {
  if (isAbsolute(name)) return existsSync(name);
  const multiarch = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch] ?? '';
  const folders = [...(process.env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean), `/usr/lib/${multiarch}`, '/usr/lib64', '/usr/lib', '/usr/local/lib', `/lib/${multiarch}`];
  if (folders.some((folder) => existsSync(join(folder, name)))) return true;
  if (linkerCache === undefined) linkerCache = spawnSync('/sbin/ldconfig', ['-p'], { encoding: 'utf8' }).stdout ?? '';
  return linkerCache.includes(`\t${name} (`);
}

/** The makers of the GPUs whose device files this user may open. */
function findGpus() {
  const may = (path) => {
    try {
      accessSync(path, constants.R_OK | constants.W_OK);
      return true;
    } catch {
      return false;
    }
  };
  const gpus = new Set();
  const nodes = (folder, pattern) => (existsSync(folder) ? readdirSync(folder).filter((file) => pattern.test(file) && may(join(folder, file))) : []);
  if (nodes('/dev', /^nvidia\d+$/).length > 0) gpus.add('nvidia');
  for (const node of nodes('/dev/dri', /^renderD\d+$/)) {
    const file = `/sys/class/drm/${node}/device/vendor`;
    const maker = existsSync(file) ? { '0x10de': 'nvidia', '0x1002': 'amd', '0x8086': 'intel' }[readFileSync(file, 'utf8').trim()] : undefined;
    if (maker) gpus.add(maker);
  }
  return [...gpus];
}

// ---- browsers, for tests ----

/** Where Chromium is looked for; DDPM_CHROMIUM names another. */
const browserPaths = (env, platform) => [
  ...(env.DDPM_CHROMIUM ? [env.DDPM_CHROMIUM] : []),
  ...(platform === 'linux' ? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'] : []),
  ...(platform === 'darwin' ? ['/Applications/Chromium.app/Contents/MacOS/Chromium', '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'] : []),
  ...(platform === 'win32' ? [`${env.PROGRAMFILES}\\Google\\Chrome\\Application\\chrome.exe`] : []),
];

/** Where Firefox is looked for; DDPM_FIREFOX names another. */
const firefoxPaths = (env, platform) => [
  ...(env.DDPM_FIREFOX ? [env.DDPM_FIREFOX] : []),
  ...(platform === 'linux' ? ['/usr/bin/firefox-esr', '/usr/bin/firefox'] : []),
  ...(platform === 'darwin' ? ['/Applications/Firefox.app/Contents/MacOS/firefox'] : []),
  ...(platform === 'win32' ? [`${env.PROGRAMFILES}\\Mozilla Firefox\\firefox.exe`] : []),
];

/** Ubuntu's chromium-browser and firefox may be stubs of a few lines that ask for a snap. */
const isStub = (path) => /(-browser|firefox)$/.test(path) && statSync(path).size < 10_000 && /snap/.test(readFileSync(path, 'utf8'));
const firstOf = (paths) => paths.find((path) => existsSync(path) && !isStub(path));

/** The first Chromium that is there, or undefined. */
export const findBrowser = (env = process.env, platform = process.platform) => firstOf(browserPaths(env, platform));
/** The first Firefox that is there, or undefined. */
export const findFirefox = (env = process.env, platform = process.platform) => firstOf(firefoxPaths(env, platform));

/** Whether apt has browsers that run anywhere: Debian's do, Ubuntu's are snaps, which containers cannot install. */
export const aptHasBrowser = ({ id, like }) => id === 'debian' || (like.includes('debian') && id !== 'ubuntu' && !like.includes('ubuntu'));

const BROWSERS = [
  { name: 'Chromium', packageName: 'chromium', variable: 'DDPM_CHROMIUM', find: findBrowser },
  { name: 'Firefox', packageName: 'firefox-esr', variable: 'DDPM_FIREFOX', find: findFirefox },
];

/** Never fatal: the tests that need a browser say that they were skipped. */
function installBrowser({ name, packageName, variable, find }, mayUseApt) {
  if (mayUseApt) {
    say(`installing ${name} with apt-get for the tests in it (80 MB)`);
    const failure = aptInstall([packageName], null);
    if (failure === null && find()) return;
    say(`apt-get could not install it:\n${failure}`);
  }
  say(`no ${name} was found: the tests in it will be skipped. Install one, or set ${variable} to its path.`);
}

// ---- data ----

/** The folders in which Fashion-MNIST is looked for; src/data/dataset.ts has the same list. */
export function dataFolders(env, home) {
  return [
    ...(env.DDPM_DATA ? [env.DDPM_DATA, join(env.DDPM_DATA, 'fashion-mnist')] : []),
    join('data', 'fashion-mnist'),
    ...(env.XDG_DATA_HOME ? [join(env.XDG_DATA_HOME, 'datasets', 'fashion-mnist')] : []),
    join(home, '.local', 'share', 'datasets', 'fashion-mnist'),
    '/usr/share/datasets/fashion-mnist',
  ];
}

const hasData = () => dataFolders(process.env, homedir()).some((folder) =>
  Object.keys(DATA_FILES).every((file) => [file, `${file}.gz`].some((each) => existsSync(resolve(ROOT, folder, each)))));

/** Downloads the four files into a folder, each under a temporary name until its checksum is right. Throws an Error that says which and why. */
export async function downloadData(folder, home = DATA_HOME, files = DATA_FILES) {
  const { createHash } = await import('node:crypto');
  mkdirSync(folder, { recursive: true });
  for (const [name, md5] of Object.entries(files)) {
    const url = `${home}/${name}.gz`, path = join(folder, `${name}.gz`);
    let bytes;
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(600_000) });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      bytes = new Uint8Array(await response.arrayBuffer());
    } catch (error) {
      throw new Error(`${url}: ${error.cause?.code ?? error.cause?.message ?? error.message}`, { cause: error });
    }
    const found = createHash('md5').update(bytes).digest('hex');
    if (found !== md5) throw new Error(`${url}: its MD5 is ${found} and should be ${md5} (${bytes.length} bytes came)`);
    writeFileSync(`${path}.part`, bytes);
    renameSync(`${path}.part`, path);
  }
}

async function fetchData(mayUseApt) {
  if (mayUseApt) {
    say('installing the package dataset-fashion-mnist (31 MB) with apt-get');
    if (aptInstall(['dataset-fashion-mnist'], null) === null && hasData()) return;
    say('apt-get could not install it');
  }
  const folder = join('data', 'fashion-mnist');
  say(`downloading Fashion-MNIST (4 files, 31 MB) from ${DATA_HOME} into ${folder}`);
  try {
    await downloadData(join(ROOT, folder));
  } catch (error) {
    // Not fatal: this script cannot know whether --data names something else, and training itself says what is missing.
    say([
      `Fashion-MNIST could not be downloaded (${error.message}).`,
      `It is these four files: ${Object.keys(DATA_FILES).map((file) => `${file}.gz`).join(', ')}.`,
      `Put them into ${[...new Set(dataFolders(process.env, homedir()))].join(' or ')},`,
      'or train on shapes made in code: npm run train -- --data shapes',
    ].join('\n'));
  }
}

// ---- all together ----

/** Asks on a terminal; elsewhere (CI, containers, pipes) there is nobody to ask, and the answer is yes. */
async function agreed(question) {
  if (!process.stdin.isTTY || !process.stdout.isTTY || process.env.CI) return true;
  const { createInterface } = await import('node:readline/promises');
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question(`setup: ${question} [Y/n] `);
  terminal.close();
  return /^\s*(y|yes)?\s*$/i.test(answer);
}

async function ensureSystem(wantsData, wantsBrowsers) {
  const facts = gatherFacts();
  const plan = planVulkan(facts);
  if (plan.note) say(plan.note);
  const skip = 'If you know better, DDPM_NO_SETUP=1 skips this check.';
  if (plan.kind === 'manual') throw new Stop(3, [`${plan.why}. Type:`, ...plan.commands.map((command) => `  ${command}`), skip].join('\n'));

  // Where backports are needed and not configured, they come from the archive that the machine already uses.
  const release = plan.kind === 'apt' ? plan.release : null;
  const sources = release ? readAptSources() : [];
  const missingSource = release !== null && !sources.some((source) => source.suites.includes(release));
  const own = missingSource ? releaseSource(sources, release.replace('-backports', '')) : undefined;
  if (missingSource && !own) throw new Stop(3, `${plan.why}. It is in ${release}, which no apt source of this machine leads to: add one, then try again.\n${skip}`);
  const source = own && backportsSource(own, release.replace('-backports', ''));

  const needsData = wantsData && !hasData(), browsers = wantsBrowsers ? BROWSERS.filter(({ find }) => !find()) : [];
  const canApt = existsSync('/usr/bin/apt-get') && (plan.kind === 'apt' || needsData || browsers.length > 0) && rootPrefix() !== null;
  const browserByApt = canApt && aptHasBrowser(facts.distro);
  const packages = [...(plan.kind === 'apt' ? plan.packages : []), ...(needsData && canApt ? ['dataset-fashion-mnist'] : []), ...(browserByApt ? browsers.map(({ packageName }) => packageName) : [])];
  const consent = canApt && packages.length > 0 && (await agreed(`install ${packages.join(', ')} with apt-get${source ? `, adding ${release} to the apt sources` : ''}?`));

  if (plan.kind === 'apt') installDriver(plan, source, canApt, consent, skip);
  if (needsData) await fetchData(canApt && consent);
  for (const browser of browsers) installBrowser(browser, browserByApt && consent);
}

function installDriver(plan, source, canApt, consent, skip) {
  const commands = aptCommands({ ...plan, source }).map((command) => `  ${command}`);
  if (!canApt || !consent) {
    throw new Stop(3, [`${plan.why}${canApt ? '' : ', and installing one needs root or passwordless sudo'}. Type:`, ...commands, skip].join('\n'));
  }
  say(`${plan.why}: installing ${plan.packages.join(' and ')}${plan.release ? ` from ${plan.release}` : ''} with apt-get (a minute or so)`);
  if (source) {
    const written = asRoot(['tee', BACKPORTS_FILE], source);
    if (written.status !== 0) throw new Stop(3, [`${BACKPORTS_FILE} could not be written:`, lastLines(written), 'Type:', ...commands].join('\n'));
    say(`added ${plan.release} to the apt sources in ${BACKPORTS_FILE}, which stays so that updates arrive`);
  }
  const failure = aptInstall(plan.packages, plan.release);
  if (failure !== null) {
    if (source) asRoot(['rm', '-f', BACKPORTS_FILE]); // an archive without backports would break every later apt-get update
    throw new Stop(3, [`apt-get failed${source ? ` (${BACKPORTS_FILE} was removed again)` : ''}:`, failure, 'When that is mended, try again, or type:', ...commands, skip].join('\n'));
  }
  const after = planVulkan(gatherFacts());
  if (after.kind === 'ready') return;
  throw new Stop(3, `${plan.packages.join(' and ')} were installed, but still ${after.why}. Use Debian 12, Ubuntu 24.04 or newer, or a machine with a GPU and its driver.\n${skip}`);
}

const ON_DEVICE = ['train', 'test', 'sample', 'eval', 'bench', 'tune', 'doctor'];
const WITHOUT_DEVICE = ['view', 'web', 'info', 'fetch'];

async function main(what) {
  if (![...ON_DEVICE, ...WITHOUT_DEVICE].includes(what)) throw new Stop(2, `set-up for "${what ?? ''}"? Use: node src/cli/setup.mjs <${[...ON_DEVICE, ...WITHOUT_DEVICE].join('|')}>`);
  if (compareVersions(process.version, NODE_NEEDED) < 0) {
    throw new Stop(1, `this is Node ${process.version}, and ${NODE_NEEDED} or newer is needed. Install the current LTS release of Node.js, then try again.`);
  }
  ensurePackages();
  ensureKernels();
  if (ON_DEVICE.includes(what)) await ensureSystem(['train', 'test', 'eval'].includes(what), what === 'test');
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    // The module of kernels is written here and installs nothing; without the packages it cannot be.
    if (!process.env.DDPM_NO_SETUP) await main(process.argv[2]);
    else if (existsSync(join(ROOT, 'node_modules', 'tsx'))) ensureKernels();
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    say(error.message);
    process.exitCode = error.exitCode;
  }
}
