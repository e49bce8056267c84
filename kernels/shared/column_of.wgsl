// Sixteen columns of four rows, and how a column reaches all lanes by broadcast: the sixteen vec4s are counted along the rows, four neighbouring columns each, or, `turned`, are
// the columns, four rows each.
#import subgroup_8

fn row_of_column(v: Sixteen, i: u32, j: u32) -> f32 { return f32_of_lane(part_of(v, i / LANES)[j], i % LANES); }

// Column 4 q + j.
fn column_of(v: Sixteen, turned: bool, q: u32, j: u32) -> vec4f {
  let i = 4u * q + j;
  if (turned) { return vec4_of_lane(part_of(v, i / LANES), i % LANES); }
  return vec4f(row_of_column(v, q, j), row_of_column(v, 4u + q, j), row_of_column(v, 8u + q, j), row_of_column(v, 12u + q, j));
}
