// The residual stream: how long its vectors are, and what each row of it would predict (the lens).

import { matrix } from "../core/canvas.js";
import { controls } from "../core/controls.js";
import { css, tint } from "../core/colors.js";
import { fill, h } from "../core/dom.js";
import { norm, times } from "../core/math.js";
import { row } from "../core/npy.js";
import { rowName, words } from "../core/parts.js";
import { numbers, region, table } from "../core/tables.js";
import { number, percent, visible } from "../core/text.js";

const TOP = 10,
  SHOWN = 4;

export function mount(root, app) {
  const tools = controls(app, ["query"]),
    title = h("h3", { t: "residual.norms" }),
    norms = h("canvas"),
    lens = h("h3"),
    read = region("scroll.tall");
  const about = h("p.small.quiet.check", { t: "residual.about" }),
    grid = region("scroll.tall", { hidden: true, named: "residual.grid" }),
    all = h("h3", { t: "residual.grid" });
  const go = h("button", { onclick: begin }),
    error = h("p.error", { role: "status" });
  root.append(title, norms, tools.node, lens, read, about, all, h("p", go), error, grid);
  let shown = null,
    reading = 0;

  const shade = (prob) => ({ background: css(tint(prob)) });

  async function lensTable(t) {
    const found = await app.get(`lens/${t}`),
      count = found.shape[0],
      part = (i) => row(found, i).data;
    const V = app.run.config.vocab_size,
      best = Math.min(SHOWN, V);
    const texts = await words(app, times(count, (i) => [...part(i).subarray(0, best)]).flat());
    const next = app.tokens()[t + 1];
    const head = ["row", ...Array(best).fill(""), "logprob", "rank", "entropy", "kl"].map(
      (key, i) =>
        i === 1
          ? app.t("lens.top")
          : key && app.t(`lens.${key}`, { token: next ? visible(next) : "–" }),
    );
    const rows = times(count, (i) =>
      h(
        "tr",
        h("th", { scope: "row" }, rowName(app, i)),
        times(best, (n) =>
          h(
            "td",
            { style: shade(part(i)[TOP + n]), class: "read" },
            h(
              "button",
              { onclick: () => cell(found, i, TOP + n), "data-focus": `lens ${i} ${n}` },
              h("code", texts[i * best + n]),
              ` ${percent(part(i)[TOP + n])}`,
            ),
          ),
        ),
        numbers([20, 21, 22, 23].map((n) => number(part(i)[n], 3))),
      ),
    );
    return table(head, rows.toReversed(), "table.lens");
  }

  function cell(found, i, n) {
    app.explain({
      address: found.address,
      index: [i, n],
      value: row(found, i).data[n],
      formula: app.t("lens.formula"),
    });
  }

  // Rows of the grid arrive one by one, so that a long text shows something soon.
  async function readAll(mine) {
    const run = app.run.run,
      T = app.tokens().length,
      L = app.run.config.num_layers;
    const whole = table(["", ...app.tokens().map(visible)], [], "table.lens");
    fill(grid, whole);
    grid.hidden = false;
    shown = run;
    for (let l = L; l >= 0; l--) {
      go.textContent = app.t("lens.reading", { row: L - l + 1, rows: L + 1 });
      const found = await app.get(`lens_grid/${2 * l}`);
      const texts = await words(
        app,
        times(T, (t) => row(found, t).data[0]),
      );
      if (mine !== reading || run !== app.run.run) return;
      whole.tBodies[0].append(
        h(
          "tr",
          h("th", { scope: "row" }, rowName(app, 2 * l)),
          texts.map((text, t) => {
            const [, prob, logprob, entropy] = row(found, t).data;
            return h(
              "td",
              {
                style: shade(prob),
                title: app.t("lens.cell", {
                  prob: percent(prob),
                  logprob: number(logprob),
                  entropy: number(entropy),
                }),
              },
              h("code", text),
            );
          }),
        ),
      );
    }
    go.textContent = app.t("lens.read");
    app.say(app.t("lens.done"));
  }

  function begin() {
    const mine = ++reading;
    error.textContent = "";
    readAll(mine).catch((problem) => {
      if (mine !== reading) return;
      go.textContent = app.t("lens.read");
      error.textContent = app.sentence(problem);
    });
  }

  async function update() {
    const epoch = app.epoch,
      t = app.query();
    tools.update();
    lens.textContent = app.t("residual.lens", { token: visible(app.tokens()[t]) });
    read.setAttribute("aria-label", lens.textContent);
    if (shown !== app.run.run) {
      reading++;
      grid.hidden = true;
      error.textContent = "";
      go.textContent = app.t("lens.read");
    }
    const lengths = await app.get("norms");
    if (epoch !== app.epoch) return;
    const rows = times(lengths.shape[0], (i) => rowName(app, i));
    matrix(norms, lengths.data, lengths.shape, {
      scale: "max",
      rows,
      cols: app.tokens().map(visible),
      cellHeight: 14,
      label: title.textContent,
      cursor: [lengths.shape[0] - 1, t],
      tip: (i, s, value) => `${rows[i]} · ${visible(app.tokens()[s])}: |x| = ${number(value)}`,
      onCell: async (i, s, value) => {
        const { run } = app,
          stream = await app.get(`residual/${s}`);
        if (run !== app.run) return; // another text
        app.set({ query: s });
        app.explain({
          address: "norms",
          index: [i, s],
          value,
          formula: "|x| = √Σ x[d]²",
          compute: norm,
          operands: [["x", row(stream, i).data, stream.address, [i]]],
        });
      },
    });
    const drawn = await lensTable(t);
    if (epoch === app.epoch) fill(read, drawn);
  }
  return { update };
}
