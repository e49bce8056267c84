// Sixteen columns of four rows in eight lanes, two vec4s a lane, and how a column reaches all of them by broadcast.
// A lane holds four neighbouring columns of row lane / 4, in a, and of the row two further on, in b; `turned`, the four rows of column `lane`, in a, and of the eighth after it, in b.
struct Sixteen { a: vec4f, b: vec4f }

// Column 4 q + j.
fn column_of(v: Sixteen, turned: bool, q: u32, j: u32) -> vec4f {
  if (!turned) { return vec4f(subgroupShuffle(v.a[j], q), subgroupShuffle(v.a[j], q + 4u), subgroupShuffle(v.b[j], q), subgroupShuffle(v.b[j], q + 4u)); }
  var held = v.a;
  if (q >= 2u) { held = v.b; }
  return subgroupShuffle(held, q % 2u * 4u + j);
}
