// A WebGPU device in a browser, with messages for where there is none.
import { DdpmError } from '../../errors.ts';
import { isSoftware } from '../../gpu/device-class.ts';
import { Engine } from '../../gpu/engine.ts';
import { engineRequirements } from '../../gpu/requirements.ts';
import type { DeviceFacts } from './messages.ts';

export interface Opened {
  readonly engine: Engine;
  readonly device: GPUDevice;
  readonly facts: DeviceFacts;
}

const LIMITS = [
  'maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupsPerDimension',
] as const;

/** @throws DdpmError E-NO-ADAPTER, saying what to do */
export async function openDevice(): Promise<Opened> {
  const gpu = (navigator as { gpu?: GPU }).gpu;
  if (!gpu) {
    const why = isSecureContext ? 'This browser has no WebGPU.' : 'WebGPU is only there for pages from https or from localhost.';
    throw new DdpmError('E-NO-ADAPTER', `${why} Chrome and Edge have it from version 113, Safari from 26, Firefox from 141 on Windows. On Linux, Chrome needs --enable-unsafe-webgpu or the flag chrome://flags/#enable-unsafe-webgpu, and Firefox (153) dom.webgpu.enabled in about:config.`);
  }
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw new DdpmError('E-NO-ADAPTER', 'The browser has WebGPU and found no GPU that it uses. Look at chrome://gpu; a driver on its list of bad ones can be tried with chrome://flags/#enable-unsafe-webgpu. In Firefox, about:support lists it, and gfx.webgpu.ignore-blocklist in about:config tries it.');
  const device = await adapter.requestDevice(engineRequirements(adapter));
  const info: Partial<GPUAdapterInfo> = adapter.info ?? {}, software = isSoftware(info); // Chrome has it from version 127
  const name = [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(' ') || (software ? 'fallback adapter' : 'unnamed GPU');
  const limits = Object.fromEntries(LIMITS.map((limit) => [limit, device.limits[limit]]));
  return {
    engine: new Engine(device),
    device,
    facts: {
      name, limits, software, features: [...adapter.features].sort(),
      subgroups: [info.subgroupMinSize ?? 0, info.subgroupMaxSize ?? 0],
    },
  };
}
