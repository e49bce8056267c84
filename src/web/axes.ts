// The arithmetic of a chart: round numbers for its axes, smoothing, the point nearest to a pointer.

/** Decades and their parts at which a logarithmic axis has a line, coarsest first. */
const LOG_STEPS = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8]];

/** Exponential moving average with the bias of its start taken out; a gap in y leaves it as it was. `weight` in [0, 1). */
export function smoothed(y: readonly number[], weight: number): readonly number[] {
  if (weight <= 0) return y;
  let sum = 0, total = 0;
  return y.map((value) => {
    if (!Number.isFinite(value)) return NaN;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/** Round numbers within a range, about `count`. */
export function ticks(from: number, to: number, count: number): number[] {
  const span = to - from;
  if (!(span > 0)) return [from];
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = power * ([1, 2, 5, 10].find((m) => (m * power * count) >= span) ?? 10);
  const first = Math.ceil(from / step);
  return Array.from({ length: Math.floor(to / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Powers of ten within a range, and parts of decades where there are too few of them. */
export function logTicks(from: number, to: number): number[] {
  for (const parts of LOG_STEPS) {
    const found: number[] = [];
    for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++)
      for (const part of parts) found.push(Number((part * 10 ** power).toPrecision(3)));
    const inside = found.filter((v) => v >= from && v <= to);
    if (inside.length >= 3) return inside.length > 8 ? inside.filter((_, i) => i % Math.ceil(inside.length / 6) === 0) : inside;
  }
  return ticks(from, to, 4);
}

/** The index of the value of a rising list that is nearest to x. */
export function nearestIndex(list: readonly number[], x: number): number {
  let low = 0, high = list.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle]! < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - list[low - 1]! < list[low]! - x ? low - 1 : low;
}
