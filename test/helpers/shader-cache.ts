// Where Mesa's drivers keep what they have compiled, for processes that tests start with a home or a cache of their own: compiling every kernel again takes llvmpipe minutes.
import { homedir } from 'node:os';
import { join } from 'node:path';

/** What is there was compiled from the same code by the same driver: both are part of its keys. */
export const SHADER_CACHE = { MESA_SHADER_CACHE_DIR: process.env['MESA_SHADER_CACHE_DIR'] || process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache') };
