// Winograd's minimal filtering (Lavin and Gray 2016, arXiv:1509.09308): a 3-tap correlation of rows as products of polynomials at the points 0, 1, -1, 2, -2 and infinity. Four rows
// of y from six of x take six products for each tap and channel instead of twelve, three from five take five instead of nine. All factors but 1, 2, 4 and 8 lie in the transform of x.

// Six rows of x, for four of y.
fn four_rows(d: array<vec4f, 6>) -> array<vec4f, 6> {
  let even = (4.0 * d[2] - d[4]) * (1.0 / 6.0);
  let odd = (4.0 * d[1] - d[3]) * (1.0 / 6.0);
  let even2 = (d[4] - d[2]) * (1.0 / 24.0);
  let odd2 = (d[3] - d[1]) * (1.0 / 12.0);
  return array<vec4f, 6>(d[0] - 1.25 * d[2] + 0.25 * d[4], even + odd, even - odd, even2 + odd2, even2 - odd2, 4.0 * d[1] - 5.0 * d[3] + d[5]);
}

// Five rows of x, for three of y: without the point -2.
fn three_rows(d: array<vec4f, 5>) -> array<vec4f, 6> {
  let a = 0.5 * (d[3] - d[1]);
  return array<vec4f, 6>(d[0] - d[2] + a, d[1] + 0.5 * (d[2] - d[3]), (3.0 * d[2] - 2.0 * d[1] - d[3]) * (1.0 / 6.0), a * (1.0 / 3.0), vec4f(0.0), 2.0 * (d[1] - d[3]) - d[2] + d[4]);
}
