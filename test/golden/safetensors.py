# Reads and writes safetensors files with numpy alone: no package to install.
import json

import numpy as np

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}
NAMES = {np.dtype(d): n for n, d in DTYPES.items()}


def load(path):
    """Returns ({name: array}, {metadata key: string})."""
    data = open(path, "rb").read()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", {})
    body = memoryview(data)[start:]
    tensors = {
        name: np.frombuffer(body[slice(*h["data_offsets"])], DTYPES[h["dtype"]]).reshape(h["shape"]).copy()
        for name, h in header.items()
    }
    return tensors, metadata


def save(path, tensors, metadata=None):
    """tensors: {name: array}; metadata: {key: string}. The widest types go first, so that every tensor is aligned."""
    arrays = {n: np.asarray(a, order="C") for n, a in tensors.items()}
    names = sorted(arrays, key=lambda n: -arrays[n].itemsize)
    header, end = ({"__metadata__": metadata} if metadata else {}), 0
    for n in names:
        a = arrays[n]
        header[n] = {"dtype": NAMES[a.dtype], "shape": list(a.shape), "data_offsets": [end, end + a.nbytes]}
        end += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for n in names:
            f.write(arrays[n].tobytes())
