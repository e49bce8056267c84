// What --label of sample means where it is the name of a class.

import { DdpmError } from '../errors.ts';
import { nearest } from './flags.ts';

/** Names listed in a message, at most. */
const LISTED = 20;

/**
 * A label with its number in place of a class's name. The name as it is written comes first, then the only one that it is but for upper and lower case.
 *
 * @throws DdpmError E-USAGE for a name that none or more than one of the classes has
 */
export function labelOf(label: string | null, names: readonly string[] | null): string | null {
  if (label === null || names === null || /^(\d+|all|none)$/.test(label)) return label;
  const fold = (name: string): string => name.toLowerCase(), alike = names.filter((name) => fold(name) === fold(label));
  const found = names.includes(label) ? label : alike.length === 1 ? alike[0]! : null;
  if (found !== null) return String(names.indexOf(found));
  if (alike.length) throw new DdpmError('E-USAGE', `--label is "${label}"; this model has the classes ${alike.join(' and ')}. Write the one that is meant as it is written here.`);
  const words = [...names, 'all', 'none'], near = nearest(fold(label), words.map(fold)), meant = words.find((word) => fold(word) === near);
  const list = `${names.slice(0, LISTED).join(', ')}${names.length > LISTED ? ` and ${names.length - LISTED} more` : ''}`;
  throw new DdpmError('E-USAGE', `--label is "${label}"; this model's classes are ${list}. A number, all or none will do as well.${meant === undefined ? '' : ` Did you mean ${meant}?`}`);
}
