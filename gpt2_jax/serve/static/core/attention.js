// One query of one head: its scores, what it sees, its weights; and what explains each number.

import { factorOf, isSwapped } from "./changes.js";
import { row } from "./npy.js";
import { dot, softmax } from "./math.js";
import { visible } from "./text.js";

export const MOST_WHOLE = 256; // tokens of a text whose matrices [T, T] the server gives out whole

export const isWhole = (app) => app.tokens().length <= MOST_WHOLE;

// Whether query t sees token s.
export function sees(app, t, s) {
  const window = app.run.config.attention_window;
  if (app.unmasked()) return true;
  return s <= t && (!window || s > t - window);
}

export async function rowOf(app, t = app.query(), l = app.layer(), h = app.head()) {
  const address = `row/${l}/${h}/${t}`;
  const array = await app.get(address);
  const [scores, seen, weights, written] = [0, 1, 2, 3].map((i) => row(array, i).data);
  return { address, t, l, h, scores, seen, weights, written, ...softmax(scores, seen) };
}

// Opens one entry of a query (part 0), a key (1) or a value (2) of the head drawn, and its source.
export async function explainEntry(app, { l, h }, part, t, k, value) {
  const { position, qk_norm, scale_attn_by_inverse_layer_idx: scaled } = app.run.config,
    { norm_position, value_residual } = app.run.config;
  // Rotated, normalized or mixed, it is more than a product.
  const { run } = app;
  const more = part === 2 ? value_residual : position === "rotary" || qk_norm !== "none" || scaled;
  const from = `ln/${l}/1/${t}`,
    column = `w_qkv/${l}/${h}/${k}`;
  const [x, w] =
    more || norm_position === "post" ? [] : await Promise.all([app.held(from), app.held(column)]);
  const name = "qkv"[part];
  if (run !== app.run) return; // another text
  app.explain({
    address: `qkv/${l}/${h}`,
    index: [part, t, k],
    value,
    formula: app.t(`qkv.${name}.formula`),
    ...(x &&
      w && {
        operands: [
          ["x", row(x, 1).data, from, [1]],
          [`W[:, ${k}]`, row(w, part).data.subarray(0, -1), column, [part]],
          [app.t("bias"), row(w, part).data.at(-1), column, [part, -1]],
        ],
        compute: (x, w, b) => dot(x, w) + b,
      }),
  });
}

const named = (app, i) => `${visible(app.tokens()[i])} (${i})`;

// Opens the dot product behind one score of the query drawn.
export async function explainScore(app, { l, h, t }, s) {
  const { run } = app,
    from = `qkv/${l}/${h}`;
  const [qkv, { scores, address }] = await Promise.all([app.get(from), rowOf(app, t, l, h)]);
  if (run !== app.run) return; // another text
  const q = row(qkv, 0, t).data,
    k = row(qkv, 1, s).data,
    scale = app.run.config.score_scale;
  app.explain({
    address,
    index: [0, s],
    value: scores[s],
    ...product(app),
    operands: [
      [app.t("scale"), scale],
      ...rest(app, q, k, scale, scores[s]),
      [`q ${named(app, t)}`, q, from, [0, t]],
      [`k ${named(app, s)}`, k, from, [1, s]],
    ],
  });
}

const timesDot = (scale, q, k) => scale * dot(q, k);
// Positions that enter the scores (ALiBi and its like) are what the product leaves: there is
// nothing to compute such a score from again.
const biased = (app) => !["learned", "rotary", "none"].includes(app.run.config.position);
const rest = (app, q, k, scale, score) =>
  biased(app) ? [[app.t("scores.bias"), score - timesDot(scale, q, k)]] : [];
const product = (app) =>
  biased(app)
    ? { formula: app.t("scores.formulabias") }
    : { formula: app.t("scores.formula"), compute: timesDot };

// Opens one entry of what a head gives: its weights times the values, times what changes it.
export async function explainOutput(app, { l, h, t }, k, value) {
  const { run } = app;
  const [line, qkv] = await Promise.all([rowOf(app, t, l, h), app.get(`qkv/${l}/${h}`)]);
  if (run !== app.run) return; // another text
  const V = row(qkv, 2),
    changes = app.asked.interventions,
    factor = factorOf(changes, "heads", [l, h]);
  app.explain({
    address: `z/${l}/${h}`,
    index: [t, k],
    value,
    ...(!isSwapped(changes, l, h, t) && {
      formula: app.t("weighted.formula", { factor: factor === 1 ? "" : `${factor} · ` }),
      operands: [
        ...(factor === 1 ? [] : [[app.t("weighted.factor"), factor]]),
        ["α", line.weights, line.address, [2]],
        [
          `v[:, ${k}]`,
          Float32Array.from(line.weights, (_, s) => V.data[s * V.shape[1] + k]),
          qkv.address,
          [2, ":", k],
        ],
      ],
      compute: factor === 1 ? dot : timesDot,
    }),
  });
}

// Opens the softmax behind one weight; `row` is of `rowOf`.
export function explainWeight(app, row, s) {
  const { address, scores, seen, weights, top, total } = row;
  app.explain({
    address,
    index: [2, s],
    value: weights[s],
    formula: app.t("softmax.formula"),
    operands: [
      [app.t("score"), scores[s], address, [0, s]],
      [app.t("softmax.most"), top],
      [app.t("softmax.total"), total],
      [app.t("softmax.seen"), seen[s], address, [1, s]],
    ],
    compute: (score, most, all, is) => (is ? Math.exp(score - most) / all : 0),
  });
}
