// Brings a matrix of sums from the tensor cores to memory, in kernels of eight subgroups. WGSL cannot index such a matrix, so it goes through workgroup memory.
// The kernel defines Sums, TILE, and put(base, row, column, value), which stores four neighbouring sums. Columns are counted in vec4s.
var<workgroup> out: array<vec4f, 4u * TILE>; // (TILE / 16 subgroups, 16, 16 / 4)

fn settle(m: Sums, base: u32, row: u32, column: u32, subgroup: u32, lane: u32) {
  let at = subgroup % (TILE / 16u) * 64u;
  // If TILE is 64, there is room for half of the subgroups at a time.
  for (var half = 0u; half < 128u / TILE; half++) {
    let now = subgroup / (TILE / 16u) == half;
    if (now) { subgroupMatrixStore<row_major>(&out, at, m, 4u); }
    workgroupBarrier();
    if (now) {
      put(base, row + lane / 4u, column + lane % 4u, out[at + lane]);
      put(base, row + lane / 4u + 8u, column + lane % 4u, out[at + lane + 32u]);
    }
    workgroupBarrier();
  }
}
