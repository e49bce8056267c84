// A workgroup's share of a tile's turns: all or, SPLIT, one of `splits` shares, which go one after the other through all tiles; beyond the last there is no tile. A share without turns begins at the
// last, since something is fetched before the loop. For kernels with the override SPLIT.
struct Share { tile: u32, split: u32, begin: u32, end: u32 }
fn share_of(tile: u32, tiles: u32, turns: u32) -> Share {
  if (!SPLIT) { return Share(tile, 0u, 0u, turns); }
  let split = tile / tiles;
  let each = (turns + dims.splits - 1u) / dims.splits;
  let first = split * each;
  return Share(select(tiles, tile % tiles, split < dims.splits), split, min(first, turns - 1u), select(0u, min(first + each, turns), first < turns));
}
