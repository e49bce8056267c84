// What the subgroup kernels of forward and backward-input share: how eight lanes bring the weights of four input and sixteen output channels, and spread them.
// TRANSPOSED input channels are the convolution's outputs, and the other way round.
#import column_of

// A lane's two loads for one tap: rows are input channels, columns output channels.
alias Weights = Sixteen;

// Where they begin, in vec4s, for a tap and the first of sixteen output channels, which is channel * 4.
fn weights_of(tap: u32, channel: u32, lane: u32) -> vec2u {
  let O4 = dims.O / 4u;
  let row = tap * dims.WC + dims.C0;
  if (TRANSPOSED) { return (vec2u(row) + min(vec2u(channel * 4u + lane) + vec2u(0u, 8u), vec2u(dims.C - 1u))) * O4; }
  return (vec2u(row + lane / 4u) + vec2u(0u, 2u)) * O4 + vec2u(min(channel + lane % 4u, O4 - 1u));
}

// How much further they lie for the next four input channels.
fn weights_turn() -> u32 { return select(dims.O, 1u, TRANSPOSED); }

// The weights of four input channels and output channel 4 q + o.
fn weight_of(v: Weights, q: u32, o: u32) -> vec4f { return column_of(v, TRANSPOSED, q, o); }
