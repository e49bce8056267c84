// y[to + i / row stride + i % row] = sum_s part[start + s step + i / row pitch + i % row] for i < size, added to y where `accumulate` is set: many such sums at once
// A workgroup looks its sum up in the table and computes 256 of its values, each in the order of s: the same bits on every run.
#import index
struct Dims { sums: u32 }
struct Sum { group: u32, start: u32, terms: u32, step: u32, size: u32, row: u32, pitch: u32, stride: u32, to: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> table: array<Sum>;   // (sums), by the first of their workgroups
@group(0) @binding(1) var<storage, read> part: array<f32>;    // every sum's (terms, step)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // the results, anywhere
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_index) li: u32) {
  let group = workgroup_index(workgroup, count);
  var first = 0u;
  var end = dims.sums;
  while (end - first > 1u) {
    let middle = (first + end) / 2u;
    if (table[middle].group <= group) { first = middle; } else { end = middle; }
  }
  let job = table[first];
  let start = (group - job.group) * 256u;
  for (var i = start + li; i < min(start + 256u, job.size); i += 64u) {
    let row = i / job.row;
    let column = i - row * job.row;
    let at_part = job.start + row * job.pitch + column;
    var sum = 0.0;
    for (var s = 0u; s < job.terms; s++) { sum += part[at_part + s * job.step]; }
    let at = job.to + row * job.stride + column;
    if (job.accumulate != 0u) { sum += y[at]; }
    y[at] = sum;
  }
}
