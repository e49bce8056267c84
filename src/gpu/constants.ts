// WebGPU's flags as numbers (W3C, "WebGPU"): Node has no globals for them, and a library should neither need nor set any.

export const USAGE = { MAP_READ: 0x1, COPY_SRC: 0x4, COPY_DST: 0x8, UNIFORM: 0x40, STORAGE: 0x80, INDIRECT: 0x100, QUERY_RESOLVE: 0x200 } as const;
export const MAP_READ = 0x1;
export const STAGE_COMPUTE = 0x4;
