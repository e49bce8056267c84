// What the 3 x 3 subgroup kernels share; G is the tile's height.
// Adds to row g of the tile what the source rows above, at and below it bring. Each sum takes its twelve products at once:
// there are more sums than registers, and each is stored as seldom as can be.
fn meet(acc: ptr<function, array<vec2f, 64>>, g: u32, above: vec4f, here: vec4f, below: vec4f, b0: mat4x2f, b1: mat4x2f, b2: mat4x2f) {
  for (var r = 0u; r < 8u; r++) {
    let sum = (*acc)[g * 8u + r];
    (*acc)[g * 8u + r] = add(subgroupShuffle(above, r), b0, add(subgroupShuffle(here, r), b1, add(subgroupShuffle(below, r), b2, sum)));
  }
}

fn add(s: vec4f, b: mat4x2f, c: vec2f) -> vec2f { return fma(vec2f(s.x), b[0], fma(vec2f(s.y), b[1], fma(vec2f(s.z), b[2], fma(vec2f(s.w), b[3], c)))); }
