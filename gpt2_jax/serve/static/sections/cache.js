// The KV cache: what a token adds to it, that the rest of it stays, and the work that it saves.

import { explainEntry } from "../core/attention.js";
import { matrix } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { fill, h, s } from "../core/dom.js";
import { times } from "../core/math.js";
import { row } from "../core/npy.js";
import { at } from "../core/parts.js";
import { numbers, region, table } from "../core/tables.js";
import { number, visible } from "../core/text.js";

const MORE = [1, 10, 50, 100, 500, 1000];

const bytes = (count) =>
  count < 1024
    ? `${count} B`
    : count < 2 ** 20
      ? `${number(count / 1024, 4)} KiB`
      : count < 2 ** 30
        ? `${number(count / 2 ** 20, 4)} MiB`
        : `${number(count / 2 ** 30, 4)} GiB`;

// Squares: each drawn token reads one more position with the cache, the whole text without.
function work(app, T, N) {
  const rows = Math.min(N, 16),
    columns = Math.min(T + rows, 44),
    first = Math.max(1, columns - rows),
    size = 9;
  const cell = (i, j, on) =>
    s("rect", {
      x: j * size,
      y: i * size,
      width: size - 1,
      height: size - 1,
      class: on ? "new" : "again",
    });
  const cells = times(rows, (i) => times(first + i, (j) => cell(i, j, j === first + i - 1)));
  return s(
    "svg",
    {
      viewBox: `0 0 ${columns * size} ${rows * size}`,
      width: columns * size,
      height: rows * size,
      class: "work",
      role: "img",
      "aria-label": app.t("cache.picture"),
    },
    cells,
  );
}

export function mount(root, app) {
  const facts = h("dl.pairs"),
    tools = controls(app, ["layer", "head"]),
    K = h("canvas"),
    V = h("canvas"),
    kTitle = h("h4", { t: "cache.keys" }),
    vTitle = h("h4", { t: "cache.values" });
  const same = h("p.small", { role: "status" }),
    picture = region("scroll", { named: "cache.saved" }),
    saved = h("h3", { t: "cache.saved" }),
    legend = h("p.small.quiet", { t: "cache.legend" }),
    passes = h("div");
  const kept = h("h3", { t: "cache.kept" }),
    note = h("p.small.quiet", { t: "cache.note" });
  root.append(
    facts,
    kept,
    tools.node,
    h("div.split.even", h("div", kTitle, K), h("div", vTitle, V)),
    same,
    saved,
    picture,
    legend,
    passes,
    note,
  );
  let earlier = null;

  // How far rows that were there before the last token moved; the cache relies on 0.
  function moved(qkv, l, head) {
    const now = {
      name: `${app.run.model}/${app.run.step}/${l}/${head}`,
      ids: app.tokens().map(({ id }) => id),
      qkv,
    };
    const was = earlier;
    if (!was || was.qkv !== qkv) earlier = now;
    if (
      !was ||
      was.name !== now.name ||
      was.ids.length >= now.ids.length ||
      was.ids.some((id, i) => id !== now.ids[i])
    )
      return was?.qkv === qkv;
    let most = 0;
    for (const part of [1, 2]) {
      const [a, b] = [row(was.qkv, part).data, row(qkv, part).data];
      for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]));
    }
    same.classList.toggle("check", most < 1e-4);
    same.textContent = app.t("cache.same", {
      before: was.ids.length,
      now: now.ids.length,
      most: number(most, 2),
    });
    return true;
  }

  function sizes(T) {
    const { num_layers: L, d_model: D, context_length: context } = app.run.config,
      each = 2 * L * D * 4;
    const pairs = [
      ["each", `2 · L · D · 4 = 2 · ${L} · ${D} · 4 = ${bytes(each)}`],
      ["now", `${number(T)} · ${bytes(each)} = ${bytes(T * each)}`],
      ["full", `${number(context)} · ${bytes(each)} = ${bytes(context * each)}`],
    ];
    fill(
      facts,
      pairs.map(([name, text]) => [h("dt", app.t(`cache.${name}`)), h("dd.num", text)]),
    );
    const head = ["more", "with", "without", "ratio"].map((name) => app.t(`cache.${name}`));
    const line = (N) => {
      const [once, again] = [T + N - 1, N * T + (N * (N - 1)) / 2];
      return h(
        "tr",
        numbers([number(N), number(once), number(again), `${number(again / once, 3)} ×`]),
      );
    };
    // As many as the context has room for at most.
    const room = context - T,
      rows = [...MORE.filter((N) => N < room), ...(room > 0 ? [room] : [])];
    fill(passes, rows.length > 0 && table(head, rows.map(line)));
    note.hidden = !rows.length;
  }

  async function update() {
    const epoch = app.epoch,
      { l, h: head } = at(app),
      T = app.tokens().length;
    tools.update();
    sizes(T);
    fill(picture, work(app, T, 16));
    const qkv = await app.get(`qkv/${l}/${head}`);
    if (epoch !== app.epoch) return;
    if (!moved(qkv, l, head)) {
      same.classList.remove("check");
      same.textContent = app.lesson ? "" : app.t("cache.try");
    }
    const from = Math.max(0, T - 32),
      rows = app.tokens().slice(from).map(visible),
      size = qkv.shape[2];
    for (const [canvas, part, title] of [
      [K, 1, kTitle],
      [V, 2, vTitle],
    ]) {
      matrix(canvas, row(qkv, part).data.subarray(from * size), [T - from, size], {
        scale: "signed",
        rows,
        cellHeight: 13,
        label: title.textContent,
        row: T - from - 1,
        onCell: (i, k, value) => explainEntry(app, { l, h: head }, part, from + i, k, value),
      });
    }
  }
  return { update };
}
