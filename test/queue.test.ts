// Waiting for the device, on implementations that look for finished work only when something is submitted, or that need nothing.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Queue } from '../src/gpu/queue.ts';
import { assertError } from './helpers/gpu.ts';

const queue = suite('queue');

/** A device that finishes what it was given at the so-many-th submit from now on, and never without. */
function lazy(submits: number, fails = false): { device: GPUDevice; work: Promise<string>; count: () => number } {
  let count = 0, finish!: () => void;
  const work = new Promise<string>((done, fail) => (finish = () => (fails ? fail(new Error('lost')) : done('done'))));
  const submit = (commands: readonly unknown[]): void => {
    assert.equal(commands, []);
    if (++count === submits) finish();
  };
  return { device: { lost: new Promise(() => {}), queue: { submit, onSubmittedWorkDone: () => work } } as unknown as GPUDevice, work, count: () => count };
}

queue('a wait goes on to submit nothing until the work is found to be done, and no longer', async () => {
  const { device, work, count } = lazy(3), one = new Queue(device, null);
  assert.is(await one.settle(work), 'done');
  await one.done();
  await new Promise((done) => setTimeout(done, 30));
  assert.is(count(), 3);
  const failing = lazy(2, true);
  await new Queue(failing.device, null).settle(failing.work).then(() => assert.unreachable(), (error: Error) => assert.is(error.message, 'lost'));
  const other = lazy(1);
  await new Queue(other.device, null).done();
  assert.is(other.count(), 1);
});

queue('nothing is submitted for what is there at once, nor where the owner has something to do meanwhile', async () => {
  const { device, count } = lazy(1);
  assert.is(await new Queue(device, null).settle(Promise.resolve(5)), 5);
  let naps = 0, wake!: () => void;
  const later = new Promise<void>((done) => (wake = done));
  await new Queue(device, async () => void (++naps === 4 && wake())).settle(later);
  assert.ok(naps >= 4 && naps <= 5, `${naps} naps`);
  assert.is(count(), 0);
});

queue('a read that is refused waits for the news that the device is lost, which comes when its work is done', async () => {
  let told!: (info: { reason: string; message: string }) => void;
  const work = lazy(2), lost = new Promise<{ reason: string; message: string }>((done) => (told = done));
  void work.work.then(() => setTimeout(told, 5, { reason: 'unknown', message: 'the driver went away' }));
  const encoder = { copyBufferToBuffer() {}, finish: () => ({}) };
  const refusing = (lost: Promise<unknown>): GPUDevice => ({
    lost, pushErrorScope() {}, popErrorScope: async () => null, createCommandEncoder: () => encoder,
    createBuffer: () => ({ destroy() {}, mapAsync: () => Promise.reject(new Error('Buffer unmapped')) }),
    queue: { onSubmittedWorkDone: () => work.work, submit: (commands: readonly unknown[]) => commands.length || work.device.queue.submit([]) },
  }) as unknown as GPUDevice;
  const buffer = {} as GPUBuffer;
  await assertError(() => new Queue(refusing(lost), null).read(buffer, 0, 4), 'E-DEVICE-LOST', /driver went away/);
  await new Queue(refusing(new Promise(() => {})), null).read(buffer, 0, 4).then(() => assert.unreachable(), (error: Error) => assert.is(error.message, 'Buffer unmapped'));
});

queue.run();
