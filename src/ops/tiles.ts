// How many tiles a matrix has, and which tile the kernels for subgroups take.

/** Tiles of rows x columns. */
export const tiles = (rows: number, columns: number, height: number, width: number): number => Math.ceil(rows / height) * Math.ceil(columns / width);

/**
 * R rows a lane and 4 Q columns, and what a value takes in such a tile, the largest being 1: larger ones load less for each product, and leave more of themselves empty. A kernel adds in the same order
 * in all of its tiles.
 */
export type SubgroupTile = { readonly R: number; readonly Q: number; readonly cost: number };
export type SubgroupTiles = readonly [SubgroupTile, ...SubgroupTile[]];

/** The one of `choices` that takes the least time on two cores, each of which takes a tile at a time, for `batch` matrices of rows x columns. */
export function subgroupTile(choices: SubgroupTiles, rows: number, columns: number, batch: number, lanes: number): SubgroupTile {
  const time = ({ R, Q, cost }: SubgroupTile): number => Math.ceil((tiles(rows, columns, lanes * R, 4 * Q) * batch) / 2) * R * Q * cost;
  return choices.reduce((best, tile) => (time(tile) < time(best) ? tile : best));
}
