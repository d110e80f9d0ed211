// Reads the .safetensors files of `refdcn vectors`; nothing but Node or a browser.

const KINDS = { F64: Float64Array, F32: Float32Array, I64: BigInt64Array };

/** {name: {dtype, shape, data}} of a file's bytes; data is null of types like F16. */
export function parse(bytes) {
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  const size = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(buffer.slice(8, 8 + size)));
  const arrays = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    const part = buffer.slice(8 + size + from, 8 + size + to);
    arrays[name] = { dtype, shape, data: dtype in KINDS ? new KINDS[dtype](part) : null };
  }
  return arrays;
}

/** stride, padding, dilation (pairs), groups and offset_groups. */
export function geometry(arrays) {
  const g = Array.from(arrays.geometry.data, Number);
  return {
    stride: g.slice(0, 2), padding: g.slice(2, 4), dilation: g.slice(4, 6),
    groups: g[6], offset_groups: g[7],
  };
}

/** How many numbers of the result `name` are outside of what is right. */
export function failures(arrays, name, got) {
  const value = arrays[name].data, bound = arrays[`${name}.bound`].data;
  const low = arrays[`${name}.low`]?.data ?? value;
  const high = arrays[`${name}.high`]?.data ?? value;
  let wrong = got.length === value.length ? 0 : value.length;
  for (let i = 0; i < value.length; i++) {
    // NaN is within nothing.
    if (!(got[i] - high[i] <= bound[i] && low[i] - got[i] <= bound[i])) wrong++;
  }
  return wrong;
}
