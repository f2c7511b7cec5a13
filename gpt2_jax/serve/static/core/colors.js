// Maps values to colors: cividis for shares, a diverging scale for signed values.

const CIVIDIS = [
  [0, 34, 78],
  [26, 56, 111],
  [67, 78, 108],
  [97, 101, 111],
  [125, 124, 120],
  [155, 148, 118],
  [188, 174, 108],
  [222, 201, 88],
  [254, 232, 56],
];
const COLD = [
  [255, 255, 255],
  [158, 197, 232],
  [58, 126, 192],
  [15, 63, 122],
];
const WARM = [
  [255, 255, 255],
  [248, 190, 150],
  [221, 112, 58],
  [140, 52, 12],
];
const DARK = [24, 26, 31];

function between(stops, x) {
  const at = Math.min(Math.max(x, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  return stops[i].map((low, c) => Math.round(low + (at - i) * (stops[i + 1][c] - low)));
}

export const isDark = () =>
  getComputedStyle(document.documentElement).getPropertyValue("color-scheme").trim() === "dark" ||
  (document.documentElement.dataset.theme !== "light" &&
    matchMedia("(prefers-color-scheme: dark)").matches);

// x from 0 to 1 -> [r, g, b].
export const cividis = (x) => between(CIVIDIS, x);

// x from -1 to 1 -> [r, g, b]: blue below zero, orange above, the page's ground at zero.
export function diverging(x, dark = isDark()) {
  const [ground, ...rest] = x < 0 ? COLD : WARM;
  const stops = dark ? [DARK, ...rest.toReversed()] : [ground, ...rest];
  return between(stops, Math.abs(x));
}

// x from 0 to 1 -> the page's ground to its accent: what stands behind text.
export function tint(x, dark = isDark()) {
  return between(
    dark
      ? [DARK, [52, 92, 140]]
      : [
          [255, 255, 255],
          [120, 172, 222],
        ],
    x,
  );
}

export const css = ([r, g, b], alpha = 1) => `rgb(${r} ${g} ${b} / ${alpha})`;
