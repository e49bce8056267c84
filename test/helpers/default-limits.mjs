// Imported before anything else, as test/run.ts has it done under DDPM_TEST_LIMITS=default: every device that this process opens has WebGPU's default limits and no subgroups.
// Plain JavaScript: commands import it before they can load TypeScript.
import { globals } from 'webgpu';

const { requestDevice } = globals.GPUAdapter.prototype;
globals.GPUAdapter.prototype.requestDevice = function ({ requiredFeatures = [], ...rest } = {}) {
  return requestDevice.call(this, { ...rest, requiredLimits: {}, requiredFeatures: [...requiredFeatures].filter((feature) => !feature.includes('subgroup')) });
};
