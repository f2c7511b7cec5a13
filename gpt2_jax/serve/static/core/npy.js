// Reads NumPy's .npy files: C order; float32, int32 or uint8.

const KINDS = { "<f4": Float32Array, "<i4": Int32Array, "|u1": Uint8Array };

// Returns {shape, data} of an ArrayBuffer.
export function parse(buffer) {
  const view = new DataView(buffer);
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 : 10;
  const size = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, start, size));
  const kind = KINDS[/'descr': '([^']*)'/.exec(header)?.[1]];
  if (!kind || !/'fortran_order': False/.test(header))
    throw new Error(`this .npy cannot be read: ${header}`);
  const shape = /'shape': \(([^)]*)\)/
    .exec(header)[1]
    .split(",")
    .filter((part) => part.trim())
    .map(Number);
  const at = start + size;
  const count = shape.reduce((product, length) => product * length, 1);
  const aligned = at % kind.BYTES_PER_ELEMENT === 0;
  return {
    shape,
    data: aligned ? new kind(buffer, at, count) : new kind(buffer.slice(at), 0, count),
  };
}

// Returns row i of an array's first axis, as {shape, data} without a copy.
export function row(array, ...indices) {
  let { shape, data } = array;
  for (const i of indices) {
    const size = data.length / shape[0];
    data = data.subarray(i * size, (i + 1) * size);
    shape = shape.slice(1);
  }
  return { shape, data };
}
