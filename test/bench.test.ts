// npm run bench: what its modes refuse.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { parseBench } from '../bench/flags.ts';
import { DdpmError } from '../src/errors.ts';

const test = suite('bench');

const parse = (line: string) => parseBench(line.split(' ').filter(Boolean));

function refuses(line: string, message: string): void {
  assert.throws(() => parse(line), (error: unknown) => error instanceof DdpmError && error.code === 'E-USAGE' && error.message.includes(message), line);
}

test('a flag that its mode would pass over is refused, and the modes that read it are named', () => {
  refuses('step --all', '--all is a flag of kernels, not of step.');
  refuses('peers --seconds 3', '--seconds is a flag of step, scale, toggles and report, not of peers.');
  refuses('--seconds 3', 'not of kernels.');
  refuses('conv2d --checkpoint-blocks', '--checkpoint-blocks is a flag of step and plan, not of kernels.');
  refuses('scale --profile', '--profile is a flag of step and plan');
  refuses('host --precision f16', '--precision is a flag of step, scale and plan');
  refuses('startup --json out.json', '--json is a flag of kernels, step, scale and peers');
  refuses('step --out here', '--out is a flag of report, not of step.');
  refuses('step --compare old.json', '--compare is a flag of kernels');
  for (const line of ['', 'conv2d backward --all --json a --compare b', 'step --seconds 1 --profile --checkpoint-blocks --precision f16 --json a', 'plan --profile --preset tiny', 'toggles --seconds 2', 'peers conv2d k3 --json a', 'step --all --help']) parse(line);
});

test('what is no flag, or one argument too many, is refused', () => {
  refuses('--secnds 3', "Unknown option '--secnds'");
  refuses('step --seconds', "'--seconds <value>' argument missing");
  refuses('step conv2d', 'step takes no more arguments, and was given conv2d.');
  assert.equal([parse('conv2d k3').mode, parse('scale').mode, parse('').mode], ['kernels', 'scale', 'kernels']);
});

test.run();
