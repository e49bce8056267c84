// Which variant of a kernel computes a shape: told from outside, as `npm run tune` measured it, or what the op takes by itself. Every choice made is remembered.

/** A variant, and the numbers that its launch is free in, such as the splits of a sum. Names and numbers only: it goes into files. */
export type Choice = Readonly<Record<string, string | number>>;

/** Choices by op and shape: `conv2d_forward H=28 W=28 …`. */
export type ChoiceTable = Readonly<Record<string, Choice>>;

/** One choice, with the shape that asked for it. */
export interface Made {
  /** The choice's name in a table. */
  readonly key: string;
  readonly op: string;
  readonly shape: Readonly<Record<string, number>>;
  /** At which sizes it was asked for, of those that the choice must not depend on. */
  readonly at: ReadonlyMap<string, Readonly<Record<string, number>>>;
  readonly choice: Choice;
  /** Told from outside, not the op's own. */
  readonly given: boolean;
}

type Sizes = Readonly<Record<string, number>>;

const keyOf = (op: string, shape: Sizes): string => [op, ...Object.entries(shape).map(([name, value]) => `${name}=${value}`)].join(' ');

/** The choices of one engine. They are a function of the shape and of what was given, never of a measurement while something runs: a resumed run adds in the same order. */
export class Choices {
  readonly #given: ReadonlyMap<string, Choice>;
  readonly #made = new Map<string, Made & { readonly at: Map<string, Sizes> }>();
  readonly #refused = new Map<string, Choice>();

  constructor(table: ChoiceTable = {}) {
    this.#given = new Map(Object.entries(table));
  }

  /**
   * How to compute this shape: what was given where `takes` says that it can be done here, else `usual()`. `at` are the sizes that are left out of the shape, since the
   * choice must not depend on them: an image is the same bits whatever the batch that it is drawn in.
   */
  of<C extends object>(op: string, shape: Sizes, at: Sizes, usual: () => C, takes: (choice: Choice) => boolean): C {
    const key = keyOf(op, shape), where = Object.values(at).join();
    let made = this.#made.get(key);
    if (!made) {
      const told = this.#given.get(key), given = told !== undefined && takes(told);
      if (told && !given) this.#refused.set(key, told);
      made = { key, op, shape, at: new Map(), choice: given ? told : (usual() as Choice), given };
      this.#made.set(key, made);
    }
    if (!made.at.has(where)) made.at.set(where, at);
    return made.choice as unknown as C;
  }

  /** From now on this shape is computed so: for measuring. Plans that were captured before stay as they are. */
  force(op: string, shape: Sizes, choice: Choice): void {
    const key = keyOf(op, shape);
    this.#made.set(key, { key, op, shape, at: new Map(), choice, given: true });
  }

  /** What was asked for so far. */
  get made(): ReadonlyMap<string, Made> {
    return this.#made;
  }

  /** What was given and cannot be done on this device, or is no choice of this version. */
  get refused(): ReadonlyMap<string, Choice> {
    return this.#refused;
  }

  /** All that was given or made, to be given again. */
  table(): ChoiceTable {
    return Object.fromEntries([...this.#given, ...[...this.#made].map(([key, { choice }]) => [key, choice] as const)]);
  }
}
