// Keeps the arrays of the run that is shown, up to a number of bytes.

const MOST_BYTES = 64 * 2 ** 20;

// `load` gives the promise of the array at an address.
export function makeArrays(load) {
  let kept = new Map(), // address -> {array: its promise, bytes: once it is there}
    bytes = 0;

  // Counts an array, and lets go of those that were not used for longest.
  function makeRoom(entry, size) {
    bytes += entry.bytes = size;
    for (const [address, old] of kept) {
      if (bytes <= MOST_BYTES || old === entry) return;
      kept.delete(address);
      bytes -= old.bytes;
    }
  }

  // Returns the promise of an array; each is asked for once.
  function get(address) {
    const found = kept.get(address);
    if (found) {
      kept.delete(address);
      kept.set(address, found);
      return found.array;
    }
    const cache = kept,
      entry = { array: load(address), bytes: 0 };
    kept.set(address, entry);
    entry.array.then(
      (array) =>
        cache === kept && kept.get(address) === entry && makeRoom(entry, array.data.byteLength),
      () => cache.delete(address),
    );
    return entry.array;
  }

  function forget() {
    [kept, bytes] = [new Map(), 0];
  }

  // All that are there, or will be.
  const all = async () => {
    const found = await Promise.allSettled([...kept.values()].map(({ array }) => array));
    return found.flatMap(({ value }) => value ?? []);
  };
  return { get, all, forget };
}
