// Preloaded with --import: writes and appends to paths with $DDPM_TEST_FULL in them get half of their bytes down, and find the disk full. Names are separated by commas.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const { open } = fs.promises, full = (process.env.DDPM_TEST_FULL ?? '').split(',').filter(Boolean);
const noSpace = () => Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', errno: -28, syscall: 'write' });

fs.promises.open = async (path, ...rest) => {
  const file = await open(path, ...rest);
  if (!full.some((part) => String(path).includes(part))) return file;
  const { writeFile } = file;
  file.writeFile = async (data) => {
    await writeFile.call(file, data.subarray(0, data.length >> 1));
    throw noSpace();
  };
  return file;
};
const { appendFileSync } = fs;
fs.appendFileSync = (path, data, ...rest) => {
  if (!full.some((part) => String(path).includes(part))) return appendFileSync(path, data, ...rest);
  appendFileSync(path, data.slice(0, data.length >> 1), ...rest);
  throw noSpace();
};
syncBuiltinESMExports();
