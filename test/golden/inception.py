# Features of Inception-v3 with made-up weights, in plain PyTorch: python3 test/golden/inception.py
# The graph is that of pytorch-fid (torchvision's with other pooling), the weights come from a hash of their index, so that 22 million of them need not be kept:
# test/inception.test.ts makes the same.
import os

import numpy as np
import torch
import torch.nn.functional as F

from safetensors import save

here = os.path.dirname(os.path.abspath(__file__))


def noise(first, count):
    """count numbers in [-1, 1), the hash of first, first + 1, ... (the finaliser of MurmurHash3)."""
    h = (np.arange(first, first + count, dtype=np.uint64) & 0xFFFFFFFF).astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return (h.astype(np.float64) / 2**31 - 1).astype(np.float32)


class Net:
    """Makes each unit's weights where it is first used, in the order of use."""

    def __init__(self):
        self.tensors, self.next, self.dtype = {}, 0, torch.float32

    def take(self, name, shape, scale, shift=0.0):
        if name not in self.tensors:
            count = int(np.prod(shape))
            values = noise(self.next, count).reshape(shape) * np.float32(scale) + np.float32(shift)
            self.next += count
            self.tensors[name] = torch.from_numpy(values)
        return self.tensors[name].to(self.dtype)

    def unit(self, name, x, out, kernel, stride=1, padding=0):
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        fan_in = x.shape[1] * kernel[0] * kernel[1]
        w = self.take(name + ".conv.weight", (out, x.shape[1]) + kernel, np.sqrt(6 / fan_in))
        gamma = self.take(name + ".bn.weight", (out,), 0.2, 1)
        beta = self.take(name + ".bn.bias", (out,), 0.2)
        mean = self.take(name + ".bn.running_mean", (out,), 0.2)
        var = self.take(name + ".bn.running_var", (out,), 0.4, 1)
        return F.relu(F.batch_norm(F.conv2d(x, w, None, stride, padding), mean, var, gamma, beta, False, 0, 1e-3))


average = lambda x: F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
halved = lambda x: F.max_pool2d(x, 3, stride=2)


def block_a(net, p, x, pooled):
    a = net.unit(p + ".branch1x1", x, 64, 1)
    b = net.unit(p + ".branch5x5_2", net.unit(p + ".branch5x5_1", x, 48, 1), 64, 5, padding=2)
    c = net.unit(p + ".branch3x3dbl_2", net.unit(p + ".branch3x3dbl_1", x, 64, 1), 96, 3, padding=1)
    c = net.unit(p + ".branch3x3dbl_3", c, 96, 3, padding=1)
    return torch.cat([a, b, c, net.unit(p + ".branch_pool", average(x), pooled, 1)], 1)


def block_b(net, p, x):
    a = net.unit(p + ".branch3x3", x, 384, 3, stride=2)
    b = net.unit(p + ".branch3x3dbl_2", net.unit(p + ".branch3x3dbl_1", x, 64, 1), 96, 3, padding=1)
    return torch.cat([a, net.unit(p + ".branch3x3dbl_3", b, 96, 3, stride=2), halved(x)], 1)


def block_c(net, p, x, w):
    wide, tall = dict(kernel=(1, 7), padding=(0, 3)), dict(kernel=(7, 1), padding=(3, 0))
    a = net.unit(p + ".branch1x1", x, 192, 1)
    b = net.unit(p + ".branch7x7_1", x, w, 1)
    b = net.unit(p + ".branch7x7_2", b, w, **wide)
    b = net.unit(p + ".branch7x7_3", b, 192, **tall)
    c = net.unit(p + ".branch7x7dbl_1", x, w, 1)
    c = net.unit(p + ".branch7x7dbl_2", c, w, **tall)
    c = net.unit(p + ".branch7x7dbl_3", c, w, **wide)
    c = net.unit(p + ".branch7x7dbl_4", c, w, **tall)
    c = net.unit(p + ".branch7x7dbl_5", c, 192, **wide)
    return torch.cat([a, b, c, net.unit(p + ".branch_pool", average(x), 192, 1)], 1)


def block_d(net, p, x):
    a = net.unit(p + ".branch3x3_2", net.unit(p + ".branch3x3_1", x, 192, 1), 320, 3, stride=2)
    b = net.unit(p + ".branch7x7x3_1", x, 192, 1)
    b = net.unit(p + ".branch7x7x3_2", b, 192, (1, 7), padding=(0, 3))
    b = net.unit(p + ".branch7x7x3_3", b, 192, (7, 1), padding=(3, 0))
    return torch.cat([a, net.unit(p + ".branch7x7x3_4", b, 192, 3, stride=2), halved(x)], 1)


def block_e(net, p, x, pool):
    a = net.unit(p + ".branch1x1", x, 320, 1)
    b = net.unit(p + ".branch3x3_1", x, 384, 1)
    b1 = net.unit(p + ".branch3x3_2a", b, 384, (1, 3), padding=(0, 1))
    b2 = net.unit(p + ".branch3x3_2b", b, 384, (3, 1), padding=(1, 0))
    c = net.unit(p + ".branch3x3dbl_2", net.unit(p + ".branch3x3dbl_1", x, 448, 1), 384, 3, padding=1)
    c1 = net.unit(p + ".branch3x3dbl_3a", c, 384, (1, 3), padding=(0, 1))
    c2 = net.unit(p + ".branch3x3dbl_3b", c, 384, (3, 1), padding=(1, 0))
    return torch.cat([a, b1, b2, c1, c2, net.unit(p + ".branch_pool", pool(x), 192, 1)], 1)


def forward(net, x):
    x = net.unit("Conv2d_1a_3x3", x, 32, 3, stride=2)
    x = net.unit("Conv2d_2a_3x3", x, 32, 3)
    x = halved(net.unit("Conv2d_2b_3x3", x, 64, 3, padding=1))
    x = net.unit("Conv2d_3b_1x1", x, 80, 1)
    x = halved(net.unit("Conv2d_4a_3x3", x, 192, 3))
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = block_a(net, name, x, pooled)
    x = block_b(net, "Mixed_6a", x)
    for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        x = block_c(net, name, x, width)
    x = block_d(net, "Mixed_7a", x)
    x = block_e(net, "Mixed_7b", x, average)
    x = block_e(net, "Mixed_7c", x, lambda v: F.max_pool2d(v, 3, stride=1, padding=1))
    return x.mean((2, 3))


def features(net, images):
    """As pytorch-fid: images in [0, 1], resized, then to [-1, 1]."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(net.dtype) / 255
    return forward(net, 2 * F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    net = Net()
    small = noise(123, 2 * 75 * 83 * 3).reshape(2, 75, 83, 3)
    byte = lambda first, *shape: ((noise(first, int(np.prod(shape))) * 0.5 + 0.5) * 256).astype(np.uint8).reshape(shape)
    colour, grey = byte(5, 1, 32, 32, 3), byte(9, 1, 28, 28, 1)
    with torch.no_grad():
        out = {"small": forward(net, torch.from_numpy(small).permute(0, 3, 1, 2)).numpy()}
        out["colour"], out["grey"] = features(net, colour).numpy(), features(net, np.repeat(grey, 3, 3)).numpy()
        net.dtype = torch.float64
        exact = forward(net, torch.from_numpy(small).permute(0, 3, 1, 2).double()).numpy()
    print("float32 against float64:", np.linalg.norm(out["small"] - exact) / np.linalg.norm(exact))
    print({k: (v.shape, v.mean(), v.std()) for k, v in out.items()}, len(net.tensors), net.next)
    shapes = " ".join(f"{name}:{'x'.join(map(str, t.shape))}" for name, t in net.tensors.items())
    save(os.path.join(here, "inception.safetensors"), out, {"tensors": shapes})
