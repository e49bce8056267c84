// An op from outside: its own WGSL for both ways, and its place on the tape. Everything else (autograd, layers, the optimizer) treats it as one of the library's.
import { type Kernel, record, Tensor } from 'ddpm.wgsl';

const leaky_relu = {
  name: 'leaky_relu', features: [], bindings: { x: 'read', y: 'read_write' }, overrides: {}, optional: {}, dims: { slope: 'f32' },
  wgsl: `// y = max(x, slope x)
// One invocation computes one value.
struct Dims { slope: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;       // (size)
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // (size)
@group(0) @binding(2) var<uniform> dims: Dims;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&x)) { y[id.x] = max(x[id.x], dims.slope * x[id.x]); }
}`,
} as const satisfies Kernel;

const leaky_relu_backward = {
  name: 'leaky_relu_backward', features: [], bindings: { x: 'read', dy: 'read', dx: 'read_write' }, overrides: {}, optional: {}, dims: { slope: 'f32', accumulate: 'u32' },
  wgsl: `// dx = dy where x > 0, slope dy elsewhere; added to dx where accumulate is set
// One invocation computes one value.
struct Dims { slope: f32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;        // (size)
@group(0) @binding(1) var<storage, read> dy: array<f32>;       // (size)
@group(0) @binding(2) var<storage, read_write> dx: array<f32>; // (size)
@group(0) @binding(3) var<uniform> dims: Dims;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= arrayLength(&x)) { return; }
  let g = select(dims.slope * dy[id.x], dy[id.x], x[id.x] > 0.0);
  if (dims.accumulate == 1u) { dx[id.x] += g; } else { dx[id.x] = g; }
}`,
} as const satisfies Kernel;

/** max(x, slope x), any shape. */
export function leakyRelu(x: Tensor, slope = 0.2): Tensor {
  const { engine } = x, grid = [Math.ceil(x.size / 64)] as const;
  const y = Tensor.empty(engine, x.shape);
  engine.run(leaky_relu, grid, { x: x.slice, y: y.slice, slope });
  return record(y, [x], (dy, [dx]) => dx && engine.run(leaky_relu_backward, grid, { x: x.slice, dy, dx: dx.slice, slope, accumulate: dx.accumulate }));
}
