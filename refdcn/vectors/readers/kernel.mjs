// A right kernel, forward, as an example of what check.mjs calls.

/** y [N, C_out, H_out, W_out]; inputs are {shape, data}, mask and bias may be missing. */
export function deformConv2d({ x, offset, weight, mask, bias }, g) {
  const [N, C_in, H, W] = x.shape, [C_out, C, K_h, K_w] = weight.shape;
  const [, , H_out, W_out] = offset.shape, K = K_h * K_w, P = H_out * W_out;
  const y = new x.data.constructor(N * C_out * P);
  const pixel = (plane, r, c) =>
    r >= 0 && r < H && c >= 0 && c < W ? x.data[(plane * H + r) * W + c] : 0;
  const sample = (plane, q_y, q_x) => {
    if (!(q_y > -1 && q_y < H && q_x > -1 && q_x < W)) return 0;
    const r = Math.floor(q_y), c = Math.floor(q_x), f = q_y - r, h = q_x - c;
    return (1 - f) * ((1 - h) * pixel(plane, r, c) + h * pixel(plane, r, c + 1))
      + f * ((1 - h) * pixel(plane, r + 1, c) + h * pixel(plane, r + 1, c + 1));
  };
  for (let n = 0; n < N; n++)
    for (let o = 0; o < C_out; o++)
      for (let p = 0; p < P; p++) {
        const u = Math.floor(p / W_out), v = p % W_out;
        let sum = bias ? bias.data[o] : 0;
        for (let c = 0; c < C; c++)
          for (let k = 0; k < K; k++) {
            const channel = Math.floor(o / (C_out / g.groups)) * C + c;
            const group = Math.floor(channel / (C_in / g.offset_groups));
            const m = (n * g.offset_groups + group) * K + k;
            const i = Math.floor(k / K_w), j = k % K_w;
            const q_y = g.stride[0] * u - g.padding[0] + g.dilation[0] * i
              + offset.data[2 * m * P + p];
            const q_x = g.stride[1] * v - g.padding[1] + g.dilation[1] * j
              + offset.data[(2 * m + 1) * P + p];
            const dm = mask ? mask.data[m * P + p] : 1;
            sum += weight.data[(o * C + c) * K + k] * dm * sample(n * C_in + channel, q_y, q_x);
          }
        y[(n * C_out + o) * P + p] = sum;
      }
  return y;
}
