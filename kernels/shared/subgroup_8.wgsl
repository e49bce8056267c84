// A subgroup of eight lanes, and what its lanes hold. kernels/build.ts writes two more forms: NAME_lanes4 with subgroup_4, NAME_lanes16 with subgroup_16.
const LANES = 8u;

fn vec4_of_lane(v: vec4f, lane: u32) -> vec4f { return subgroupShuffle(v, lane); }
fn f32_of_lane(v: f32, lane: u32) -> f32 { return subgroupShuffle(v, lane); }
// The same where each lane asks for another.
fn vec4_of_neighbour(v: vec4f, lane: u32) -> vec4f { return subgroupShuffle(v, lane); }

// Neighbouring output channels that a lane holds of dy.
alias Channels = vec2f;
const CHANNELS = 2u;

// Sixteen vec4s, two a lane: part p of lane l is the one at p LANES + l.
alias Sixteen = mat2x4f;
fn sixteen(a: vec4f, b: vec4f, c: vec4f, d: vec4f) -> Sixteen { return Sixteen(a, b); }
fn part_of(v: Sixteen, p: u32) -> vec4f { return select(v[0], v[1], p == 1u); }
