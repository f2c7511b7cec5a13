// Computes in double precision what the model computes in float32.

// [f(0), f(1), ..., f(count - 1)]
export const times = (count, f) => Array.from({ length: count }, (_, i) => f(i));

export const sum = (values) => {
  let total = 0;
  for (const value of values) total += value;
  return total;
};

export function dot(a, b) {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * b[i];
  return total;
}

export const norm = (values) => Math.sqrt(dot(values, values));

export const max = (values) => {
  let best = -Infinity;
  for (const value of values) if (value > best) best = value;
  return best;
};

export function maxAbs(values) {
  let best = 0;
  for (const value of values) if (Math.abs(value) > best) best = Math.abs(value);
  return best;
}

export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

// Returns {exp, total, probs} of the scores that are seen; others have probability 0.
export function softmax(scores, seen) {
  const visible = (i) => !seen || seen[i];
  let top = -Infinity;
  for (let i = 0; i < scores.length; i++) if (visible(i) && scores[i] > top) top = scores[i];
  const exp = Float64Array.from(scores, (score, i) => (visible(i) ? Math.exp(score - top) : 0));
  const total = sum(exp);
  return { top, exp, total, probs: exp.map((value) => value / total) };
}

export function mean(values) {
  return sum(values) / values.length;
}

export function variance(values) {
  const center = mean(values);
  let total = 0;
  for (const value of values) total += (value - center) ** 2;
  return total / values.length;
}

// The `count` largest, best first: [[index, value]].
export function largest(values, count) {
  const found = [];
  for (let i = 0; i < values.length; i++) {
    if (found.length === count && values[i] <= found[count - 1][1]) continue;
    let at = found.length;
    while (at > 0 && found[at - 1][1] < values[i]) at--;
    found.splice(at, 0, [i, values[i]]);
    if (found.length > count) found.pop();
  }
  return found;
}

// |a - b| relative to the larger of both.
export const difference = (a, b) =>
  a === b ? 0 : Math.abs(a - b) / Math.max(Math.abs(a), Math.abs(b));
