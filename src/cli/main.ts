#!/usr/bin/env node
// The command of the npm package: `ddpm-wgsl train` is what `npm run train --` is in a clone.

/** Made by esbuild, with the twins of its checks: nothing for TypeScript to follow from here. */
const DOCTOR: string = './doctor.js';

const COMMANDS: Readonly<Record<string, { readonly help: string; readonly start: () => Promise<unknown> }>> = {
  train: { help: 'train a model', start: () => import('./train.ts') },
  sample: { help: 'draw images with a trained model', start: () => import('./sample.ts') },
  info: { help: 'show what is in a file, a model or a run', start: () => import('./info.ts') },
  fetch: { help: 'download a pretrained model', start: () => import('./fetch.ts') },
  view: { help: 'show runs on a page of this machine', start: () => import('./view.ts') },
  eval: { help: 'measure how close samples are to real images', start: () => import('./eval.ts') },
  tune: { help: 'measure which kernels are fastest on this device', start: () => import('./tune.ts') },
  doctor: { help: 'check kernels on this device, and measure it', start: () => import(DOCTOR) },
};

/** Commands that build pages or compare sources, which the package does not have. */
const CLONE = ['bench', 'web'];

const list = Object.entries(COMMANDS).map(([name, { help }]) => `  ddpm-wgsl ${name.padEnd(8)}${help}`).join('\n');
const [name] = process.argv.splice(2, 1);
if (name === undefined || name === '--help' || name === '-h') process.stdout.write(`${list}\n\nddpm-wgsl COMMAND --help lists its flags. ${CLONE.join(' and ')} need a clone of the repository: npm run ${CLONE.join(', npm run ')}.\n`);
else if (Object.hasOwn(COMMANDS, name)) await COMMANDS[name]!.start();
else if (CLONE.includes(name)) {
  process.stderr.write(`E-USAGE ${name} needs what only a clone of the repository has. There it is npm run ${name}.\n`);
  process.exitCode = 2;
} else {
  process.stderr.write(`E-USAGE there is no command "${name}". There are:\n${list}\n`);
  process.exitCode = 2;
}
