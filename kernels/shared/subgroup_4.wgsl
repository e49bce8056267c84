// A subgroup of four lanes, as of CPUs with vectors of four (ARM, x86 without AVX), and what its lanes hold.
const LANES = 4u;

// On llvmpipe a shuffle of four lanes is a loop over them, seventy times as long as a broadcast: one of four is chosen, and where the compiler knows the lane it keeps no other.
fn vec4_of_lane(v: vec4f, lane: u32) -> vec4f {
  let low = select(subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), lane == 1u);
  return select(low, select(subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u), lane == 3u), lane >= 2u);
}
fn f32_of_lane(v: f32, lane: u32) -> f32 {
  let low = select(subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), lane == 1u);
  return select(low, select(subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u), lane == 3u), lane >= 2u);
}
fn vec4_of_neighbour(v: vec4f, lane: u32) -> vec4f { return vec4_of_lane(v, lane); }

// Neighbouring output channels that a lane holds of dy.
alias Channels = vec2f;
const CHANNELS = 2u;

// Sixteen vec4s, four a lane: part p of lane l is the one at p LANES + l.
alias Sixteen = mat4x4f;
fn sixteen(a: vec4f, b: vec4f, c: vec4f, d: vec4f) -> Sixteen { return Sixteen(a, b, c, d); }
fn part_of(v: Sixteen, p: u32) -> vec4f { return select(select(v[0], v[1], p == 1u), select(v[2], v[3], p == 3u), p >= 2u); }
