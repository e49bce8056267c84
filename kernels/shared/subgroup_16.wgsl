// A subgroup of sixteen lanes, as of llvmpipe where it uses AVX-512 (src/node.ts asks for it), and what its lanes hold.
const LANES = 16u;

// On llvmpipe a shuffle of sixteen lanes is a loop over them, as of four: one of all broadcasts is chosen, and where the compiler knows the lane it keeps no other.
fn vec4_of_lane(v: vec4f, lane: u32) -> vec4f {
  return array<vec4f, 16>(subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u), subgroupBroadcast(v, 4u), subgroupBroadcast(v, 5u), subgroupBroadcast(v, 6u), subgroupBroadcast(v, 7u),
    subgroupBroadcast(v, 8u), subgroupBroadcast(v, 9u), subgroupBroadcast(v, 10u), subgroupBroadcast(v, 11u), subgroupBroadcast(v, 12u), subgroupBroadcast(v, 13u), subgroupBroadcast(v, 14u), subgroupBroadcast(v, 15u))[lane];
}
fn f32_of_lane(v: f32, lane: u32) -> f32 {
  return array<f32, 16>(subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u), subgroupBroadcast(v, 4u), subgroupBroadcast(v, 5u), subgroupBroadcast(v, 6u), subgroupBroadcast(v, 7u),
    subgroupBroadcast(v, 8u), subgroupBroadcast(v, 9u), subgroupBroadcast(v, 10u), subgroupBroadcast(v, 11u), subgroupBroadcast(v, 12u), subgroupBroadcast(v, 13u), subgroupBroadcast(v, 14u), subgroupBroadcast(v, 15u))[lane];
}
// Of lanes that are constants, which subgroup_invocation_id is and local_invocation_index is not, the compiler makes this one permutation.
fn vec4_of_neighbour(v: vec4f, lane: u32) -> vec4f {
  let b0 = (lane & 1u) != 0u;
  let b1 = (lane & 2u) != 0u;
  let b2 = (lane & 4u) != 0u;
  let q0 = select(select(subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), b0), select(subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u), b0), b1);
  let q1 = select(select(subgroupBroadcast(v, 4u), subgroupBroadcast(v, 5u), b0), select(subgroupBroadcast(v, 6u), subgroupBroadcast(v, 7u), b0), b1);
  let q2 = select(select(subgroupBroadcast(v, 8u), subgroupBroadcast(v, 9u), b0), select(subgroupBroadcast(v, 10u), subgroupBroadcast(v, 11u), b0), b1);
  let q3 = select(select(subgroupBroadcast(v, 12u), subgroupBroadcast(v, 13u), b0), select(subgroupBroadcast(v, 14u), subgroupBroadcast(v, 15u), b0), b1);
  return select(select(q0, q1, b2), select(q2, q3, b2), lane >= 8u);
}

// Output channels that a lane holds of dy: one, so that all lanes together hold as many as eight lanes do.
alias Channels = f32;
const CHANNELS = 1u;

// Sixteen vec4s, one a lane.
alias Sixteen = vec4f;
fn sixteen(a: vec4f, b: vec4f, c: vec4f, d: vec4f) -> Sixteen { return a; }
fn part_of(v: Sixteen, p: u32) -> vec4f { return v; }
