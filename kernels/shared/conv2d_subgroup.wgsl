// What the subgroup kernels of forward and backward-input share: how a subgroup brings the weights of four input and sixteen output channels, and spreads them.
// TRANSPOSED input channels are the convolution's outputs, and the other way round.
#import column_of

// A lane's loads for one tap: rows are input channels, columns output channels.
alias Weights = Sixteen;

// Where they begin, in vec4s, for a tap and the first of sixteen output channels, which is channel * 4.
fn weights_of(tap: u32, channel: u32, lane: u32) -> vec4u {
  let O4 = dims.O / 4u;
  let row = tap * dims.WC + dims.C0;
  let held = vec4u(lane) + LANES * vec4u(0u, 1u, 2u, 3u);
  if (TRANSPOSED) { return (vec4u(row) + min(vec4u(channel * 4u) + held, vec4u(dims.C - 1u))) * O4; }
  return (vec4u(row) + held / 4u) * O4 + min(vec4u(channel) + held % 4u, vec4u(O4 - 1u));
}

// How much further they lie for the next four input channels.
fn weights_turn() -> u32 { return select(dims.O, 1u, TRANSPOSED); }

// Of eight lanes only two of these are used, and loaded, of sixteen one.
fn weights_at(at: vec4u) -> Weights { return sixteen(w[at.x], w[at.y], w[at.z], w[at.w]); }

// The weights of four input channels and output channel 4 q + o.
fn weight_of(v: Weights, q: u32, o: u32) -> vec4f { return column_of(v, TRANSPOSED, q, o); }
