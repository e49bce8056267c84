// The memory of a plan: rooms that live at the same time never share a buffer, and packing comes near the least that any could do with.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { trainingOf } from '../bench/model.ts';
import { Engine } from '../src/gpu/engine.ts';
import { paperDevice } from '../src/gpu/paper.ts';
import { pack } from '../src/gpu/plan-pool.ts';
import { uniformInts } from './ref/random.ts';

const packing = suite('packing');

interface Room {
  readonly size: number;
  readonly from: number;
  to: number;
}

/** As a program allocates and frees: `count` rooms, each freed after a while or never. */
function lives(count: number, seed: number): Room[] {
  const draw = uniformInts({ seed, stream: 0, step: 0, samples: [0], count: 3 * count }, 1 << 20), rooms: Room[] = [], open: Room[] = [];
  let time = 0;
  for (let i = 0; i < count; i++) {
    const room = { size: 256 * (1 + (draw[3 * i]! % 40)), from: time++, to: Infinity };
    rooms.push(room);
    open.push(room);
    while (open.length > 12 + (draw[3 * i + 1]! % 6)) open.splice(draw[3 * i + 2]! % open.length, 1)[0]!.to = time++;
  }
  return rooms;
}

const most = (rooms: readonly Room[]): number => Math.max(...rooms.map(({ from }) => rooms.filter((r) => r.from <= from && r.to >= from).reduce((sum, r) => sum + r.size, 0)));

packing('what lives at the same time lies in different buffers, each large enough, and nothing is lost', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const rooms = lives(120, seed), packed = pack(rooms);
    assert.equal(new Set(packed.flatMap((p) => p.rooms)), new Set(rooms));
    assert.is(packed.reduce((sum, p) => sum + p.rooms.length, 0), rooms.length);
    for (const { size, rooms: sharing } of packed) {
      assert.is(size, Math.max(...sharing.map((r) => r.size)));
      const inOrder = [...sharing].sort((a, b) => a.from - b.from);
      for (let i = 1; i < inOrder.length; i++) assert.ok(inOrder[i - 1]!.to < inOrder[i]!.from, `seed ${seed}: two rooms of a buffer overlap`);
    }
    const held = packed.reduce((sum, p) => sum + p.size, 0);
    assert.ok(held >= most(rooms) && held < 1.5 * most(rooms), `seed ${seed}: ${held} bytes for at most ${most(rooms)} at once`);
  }
});

packing('one buffer where lives follow one another, the largest first; two where they touch', () => {
  const rooms = [{ size: 256, from: 0, to: 1 }, { size: 1024, from: 2, to: 3 }, { size: 512, from: 4, to: Infinity }];
  assert.equal(pack(rooms).map(({ size, rooms: r }) => [size, r.length]), [[1024, 3]]);
  assert.equal(pack([{ size: 256, from: 0, to: 2 }, { size: 256, from: 2, to: 3 }]).length, 2);
  assert.equal(pack([]), []);
});

packing('the training step of ddpm-cifar10 at batch 128: a tenth less than by size classes, and 2.4 times less again where blocks run twice', () => {
  const held = [false, true].map((checkpointBlocks) => trainingOf(new Engine(paperDevice(32)), 'ddpm-cifar10', 128, { initial: false, checkpointBlocks }).training.plan.pool);
  const [kept, again] = held as [(typeof held)[0], (typeof held)[0]], MiB = 2 ** 20;
  assert.ok(kept.totalBytes < 1.03 * kept.peakBytes, `${kept.totalBytes / MiB} MiB for ${kept.peakBytes / MiB} at once`);
  assert.ok(again.totalBytes < 1.3 * again.peakBytes, `${again.totalBytes / MiB} MiB for ${again.peakBytes / MiB} at once`);
  assert.ok(kept.totalBytes > 2.4 * again.totalBytes && kept.peakBytes > 3 * again.peakBytes);
  const { totalBytes } = trainingOf(new Engine(paperDevice(32)), 'tiny', 8, { initial: false }).training.plan.pool;
  assert.ok(totalBytes < 20 * MiB, `tiny: ${totalBytes / MiB} MiB`);
});
packing('a plan holds what a trimmed slice has used, and a tensor freed by `using` inside a capture is free', () => {
  const engine = new Engine(paperDevice());
  const plan = engine.capture(() => {
    const slice = engine.allocate(1 << 20);
    assert.ok(engine.owns(slice));
    engine.trim(slice, 1000);
    engine.free(slice);
    assert.not(engine.owns(slice));
  });
  assert.equal([plan.pool.totalBytes, plan.pool.peakBytes, plan.pool.largestBytes], [1024, 1024, 1 << 20]);
});
packing.run();
