// Writes tokens and numbers as text.

const SIGNS = { " ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍" };

// A token's text with its spaces and control characters visible.
export function visible(token) {
  const text = token.text ?? token;
  const shown = (c) =>
    SIGNS[c] ?? (c < " " ? `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}` : c);
  return [...text].map(shown).join("") || "∅";
}

// The text of tokens, from their bytes where there are some.
export function textOf(tokens) {
  const encoder = new TextEncoder();
  return new TextDecoder().decode(
    Uint8Array.from(
      tokens.flatMap(({ bytes, text }) => (bytes.length ? bytes : [...encoder.encode(text)])),
    ),
  );
}

// A number with `digits` that count: 0.0123, -1.23e-7, 12,345.
export function number(value, digits = 4) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e15)
    return value.toLocaleString("en-US").replace("-", "−");
  const size = Math.abs(value);
  const text =
    size >= 1e6 || size < 1e-4 ? value.toExponential(digits - 1) : value.toPrecision(digits);
  return text.replace("-", "−");
}

// A share in percent: 41.2%, 0.03%, 2e-7%.
export function percent(share) {
  if (share === 0 || share >= 0.9995) return `${Math.round(100 * share)}%`;
  const value = 100 * share;
  return `${share < 1e-5 ? value.toExponential(0) : value.toPrecision(share < 0.001 ? 1 : 3)}%`;
}
