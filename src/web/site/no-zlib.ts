// In place of node:zlib where a parser names it: the page unpacks files with the browser's streams before it parses them.
export function gunzipSync(): never {
  throw new Error('unpack the file first');
}
