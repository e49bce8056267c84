// Four channels at a time, for channel counts that are multiples of four.
#import stored
alias Values = vec4f;
alias StoredValues = Stored4;
const WIDTH = 4u;
fn channel_sum(v: Values) -> f32 { return dot(v, vec4f(1.0)); }
fn of_four(v: vec4f, element: u32) -> Values { return v; }
fn first_channel(v: Values) -> f32 { return v.x; }
