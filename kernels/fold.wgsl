// y[to + floor(i / row) stride + i % row] = sum_s part[start + s step + floor(i / row) pitch + i % row] for i < size, added to y if `accumulate` is set: many such sums at once
// A workgroup finds its sum in the table and computes 256 of its values, each in the order of s: the same bits on every run. On GPUs (WG = 256) eight terms are loaded at once.
// On CPUs four values at a time (_vec4) where all lengths are multiples of four, which the table then counts in fours: loading four costs a CPU little more than loading one.
#import index
#import stored
#import values
override WG: u32 = 64u;
struct Dims { sums: u32 }
struct Sum { group: u32, start: u32, terms: u32, step: u32, size: u32, row: u32, pitch: u32, stride: u32, to: u32, accumulate: u32 }
@group(0) @binding(0) var<storage, read> table: array<Sum>;            // (sums), by the first of their workgroups
@group(0) @binding(1) var<storage, read> part: array<Values>;          // every sum's (terms, step)
@group(0) @binding(2) var<storage, read_write> y: array<StoredValues>; // the results, anywhere
@group(0) @binding(3) var<uniform> dims: Dims;

@compute @workgroup_size(WG)
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
  for (var i = start + li; i < min(start + 256u, job.size); i += WG) {
    let row = i / job.row;
    let column = i - row * job.row;
    var next = job.start + row * job.pitch + column;
    var sum = Values();
    var s = 0u;
    for (; WG > 64u && s + 7u < job.terms; s += 8u) {
      let p0 = part[next];
      let p1 = part[next + job.step];
      let p2 = part[next + 2u * job.step];
      let p3 = part[next + 3u * job.step];
      let p4 = part[next + 4u * job.step];
      let p5 = part[next + 5u * job.step];
      let p6 = part[next + 6u * job.step];
      let p7 = part[next + 7u * job.step];
      sum = sum + p0 + p1 + p2 + p3 + p4 + p5 + p6 + p7;
      next += 8u * job.step;
    }
    for (; s < job.terms; s++) {
      sum += part[next];
      next += job.step;
    }
    let at = job.to + row * job.stride + column;
    if (job.accumulate != 0u) { sum += Values(y[at]); }
    y[at] = StoredValues(sum);
  }
}
