// Temperature, top-k, top-p and the draw, as gpt2_jax/inference/{sampling,cuts}.py define them.
// Logits and what they are divided by are float32 there, and so here; sums are Float64.

const SHIFT = 2 ** 21; // above any id

// Sorts logits once, so that moving a slider sorts nothing: of equals, the lowest id is first.
export function prepare(logits) {
  const V = logits.length;
  const bits = new Uint32Array(Float32Array.from(logits, (x) => x + 0).buffer); // -0 is 0
  const keys = new Float64Array(V);
  for (let id = 0; id < V; id++) {
    const b = bits[id];
    const falling = b >>> 31 ? b : 0x7fffffff - b;
    keys[id] = falling * SHIFT + id;
  }
  keys.sort();
  const ids = new Uint32Array(V);
  const sorted = new Float32Array(V);
  for (let i = 0; i < V; i++) {
    ids[i] = keys[i] % SHIFT;
    sorted[i] = logits[ids[i]];
  }
  return { ids, sorted, scaled: new Float32Array(V), mass: new Float64Array(V) };
}

// Scales, and puts equal ones that were not equal before in the order of their ids.
function scale(p, temperature) {
  const { ids, sorted, scaled } = p;
  const T = Math.fround(temperature);
  for (let i = 0; i < sorted.length; i++) {
    scaled[i] = Math.fround(Math.fround(sorted[i] - sorted[0]) / T);
  }
  let order = ids;
  for (let i = 0, j; i < ids.length; i = j) {
    for (j = i + 1; j < ids.length && scaled[j] === scaled[i]; j++);
    if (j - i > 1 && sorted[j - 1] !== sorted[i]) {
      if (order === ids) order = ids.slice();
      order.subarray(i, j).sort();
    }
  }
  return order;
}

// Returns what is kept at {temperature, top_k, top_p}: its ids, the most probable first, their
// probabilities after the cuts, and `before`, the probabilities of all at the temperature alone.
export function cut(p, { temperature, top_k, top_p }) {
  const V = p.ids.length;
  if (!(temperature > 0)) {
    const before = new Float64Array(V);
    before[0] = 1;
    return { ids: p.ids.slice(0, 1), probs: Float64Array.of(1), before, order: p.ids };
  }
  const order = scale(p, temperature);
  let total = 0;
  for (let i = 0; i < V; i++) total += p.mass[i] = Math.exp(p.scaled[i]);
  let count = top_k > 0 && top_k < V ? top_k : V;
  let sum = total;
  if (count < V) {
    sum = 0;
    for (let i = 0; i < count; i++) sum += p.mass[i];
  }
  if (top_p < 1) {
    const goal = Math.max(Math.fround(Math.fround(top_p) * Math.fround(sum)), 1.1754944e-38);
    let reached = 0;
    let n = 0;
    while (n < count && reached < goal) reached += p.mass[n++];
    count = n;
    sum = reached;
  }
  const before = p.mass.map((mass) => mass / total);
  const probs = p.mass.slice(0, count).map((mass) => mass / sum);
  return { ids: order.slice(0, count), probs, before, order };
}

// Threefry-2x32 of 20 rounds (Salmon et al. 2011), which JAX draws its random bits by.
export function threefry([k0, k1], [x0, x1]) {
  const keys = [k0, k1, k0 ^ k1 ^ 0x1bd11bda];
  x0 = (x0 + k0) | 0;
  x1 = (x1 + k1) | 0;
  for (let group = 0; group < 5; group++) {
    for (const r of group % 2 ? [17, 29, 16, 24] : [13, 15, 26, 6]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << r) | (x1 >>> (32 - r))) ^ x0;
    }
    x0 = (x0 + keys[(group + 1) % 3]) | 0;
    x1 = (x1 + keys[(group + 2) % 3] + group + 1) | 0;
  }
  return [x0 >>> 0, x1 >>> 0];
}

// Returns the token that gpt2_jax draws with a seed: the largest of logit / T + Gumbel noise.
// `drawn` is how many tokens the same text has drawn with the seed before.
export function draw(p, options, drawn = 0) {
  const kept = cut(p, options);
  if (kept.ids.length === 1) return kept.ids[0];
  const seed = options.seed ?? 0;
  const choice = threefry([Math.floor(seed / 2 ** 32) >>> 0, seed >>> 0], [0, 0]);
  const key = threefry(choice, [0, drawn]);
  const f = Math.fround;
  let best = -1;
  let most = -Infinity;
  kept.ids.forEach((id, i) => {
    const [a, b] = threefry(key, [0, id]);
    const uniform = Math.max(((a ^ b) >>> 9) / 2 ** 23, 1.1754944e-38);
    const noisy = f(p.scaled[i] + f(-Math.log(f(-Math.log(uniform)))));
    if (noisy > most || (noisy === most && id < best)) [best, most] = [id, noisy];
  });
  return best;
}
