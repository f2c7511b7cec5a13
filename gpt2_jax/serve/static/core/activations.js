// The activations of gpt2_jax/model/activations.py by their names, in double precision.

// erf by its series of positive terms, which loses no digits.
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x,
    total = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(total); n++)
    total += term *= (2 * x * x) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total;
}
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

export const ACTIVATIONS = {
  gelu_new: [
    (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
    "a = ½ u (1 + tanh(√(2/π) (u + 0.044715 u³)))",
  ],
  gelu: [(x) => 0.5 * x * (1 + erf(x / Math.SQRT2)), "a = ½ u (1 + erf(u / √2))"],
  relu: [(x) => Math.max(0, x), "a = max(0, u)"],
  silu: [(x) => x * sigmoid(x), "a = u / (1 + e^−u)"],
  quick_gelu: [(x) => x * sigmoid(1.702 * x), "a = u / (1 + e^(−1.702 u))"],
  tanh: [Math.tanh, "a = tanh(u)"],
  relu2: [(x) => Math.max(0, x) ** 2, "a = max(0, u)²"],
};
