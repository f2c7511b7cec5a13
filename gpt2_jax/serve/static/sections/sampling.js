// Temperature, top-k and top-p on all logits of the page, and the draw of a seed.

import { fill, h } from "../core/dom.js";
import { isDark } from "../core/colors.js";
import { words } from "../core/parts.js";
import { cut, draw, prepare } from "../core/sampling.js";
import { number, percent } from "../core/text.js";

const SHOWN = 16,
  MOST_SEED = 2 ** 32 - 1;

// What top-k's slider stops at: all, then ever wider steps.
function stopsOf(V) {
  const stops = [
    0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 50, 75, 100, 200, 500, 1000, 2000, 5000, 10000,
    20000, 50000,
  ];
  return stops.filter((k) => k < V);
}

// Cumulative probability over ranks on a logarithmic axis: before the cuts, and where they fall.
function curve(canvas, found) {
  const ratio = Math.max(1, devicePixelRatio),
    W = canvas.parentElement.clientWidth || 320,
    H = 150,
    V = found.before.length;
  Object.assign(canvas, { width: W * ratio, height: H * ratio });
  Object.assign(canvas.style, { width: `${W}px`, height: `${H}px` });
  const g = canvas.getContext("2d"),
    style = getComputedStyle(canvas),
    x = (rank) => (Math.log(rank) / Math.log(Math.max(2, V))) * (W - 2) + 1;
  g.scale(ratio, ratio);
  g.fillStyle = isDark() ? "#2c3d52" : "#dbe8f5";
  g.fillRect(0, 0, x(found.ids.length) + 1, H - 18);
  g.strokeStyle = isDark() ? "#5b9bd8" : "#3a7ec0";
  g.lineWidth = 2;
  g.beginPath();
  let total = 0,
    last = -1;
  for (let i = 0; i < V; i++) {
    total += found.before[i];
    const at = x(i + 1);
    if (at - last < 0.5 && i < V - 1) continue;
    g.lineTo(at, (H - 20) * (1 - total) + 1);
    last = at;
  }
  g.stroke();
  g.fillStyle = style.color;
  g.font = "11px ui-monospace, monospace";
  for (let rank = 1; rank <= V; rank *= 10) {
    g.textAlign = rank === 1 ? "left" : x(rank) > W - 30 ? "right" : "center";
    g.fillText(number(rank), x(rank), H - 4);
  }
}

export function mount(root, app) {
  let stops = [0],
    prepared = null,
    of = null,
    drawn = null,
    waiting = false;
  const slider = (name, attributes) => {
    const input = h("input", {
      type: "range",
      id: `sampling-${name}`,
      ...attributes,
      oninput: moved,
      onchange: keep,
    });
    return {
      input,
      label: h("label", { for: input.id }),
      output: h("output", { for: input.id, class: "num" }),
    };
  };
  const sliders = {
    temperature: slider("temperature", { min: 0, max: 2, step: 0.01 }),
    top_k: slider("top_k", { min: 0, step: 1 }),
    top_p: slider("top_p", { min: 0, max: 1, step: 0.01 }),
  };
  const seed = h("input", {
      type: "number",
      id: "sampling-seed",
      min: 0,
      max: MOST_SEED,
      step: 1,
      onchange: keep,
    }),
    seedLabel = h("label", { for: seed.id, t: "sampling.seed" });
  const roll = h("button", { id: "draw", onclick: drawOne, t: "sampling.draw" }),
    append = h("button", {
      id: "append",
      disabled: true,
      onclick: () => app.extend(drawn),
      t: "sampling.append",
    });
  const result = h("span", { role: "status", class: "drawn" }),
    kept = h("p", { id: "kept" }),
    list = h("ol.amounts.pairs-of");
  const canvas = h("canvas", { role: "img" }),
    title = h("h3", { t: "sampling.best" }),
    cumulative = h("h3", { t: "sampling.cumulative" }),
    note = h("p.small.quiet", { t: "sampling.note" });
  const rows = Array.from({ length: SHOWN }, () => {
    const [name, before, after, text] = [h("code"), h("i.before"), h("i"), h("span.num")];
    return { name, before, after, text, node: h("li", name, h("span.track", before, after), text) };
  });
  list.append(...rows.map(({ node }) => node));
  root.append(
    h(
      "div.sliders",
      Object.values(sliders).map(({ label, input, output }) => [label, input, output]),
    ),
    kept,
    h("div.split", h("div", title, list), h("div", cumulative, canvas, note)),
    h("p.tools", seedLabel, seed, roll, result, append),
  );

  const chosen = () => ({
    temperature: sliders.temperature.input.valueAsNumber,
    top_k: stops[sliders.top_k.input.valueAsNumber] ?? 0,
    top_p: sliders.top_p.input.valueAsNumber,
    seed: Math.min(MOST_SEED, Math.max(0, Math.trunc(seed.valueAsNumber) || 0)),
  });

  // A slider redraws at once; what is chosen becomes the state, and the link, when it is let go.
  function moved() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      redraw();
    });
  }
  function keep() {
    app.set({ sampling: chosen() });
  }

  function redraw() {
    const start = performance.now(),
      options = chosen(),
      found = cut(prepared, options);
    const count = found.ids.length,
      before = found.before,
      most = Math.max(before[0], found.probs[0]);
    rows.forEach((row, i) => {
      row.node.hidden = i >= before.length;
      const after = found.probs[i] ?? 0;
      row.name.textContent = texts.get(found.order[i]) ?? "…";
      row.before.style.width = `${(100 * before[i]) / most}%`;
      row.after.style.width = `${(100 * after) / most}%`;
      row.text.textContent = after ? percent(after) : "–";
      row.node.classList.toggle("out", !after);
    });
    let mass = 0,
      entropy = 0;
    for (let i = 0; i < count; i++) {
      mass += before[i];
      if (found.probs[i] > 0) entropy -= found.probs[i] * Math.log(found.probs[i]);
    }
    kept.textContent = app.t("sampling.kept", {
      count: number(count),
      V: number(before.length),
      mass: percent(mass),
      entropy: number(entropy, 3),
      bits: number(entropy / Math.LN2, 3),
    });
    curve(canvas, found);
    const said = {
      temperature: options.temperature.toFixed(2),
      top_k: options.top_k ? number(options.top_k) : app.t("all"),
      top_p: options.top_p.toFixed(2),
    };
    for (const [name, { input, output }] of Object.entries(sliders)) {
      output.textContent = said[name];
      input.setAttribute("aria-valuetext", said[name]);
    }
    performance.measure("sampling", { start, end: performance.now() });
    return found;
  }

  let texts = new Map();
  async function name(found) {
    const ids = [...found.order.slice(0, 2 * SHOWN)];
    texts = new Map((await words(app, ids)).map((text, i) => [ids[i], text]));
  }

  async function drawOne() {
    const options = chosen(),
      from = prepared,
      token = draw(from, options),
      [text] = await words(app, [token]);
    if (from !== prepared) return; // of another text
    drawn = token;
    const found = cut(from, options);
    fill(
      result,
      app.t("sampling.drawn", { share: percent(found.probs[found.ids.indexOf(drawn)]) }),
      " ",
      h("code", text),
    );
    append.disabled = false;
  }

  function show() {
    const { temperature = 1, top_k = 0, top_p = 1, seed: from = 0 } = app.state.sampling;
    if (top_k && !stops.includes(top_k)) stops = [...stops, top_k].sort((a, b) => a - b);
    sliders.top_k.input.max = stops.length - 1;
    sliders.temperature.input.value = temperature;
    sliders.top_k.input.value = Math.max(0, stops.indexOf(top_k));
    sliders.top_p.input.value = top_p;
    seed.value = from;
    for (const [name, { label }] of Object.entries(sliders))
      label.textContent = app.t(`sampling.${name}`);
    canvas.setAttribute("aria-label", cumulative.textContent);
  }

  async function update() {
    if (!prepared) {
      stops = stopsOf(app.run.config.vocab_size);
      show();
    }
    const epoch = app.epoch,
      logits = await app.get("logits");
    if (epoch !== app.epoch) return;
    if (of !== logits) {
      [of, prepared, drawn] = [logits, prepare(logits.data), null];
      stops = stopsOf(logits.data.length);
      fill(result);
      append.disabled = true;
    }
    show();
    const found = redraw();
    await name(found);
    if (epoch === app.epoch) redraw();
  }
  return { update };
}
