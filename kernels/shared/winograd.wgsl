// Winograd's filtering down the rows, F(4, 3) at the points 0, 1, -1, 2, -2 and infinity: six rows of x at the points. What does not divide evenly is left to x.
fn four_rows(d: array<vec4f, 6>) -> array<vec4f, 6> {
  let even = (4.0 * d[2] - d[4]) * (1.0 / 6.0);
  let odd = (4.0 * d[1] - d[3]) * (1.0 / 6.0);
  let even2 = (d[4] - d[2]) * (1.0 / 24.0);
  let odd2 = (d[3] - d[1]) * (1.0 / 12.0);
  return array<vec4f, 6>(d[0] - 1.25 * d[2] + 0.25 * d[4], even + odd, even - odd, even2 + odd2, even2 - odd2, 4.0 * d[1] - 5.0 * d[3] + d[5]);
}
