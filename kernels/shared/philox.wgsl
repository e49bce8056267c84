// Philox4x32-10 (Salmon et al., 2011): four random words from a counter and a key. The same bits as src/philox.ts.
fn mul_hi_lo(a: u32, b: u32) -> vec2u {
  let al = a & 0xffffu; let ah = a >> 16u; let bl = b & 0xffffu; let bh = b >> 16u;
  let ll = al * bl; let lh = al * bh; let hl = ah * bl;
  let middle = (ll >> 16u) + (lh & 0xffffu) + (hl & 0xffffu);
  return vec2u(ah * bh + (lh >> 16u) + (hl >> 16u) + (middle >> 16u), a * b);
}

fn philox(counter: vec4u, key: vec2u) -> vec4u {
  var c = counter;
  var k = key;
  for (var round = 0u; round < 10u; round++) {
    let p0 = mul_hi_lo(0xD2511F53u, c.x);
    let p1 = mul_hi_lo(0xCD9E8D57u, c.z);
    c = vec4u(p1.x ^ c.y ^ k.x, p1.y, p0.x ^ c.w ^ k.y, p0.y);
    k += vec2u(0x9E3779B9u, 0xBB67AE85u);
  }
  return c;
}

// Words to floats in (0, 1), exactly: 23 high bits, centred, so that log() never sees 0.
fn unit(words: vec4u) -> vec4f { return (vec4f(words >> vec4u(9u)) + 0.5) * (1.0 / 8388608.0); }

// (cos, sin) of 2 pi u. WGSL's own may be 2^-11 off; these Taylor series, over an eighth of a turn, are exact to 2^-26.
fn turn(u: f32) -> vec2f {
  let quarter = round(u * 4.0);
  let a = (u - quarter * 0.25) * 6.283185307179586;
  let s = a * a;
  let c = 1.0 + s * (-0.5 + s * (0.041666666666 + s * (-0.0013888888889 + s * 0.0000248015873)));
  let d = a * (1.0 + s * (-0.16666666666 + s * (0.0083333333333 + s * (-0.0001984126984 + s * 0.0000027557319))));
  switch (u32(quarter) & 3u) {
    case 0u: { return vec2f(c, d); }
    case 1u: { return vec2f(-d, c); }
    case 2u: { return vec2f(-c, -d); }
    default: { return vec2f(d, -c); }
  }
}

// Four standard normals (Box-Muller).
fn normal4(words: vec4u) -> vec4f {
  let u = unit(words);
  let r = sqrt(-2.0 * log(u.xz));
  return vec4f(r.x * turn(u.y), r.y * turn(u.w));
}
