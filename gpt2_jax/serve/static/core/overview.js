// Patterns of all heads as small pictures, of which one is chosen.

import { matrix } from "./canvas.js";
import { cividis } from "./colors.js";
import { h } from "./dom.js";
import { times } from "./math.js";
import { row } from "./npy.js";
import { percent } from "./text.js";

// Paints n x n bytes at a place of a canvas.
function thumb(context, { data, shape: [n] }, x, y, size) {
  const image = new ImageData(n, n);
  data.forEach((value, i) =>
    image.data.set(
      [...cividis(Math.sqrt(value / 255)), i % n > Math.floor(i / n) && !value ? 40 : 255],
      4 * i,
    ),
  );
  const small = Object.assign(document.createElement("canvas"), { width: n, height: n });
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = n > size;
  context.drawImage(small, x, y, size, size);
}

export function overview(app) {
  const canvas = h("canvas", { id: "overview" }),
    node = h("div.scroll", canvas);

  async function update() {
    const { epoch } = app;
    const [thumbs, kinds] = await Promise.all([app.get("thumbs"), app.get("head_scores")]);
    if (epoch !== app.epoch) return;
    const [L, H] = thumbs.shape;
    const told = (l, head) => {
      const [before, first, repeat] = [...row(kinds, l, head).data].map(percent);
      return app.t("overview.tip", { l, head, before, first, repeat });
    };
    matrix(canvas, new Uint8Array(L * H), [L, H], {
      label: app.t("overview.label"),
      cell: 62,
      width: Math.max(node.clientWidth, 26 * H),
      cursor: [app.layer(), app.head()],
      rows: times(L, (l) => app.t("overview.layer", { l })),
      cols: H * 26 < node.clientWidth ? times(H, (i) => String(i)) : null,
      paint: (context, l, head, x, y, size) => thumb(context, row(thumbs, l, head), x, y, size),
      onCell: (layer, head) => app.set({ layer, head }),
      tip: told,
    });
  }
  return { node, update };
}
