// C[b,i,j] = alpha sum_k op(A)[b,i,k] op(B)[b,k,j] (+ C[b,i,j]); op transposes if trans_a, trans_b are set
// One workgroup computes 64 x 64 of one matrix, an invocation 8 x 8 in 16 accumulators, with tiles of 16 k in workgroup memory; the next tiles load while these are multiplied.
// For GPUs; the same bits as matmul. 26 TFLOP/s on attention's products on an H100. Rows are read and written as vec4s: all leading dimensions and strides are multiples of 4.
#import operands
#import index
#import stored
struct Dims {
  M: u32, N: u32, K: u32, batch: u32, inner: u32, trans_a: u32, trans_b: u32, accumulate: u32, alpha: f32,
  lda: u32, ldb: u32, ldc: u32, outer_a: u32, outer_b: u32, outer_c: u32, inner_a: u32, inner_b: u32, inner_c: u32,
}
@group(0) @binding(0) var<storage, read> a: array<Stored4>;       // (batch, M, K), or (batch, K, M) where trans_a
@group(0) @binding(1) var<storage, read> b: array<Stored4>;       // (batch, K, N), or (batch, N, K) where trans_b
@group(0) @binding(2) var<storage, read_write> c: array<Stored4>; // (batch, M, N)
@group(0) @binding(3) var<uniform> dims: Dims;

// (16, 17): four rows of A or columns of B, by k; one vec4 is padding against bank conflicts.
var<workgroup> ta: array<Operand4, 272>;
var<workgroup> tb: array<Operand4, 272>;

const FOUR = vec4u(0u, 1u, 2u, 3u);

// Where a 4 x 4 block of a factor begins. Its vec4s run along k, in the rows `lines`, or, without `along`, across k, from `line` on.
struct Block { along: bool, line: u32, lines: vec4u, ld: u32 }

fn block(first: u32, i: u32, size: u32, ld: u32, along: bool) -> Block {
  return Block(along, (first + min(i, size - 1u)) / 4u, (vec4u(first) + min(vec4u(i) + FOUR, vec4u(size - 1u)) * ld) / 4u, ld / 4u);
}

// The indices of a block's vec4s at k to k + 3, clamped to K.
fn indices(s: Block, k: u32) -> vec4u {
  if (s.along) { return s.lines + vec4u(min(k, dims.K - 1u) / 4u); }
  return vec4u(s.line) + min(vec4u(k) + FOUR, vec4u(dims.K - 1u)) * s.ld;
}

// A fetched block by k, with zeros past the end of K.
fn by_k(fetched: array<Stored4, 4>, along: bool, k: u32) -> mat4x4f {
  var m = mat4x4f(vec4f(fetched[0]), vec4f(fetched[1]), vec4f(fetched[2]), vec4f(fetched[3]));
  if (along) { m = transpose(m); }
  let known = vec4u(k) + FOUR < vec4u(dims.K);
  return mat4x4f(select(vec4f(0.0), m[0], known.x), select(vec4f(0.0), m[1], known.y), select(vec4f(0.0), m[2], known.z), select(vec4f(0.0), m[3], known.w));
}

fn put(start: u32, row: u32, column: u32, sum: vec4f) {
  if (row >= dims.M || column >= dims.N) { return; }
  let i = (start + row * dims.ldc + column) / 4u;
  var value = dims.alpha * sum;
  if (dims.accumulate != 0u) { value += vec4f(c[i]); }
  // Keeps what is behind the last column.
  if (column + 4u > dims.N) { value = select(vec4f(c[i]), value, vec4u(column) + FOUR < vec4u(dims.N)); }
  c[i] = Stored4(value);
}

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u, @builtin(local_invocation_id) l: vec3u, @builtin(local_invocation_index) li: u32) {
  let columns = (dims.N + 63u) / 64u;
  let rows = (dims.M + 63u) / 64u;
  let tile = workgroup_index(workgroup, count);
  let j0 = tile % columns * 64u;
  let i0 = tile / columns % rows * 64u;
  let batch = tile / (columns * rows);
  if (batch >= dims.batch) { return; }
  let image = batch / dims.inner;
  let head = batch % dims.inner;

  // Each invocation fetches a 4 x 4 block of A and of B; neighbours follow memory.
  let along_a = dims.trans_a == 0u;
  let along_b = dims.trans_b != 0u;
  let ma = select(li % 16u, li / 4u, along_a);
  let ka = select(li / 16u, li % 4u, along_a) * 4u;
  let mb = select(li % 16u, li / 4u, along_b);
  let kb = select(li / 16u, li % 4u, along_b) * 4u;
  let sa = block(image * dims.outer_a + head * dims.inner_a, i0 + 4u * ma, dims.M, dims.lda, along_a);
  let sb = block(image * dims.outer_b + head * dims.inner_b, j0 + 4u * mb, dims.N, dims.ldb, along_b);
  var at = indices(sa, ka);
  var fa = array<Stored4, 4>(a[at.x], a[at.y], a[at.z], a[at.w]);
  at = indices(sb, kb);
  var fb = array<Stored4, 4>(b[at.x], b[at.y], b[at.z], b[at.w]);

  // Eight rows of the four columns on the left (s) and on the right (t). An array indexed by a loop would be kept in memory.
  var s0 = vec4f();
  var s1 = vec4f();
  var s2 = vec4f();
  var s3 = vec4f();
  var s4 = vec4f();
  var s5 = vec4f();
  var s6 = vec4f();
  var s7 = vec4f();
  var t0 = vec4f();
  var t1 = vec4f();
  var t2 = vec4f();
  var t3 = vec4f();
  var t4 = vec4f();
  var t5 = vec4f();
  var t6 = vec4f();
  var t7 = vec4f();
  for (var k0 = 0u; k0 < dims.K; k0 += 16u) {
    let va = by_k(fa, along_a, k0 + ka);
    let vb = by_k(fb, along_b, k0 + kb);
    let to_a = ka * 17u + ma;
    let to_b = kb * 17u + mb;
    ta[to_a] = Operand4(va[0]);
    ta[to_a + 17u] = Operand4(va[1]);
    ta[to_a + 34u] = Operand4(va[2]);
    ta[to_a + 51u] = Operand4(va[3]);
    tb[to_b] = Operand4(vb[0]);
    tb[to_b + 17u] = Operand4(vb[1]);
    tb[to_b + 34u] = Operand4(vb[2]);
    tb[to_b + 51u] = Operand4(vb[3]);
    workgroupBarrier();
    at = indices(sa, k0 + 16u + ka);
    fa = array<Stored4, 4>(a[at.x], a[at.y], a[at.z], a[at.w]);
    at = indices(sb, k0 + 16u + kb);
    fb = array<Stored4, 4>(b[at.x], b[at.y], b[at.z], b[at.w]);
    for (var k = 0u; k < 272u; k += 17u) {
      let v = vec4f(ta[k + l.y]);
      let w = vec4f(ta[k + l.y + 8u]);
      let p = vec4f(tb[k + l.x]);
      let q = vec4f(tb[k + l.x + 8u]);
      s0 = fma(vec4f(v.x), p, s0);
      t0 = fma(vec4f(v.x), q, t0);
      s1 = fma(vec4f(v.y), p, s1);
      t1 = fma(vec4f(v.y), q, t1);
      s2 = fma(vec4f(v.z), p, s2);
      t2 = fma(vec4f(v.z), q, t2);
      s3 = fma(vec4f(v.w), p, s3);
      t3 = fma(vec4f(v.w), q, t3);
      s4 = fma(vec4f(w.x), p, s4);
      t4 = fma(vec4f(w.x), q, t4);
      s5 = fma(vec4f(w.y), p, s5);
      t5 = fma(vec4f(w.y), q, t5);
      s6 = fma(vec4f(w.z), p, s6);
      t6 = fma(vec4f(w.z), q, t6);
      s7 = fma(vec4f(w.w), p, s7);
      t7 = fma(vec4f(w.w), q, t7);
    }
    workgroupBarrier();
  }
  let start = image * dims.outer_c + head * dims.inner_c;
  let i = i0 + 4u * l.y;
  let j = j0 + 4u * l.x;
  put(start, i, j, s0);
  put(start, i, j + 32u, t0);
  put(start, i + 1u, j, s1);
  put(start, i + 1u, j + 32u, t1);
  put(start, i + 2u, j, s2);
  put(start, i + 2u, j + 32u, t2);
  put(start, i + 3u, j, s3);
  put(start, i + 3u, j + 32u, t3);
  put(start, i + 32u, j, s4);
  put(start, i + 32u, j + 32u, t4);
  put(start, i + 33u, j, s5);
  put(start, i + 33u, j + 32u, t5);
  put(start, i + 34u, j, s6);
  put(start, i + 34u, j + 32u, t6);
  put(start, i + 35u, j, s7);
  put(start, i + 35u, j + 32u, t7);
}
