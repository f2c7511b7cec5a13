// Writes what a view shows to files: SVG and PNG of a canvas or a drawing, CSV of a matrix.

import { chartOf, colorsOf } from "./canvas.js";
import { css } from "./colors.js";
import { s } from "./dom.js";
import { times } from "./math.js";

const MOST_RECTANGLES = 20000;

// The views of the page that can be saved: [{node, name}].
export function views() {
  const nodes = [
    ...document.querySelectorAll("#sections canvas, #sections svg.plot, #sections svg.arcs"),
  ].filter((node) => node.getClientRects().length && node.ariaLabel);
  return nodes.map((node) => ({ node, name: `${node.closest("section").id}: ${node.ariaLabel}` }));
}

// A matrix as rectangles with the names of rows and columns.
function drawn(canvas) {
  const {
      data,
      shape: [rows, columns],
      options,
      cell,
      margin,
      width,
      height,
    } = chartOf(canvas),
    paint = colorsOf(data, options);
  const boxes = [];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns && i * columns + j < data.length; j++) {
      if (options.hidden?.(i, j)) continue;
      boxes.push(
        s("rect", {
          x: (margin.left + j * cell.width).toFixed(2),
          y: (margin.top + i * cell.height).toFixed(2),
          width: cell.width.toFixed(2),
          height: cell.height.toFixed(2),
          fill: css(paint(data[i * columns + j])).replaceAll(" / 1", ""),
          "fill-opacity": options.alpha?.(i, j) ?? null,
        }),
      );
    }
  }
  const font = {
    "font-size": 11,
    "font-family": "monospace",
    fill: getComputedStyle(canvas).color,
  };
  const names = [
    margin.left &&
      options.rows.map((name, i) =>
        s(
          "text",
          {
            ...font,
            x: margin.left - 4,
            y: margin.top + (i + 0.5) * cell.height + 4,
            "text-anchor": "end",
          },
          name,
        ),
      ),
    margin.top &&
      options.cols.map((name, j) =>
        s(
          "text",
          {
            ...font,
            x: 4 - margin.top,
            y: margin.left + (j + 0.5) * cell.width + 4,
            transform: "rotate(-90)",
          },
          name,
        ),
      ),
  ];
  return s("svg", { viewBox: `0 0 ${width} ${height}`, width, height }, boxes, names);
}

function copied(node) {
  const svg = node.cloneNode(true),
    box = node.getBoundingClientRect();
  const from = [node, ...node.querySelectorAll("*")];
  [svg, ...svg.querySelectorAll("*")].forEach((copy, i) => {
    const style = getComputedStyle(from[i]);
    for (const name of ["fill", "stroke", "stroke-width", "opacity", "font-size", "font-family"])
      copy.setAttribute(name, style.getPropertyValue(name));
  });
  svg.setAttribute("width", box.width);
  svg.setAttribute("height", box.height);
  return svg;
}

// The text of an SVG; a matrix with many cells, or a canvas that is no matrix, is an image in it.
export function svgOf(node) {
  const chart = node instanceof HTMLCanvasElement && chartOf(node),
    { width, height } = node.getBoundingClientRect();
  const embedded = () =>
    s(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, width, height },
      s("image", { href: node.toDataURL(), width, height }),
    );
  const svg = chart
    ? chart.data.length > MOST_RECTANGLES
      ? embedded()
      : drawn(node)
    : node instanceof HTMLCanvasElement
      ? embedded()
      : copied(node);
  svg.prepend(
    s("title", null, node.getAttribute("aria-label") ?? ""),
    s("rect", {
      width: "100%",
      height: "100%",
      fill: getComputedStyle(document.documentElement).backgroundColor,
    }),
  );
  return new XMLSerializer().serializeToString(svg);
}

export async function pngOf(node, scale = 2) {
  const image = new Image(),
    address = URL.createObjectURL(new Blob([svgOf(node)], { type: "image/svg+xml" }));
  try {
    image.src = address;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), {
      width: image.width * scale,
      height: image.height * scale,
    });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  } finally {
    URL.revokeObjectURL(address);
  }
}

const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

// The numbers of a matrix with the names of its rows and columns; "" where there is none.
export function csvOf(node) {
  const chart = chartOf(node);
  if (!chart) return "";
  const {
    data,
    shape: [rows, columns],
    options,
  } = chart;
  const head = ["", ...times(columns, (j) => options.cols?.[j] ?? String(j))];
  const line = (i) => [
    options.rows?.[i] ?? String(i),
    ...Array.from(data.subarray(i * columns, (i + 1) * columns), String),
  ];
  return [head, ...times(rows, (i) => line(i))]
    .map((row) => row.map(quoted).join(","))
    .join("\r\n");
}

export function save(name, content, type) {
  const address = URL.createObjectURL(
    content instanceof Blob ? content : new Blob([content], { type }),
  );
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
