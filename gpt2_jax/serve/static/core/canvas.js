// Draws matrices whose cells can be pointed at, clicked, and reached by the arrow keys.

import { cividis, css, diverging, isDark } from "./colors.js";
import { note, say } from "./live.js";
import { maxAbs, max } from "./math.js";
import { number } from "./text.js";

const GAP = 3;
const FONT = [9, 11]; // of labels, smallest and largest
const family = () => getComputedStyle(document.body).getPropertyValue("--mono");
const charts = new WeakMap();

// How values become colors: "unit" (0..1), "bytes" (0..255), "max" (0..largest), "signed" (by the
// largest magnitude), or [low, high].
function painter(data, { scale = "unit", colors, limit }) {
  const dark = isDark();
  if (scale === "signed") {
    const most = limit ?? (maxAbs(data) || 1);
    return (value) => (colors ?? ((x) => diverging(x, dark)))(value / most);
  }
  const [low, high] =
    scale === "unit"
      ? [0, limit ?? 1]
      : scale === "bytes"
        ? [0, 255]
        : scale === "max"
          ? [0, max(data) || 1]
          : scale;
  return (value) => (colors ?? cividis)((value - low) / (high - low || 1));
}

// Widths of the labels of rows and columns, in pixels; 0 where they do not fit.
function margins(context, options, cell) {
  const wide = (names) =>
    Math.min(90, Math.ceil(Math.max(...names.map((name) => context.measureText(name).width)))) +
    GAP +
    2;
  return {
    left: options.left ?? (options.rows?.length && cell.height >= FONT[0] ? wide(options.rows) : 0),
    top: options.cols?.length && cell.width >= FONT[0] ? wide(options.cols) : 0,
  };
}

function layout(canvas, [height, width], options) {
  const context = canvas.getContext("2d");
  context.font = `${FONT[1]}px ${family()}`;
  const room = options.width ?? canvas.parentElement?.clientWidth ?? 320;
  const largest = options.cell ?? 22;
  let cell = { width: largest, height: options.cellHeight ?? largest };
  let margin = { left: 0, top: 0 };
  for (let i = 0; i < 2; i++) {
    margin = margins(context, options, cell);
    cell.width = Math.min(largest, (room - margin.left) / width);
    if (cell.width >= 4) cell.width = Math.floor(cell.width);
    if (!options.cellHeight) cell.height = options.square === false ? largest : cell.width;
  }
  return {
    context,
    cell,
    margin,
    width: margin.left + width * cell.width,
    height: margin.top + height * cell.height,
  };
}

function cut(context, name, room) {
  let text = name;
  while (text.length > 1 && context.measureText(text).width > room) text = text.slice(0, -2) + "…";
  return text;
}

function labels(chart) {
  const { context, cell, margin, options, ink, quiet } = chart;
  const { rows, cols, cursor } = options;
  context.textBaseline = "middle";
  if (margin.left) {
    context.textAlign = "right";
    rows.forEach((name, i) => {
      context.fillStyle = cursor?.[0] === i ? ink : quiet;
      context.fillText(
        cut(context, name, margin.left - GAP),
        margin.left - GAP,
        margin.top + (i + 0.5) * cell.height,
      );
    });
  }
  if (margin.top) {
    context.textAlign = "left";
    cols.forEach((name, j) => {
      context.save();
      context.translate(margin.left + (j + 0.5) * cell.width, margin.top - GAP);
      context.rotate(-Math.PI / 2);
      context.fillStyle = cursor?.[1] === j ? ink : quiet;
      context.fillText(cut(context, name, margin.top - GAP), 0, 0);
      context.restore();
    });
  }
}

function cells(chart) {
  const {
    context,
    cell,
    margin,
    options,
    data,
    shape: [height, width],
  } = chart;
  if (options.paint) {
    for (let n = 0; n < height * width; n++) {
      const i = Math.floor(n / width),
        j = n % width;
      options.paint(
        context,
        i,
        j,
        margin.left + j * cell.width,
        margin.top + i * cell.height,
        cell.width - 2,
      );
    }
    return;
  }
  const paint = painter(data, options);
  const gap = cell.width >= 7 && cell.height >= 7 ? 1 : 0;
  if (cell.width < 2 || cell.height < 2) {
    const image = new ImageData(width, height);
    for (let n = 0; n < data.length; n++) {
      const [r, g, b] = paint(data[n]);
      image.data.set(
        [r, g, b, options.hidden?.(Math.floor(n / width), n % width) ? 0 : 255],
        4 * n,
      );
    }
    const small = Object.assign(document.createElement("canvas"), { width, height });
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, margin.left, margin.top, width * cell.width, height * cell.height);
    return;
  }
  for (let i = 0; i < height; i++) {
    for (let j = 0; j < width; j++) {
      if (i * width + j >= data.length || options.hidden?.(i, j)) continue;
      context.fillStyle = css(paint(data[i * width + j]), options.alpha?.(i, j) ?? 1);
      context.fillRect(
        margin.left + j * cell.width,
        margin.top + i * cell.height,
        cell.width - gap,
        cell.height - gap,
      );
    }
  }
}

function outline(chart, i, j, rows, columns, color, width) {
  const { context, cell, margin } = chart;
  context.strokeStyle = color;
  context.lineWidth = width;
  context.strokeRect(
    margin.left + j * cell.width - 0.5,
    margin.top + i * cell.height - 0.5,
    columns * cell.width,
    rows * cell.height,
  );
}

function draw(chart) {
  const { canvas, options, shape } = chart;
  Object.assign(chart, layout(canvas, shape, options));
  const ratio = Math.max(1, devicePixelRatio);
  canvas.width = Math.ceil(chart.width * ratio);
  canvas.height = Math.ceil(chart.height * ratio);
  canvas.style.width = `${chart.width}px`;
  canvas.style.height = `${chart.height}px`;
  const style = getComputedStyle(canvas);
  chart.ink = style.color;
  chart.quiet = style.getPropertyValue("outline-color") || style.color;
  chart.context.scale(ratio, ratio);
  const size = Math.min(
    FONT[1],
    Math.max(FONT[0], Math.min(chart.cell.height, chart.options.cols ? chart.cell.width : FONT[1])),
  );
  chart.context.font = `${size}px ${family()}`;
  cells(chart);
  labels(chart);
  if (options.row !== undefined && options.row !== null)
    outline(chart, options.row, 0, 1, shape[1], chart.ink, 1.5);
  if (options.cursor) outline(chart, ...options.cursor, 1, 1, chart.ink, 2);
  if (chart.at && document.activeElement === canvas)
    outline(chart, ...chart.at, 1, 1, chart.ink, 2.5);
}

function cellAt(chart, event) {
  const box = chart.canvas.getBoundingClientRect();
  const j = Math.floor((event.clientX - box.left - chart.margin.left) / chart.cell.width);
  const i = Math.floor((event.clientY - box.top - chart.margin.top) / chart.cell.height);
  const [height, width] = chart.shape;
  const inside = i >= 0 && j >= 0 && i < height && j < width && i * width + j < chart.data.length;
  return inside && !chart.options.hidden?.(i, j) ? [i, j] : null;
}

function told(chart, [i, j]) {
  const value = chart.data[i * chart.shape[1] + j];
  const { tip, rows, cols } = chart.options;
  return tip ? tip(i, j, value) : `${rows?.[i] ?? i}, ${cols?.[j] ?? j}: ${number(value)}`;
}

function moved(chart, event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[
    event.key
  ];
  const [height, width] = chart.shape;
  const [i, j] = chart.at ?? chart.options.cursor ?? [0, 0];
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    chart.options.onCell?.(i, j, chart.data[i * width + j]);
    return;
  }
  const to = step ? [i + step[0], j + step[1]] : { Home: [i, 0], End: [i, width - 1] }[event.key];
  if (!to) return;
  event.preventDefault();
  chart.at = [Math.min(Math.max(to[0], 0), height - 1), Math.min(Math.max(to[1], 0), width - 1)];
  say(told(chart, chart.at));
  chart.options.onHover?.(...chart.at);
  draw(chart);
}

function listen(chart) {
  const { canvas } = chart;
  canvas.addEventListener("pointermove", (event) => {
    const at = cellAt(chart, event);
    note(at ? told(chart, at) : "", event.clientX, event.clientY);
    canvas.style.cursor = at && chart.options.onCell ? "pointer" : "default";
    if (String(at) !== String(chart.over)) {
      chart.over = at;
      chart.options.onHover?.(...(at ?? [null, null]));
    }
  });
  canvas.addEventListener("pointerleave", () => {
    note("");
    if (chart.over) chart.options.onHover?.(null, null);
    chart.over = null;
  });
  canvas.addEventListener("click", (event) => {
    const at = cellAt(chart, event);
    if (at) chart.options.onCell?.(...at, chart.data[at[0] * chart.shape[1] + at[1]]);
  });
  canvas.addEventListener("keydown", (event) => moved(chart, event));
  canvas.addEventListener("focus", () => {
    chart.at ??= chart.options.cursor ?? [0, 0];
    draw(chart);
  });
  canvas.addEventListener("blur", () => draw(chart));
}

// What a canvas shows, and how its values become colors; for exports.
export const chartOf = (canvas) => charts.get(canvas);
export const colorsOf = painter;

// Draws data [height, width] on a canvas; call it again with other data or options to redraw.
//   scale: see `painter`; colors: x -> [r, g, b]; limit: magnitude that is full
//   label: what it is, in words;  rows, cols: names of rows and columns, drawn where they fit
//   left: room for the names of rows;  width: room in pixels;  cell: largest size of a cell
//   cellHeight: of each row;  square: false leaves the height
//   cursor: [i, j] outlined; row: a row outlined; hidden(i, j): not there; alpha(i, j)
//   paint(context, i, j, x, y, size): draws a cell itself
//   onCell(i, j, value): click or Enter; onHover(i, j); tip(i, j, value): text of a cell
export function matrix(canvas, data, shape, options = {}) {
  let chart = charts.get(canvas);
  if (!chart) {
    chart = { canvas };
    charts.set(canvas, chart);
    listen(chart);
  }
  Object.assign(chart, { data, shape, options });
  if (chart.at && (chart.at[0] >= shape[0] || chart.at[1] >= shape[1])) chart.at = null;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "matrix");
  canvas.setAttribute("aria-label", `${options.label ?? ""} (${shape[0]} × ${shape[1]})`);
  draw(chart);
}

// A vector as rows of `columns` cells, so that every entry can be pointed at; onCell and tip get
// the entry's index.
export function vector(canvas, data, options = {}) {
  const room = options.width ?? canvas.parentElement?.clientWidth ?? 320;
  const fit = Math.max(16, Math.floor(room / 4)); // cells that can be pointed at
  const columns = Math.min(options.columns ?? 64, data.length, fit);
  const shape = [Math.ceil(data.length / columns), columns];
  const at = (i, j) => i * columns + j;
  matrix(canvas, data, shape, {
    scale: "signed",
    cell: 10,
    ...options,
    cursor:
      options.at === undefined || options.at === null
        ? null
        : [Math.floor(options.at / columns), options.at % columns],
    onCell: options.onCell && ((i, j, value) => options.onCell(at(i, j), value)),
    tip: (i, j, value) =>
      options.tip ? options.tip(at(i, j), value) : `[${at(i, j)}] ${number(value)}`,
  });
}
