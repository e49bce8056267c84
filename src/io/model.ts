// A model as files: config.json and tensors in safetensors, in the layout of diffusers, both ways.
import { DdpmError } from '../errors.ts';
import type { UNetFields } from '../nn/config.ts';
import { type Dtype, readSafetensors, type TensorToWrite } from './safetensors.ts';

/** The names that attention tensors had before diffusers 0.17; google/ddpm-cifar10-32 still has them. */
const LEGACY: readonly [RegExp, string][] = [
  [/\.query\./, '.to_q.'],
  [/\.key\./, '.to_k.'],
  [/\.value\./, '.to_v.'],
  [/\.proj_attn\./, '.to_out.0.'],
];

/** Tensors by today's names, whatever the file's age; 1 x 1 convolutions of attention become matrices. */
export function modernNames<T extends { readonly shape: readonly number[] }>(tensors: Iterable<readonly [string, T]>): Map<string, T> {
  const out = new Map<string, T>();
  for (const [name, tensor] of tensors) {
    if (!/\.attentions\.\d+\./.test(name)) {
      out.set(name, tensor);
      continue;
    }
    const modern = LEGACY.reduce((n, [from, to]) => n.replace(from, to), name);
    const [a, b, kh, kw] = tensor.shape;
    out.set(modern, kh === 1 && kw === 1 ? { ...tensor, shape: [a!, b!] } : tensor);
  }
  return out;
}

/** A tensor of weights; `dtype` is the file's, whatever the data were widened to. */
export type ModelTensor = { readonly shape: readonly number[]; readonly data: ArrayLike<number>; readonly dtype: Dtype };

/** The float tensors of a safetensors file, ready for Parameters.write. */
export function readModel(bytes: Uint8Array, name: string): Map<string, ModelTensor> {
  const { tensors } = readSafetensors(bytes, name);
  for (const [tensor, { dtype }] of tensors)
    if (!['F64', 'F32', 'F16', 'BF16'].includes(dtype)) throw new DdpmError('E-MODEL', `${name}: tensor ${tensor} is ${dtype}; weights are floating point.`);
  return modernNames(tensors as unknown as Map<string, ModelTensor>);
}

/** Parses a config.json; throws E-FILE where it is not JSON or not of a U-Net. */
export function parseConfig(text: string, name: string): UNetFields {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DdpmError('E-FILE', `${name} is not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new DdpmError('E-FILE', `${name} is not a JSON object.`);
  return value as UNetFields;
}

/** In the metadata of weights: the names of the classes that a model knows, which no other program asks for. */
const CLASSES = 'class_names';

/** What to write as a safetensors file, with the metadata that PyTorch's loaders expect, and the names of the model's classes where they have names. */
export const modelFile = (tensors: Map<string, TensorToWrite>, classes: readonly string[] | null = null): { tensors: Map<string, TensorToWrite>; metadata: Record<string, string> } => ({
  tensors, metadata: { format: 'pt', ...(classes && { [CLASSES]: JSON.stringify(classes) }) },
});

/** The names of classes in a file of weights; null where it has none. */
export function readClassNames(bytes: Uint8Array, name: string): readonly string[] | null {
  const text = readSafetensors(bytes, name).metadata[CLASSES];
  try {
    const names = JSON.parse(text ?? 'null') as unknown;
    return Array.isArray(names) && names.every((each) => typeof each === 'string') ? names : null;
  } catch {
    return null; // of another program, whatever it means by it
  }
}

/**
 * The attention in the middle had a norm whatever the time embedding did until diffusers 0.17, and no field said so: where the file has one that today's
 * config would not, the field is filled in.
 */
export function withOldNorm(config: UNetFields, tensors: ReadonlyMap<string, unknown>): UNetFields {
  const { resnet_time_scale_shift: shift, attn_norm_num_groups: own, norm_num_groups: groups = 32 } = config;
  return shift === 'scale_shift' && (own ?? null) === null && tensors.has('mid_block.attentions.0.group_norm.weight') ? { ...config, attn_norm_num_groups: groups } : config;
}
